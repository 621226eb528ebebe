"""Weights that no rank holds whole: read from and written to safetensors files shard by shard."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors import safe_open
from torch import Tensor, nn
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from multifaceted.model.weights import WEIGHTS, base_weights, laid_out_like

HEAD = "score.weight"
"""The scalar head of a reward model, which a language model's files lack."""

SHARD_BYTES = 5_000_000_000
"""Most bytes of one exported file."""


def fill_from_folder(model: PreTrainedModel, folder: Path) -> None:
    """Read a sharded model's weights from a folder of safetensors files, in place, each rank its part.

    Raises:
        ValueError: the files lack some of the model's weights.
    """
    stored = {key for path in folder.glob(WEIGHTS) for key in _keys(path)}
    wanted = base_weights(model)
    if model.config.tie_word_embeddings:
        wanted.pop("lm_head.weight", None)
    missing = set(wanted) - stored
    if missing - {HEAD}:
        raise ValueError(f"{folder} lacks weights of {type(model).__name__}: {', '.join(sorted(missing)[:3])}, ...")
    found = {name: tensor for name, tensor in wanted.items() if name in stored}
    dcp.load(found, storage_reader=HuggingFaceStorageReader(str(folder)))
    if HEAD in missing:
        initialise_head(model)
    _restore_computed_buffers(model)


def initialise_head(model: PreTrainedModel) -> None:
    """Draw the scalar head from torch's current seed alone, so that every layout of the model begins alike."""
    head = cast(Tensor, model.score.weight)
    generator = torch.Generator().manual_seed(torch.initial_seed())
    drawn = torch.empty(head.shape, dtype=head.dtype).normal_(0, model.config.initializer_range, generator=generator)
    with torch.no_grad():
        head.copy_(laid_out_like(head, drawn))


def write_shards(model: PreTrainedModel, folder: Path) -> None:
    """Write all weights as Hugging Face files; every rank writes its shards, which the first joins file by file."""
    weights = dict(model.state_dict())
    if model.config.tie_word_embeddings:
        weights.pop("lm_head.weight", None)
    files: dict[str, int] = {}
    size = 0
    for name, tensor in weights.items():
        files[name] = 1 + size // SHARD_BYTES
        size += tensor.numel() * tensor.element_size()
    writer = HuggingFaceStorageWriter(
        str(folder), fqn_to_index_mapping=files, save_distributed=True, enable_consolidation=True
    )
    dcp.save(weights, storage_writer=writer)


def is_sharded(model: nn.Module) -> bool:
    """Whether a rank holds a part of the weights only."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def _keys(path: Path) -> list[str]:
    with safe_open(path, framework="pt") as file:
        return list(file.keys())


def _restore_computed_buffers(model: PreTrainedModel) -> None:
    """Compute again what no file holds, such as rotary frequencies; allocation left garbage there."""
    for module in model.modules():
        if module._non_persistent_buffers_set:
            model._init_weights(module)


def barrier() -> None:
    """Wait for all ranks, where there are several."""
    if dist.is_initialized():
        dist.barrier()
