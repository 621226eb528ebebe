"""A model's weights by name, with its adapter or without, and what identifies them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

WEIGHTS = "model*.safetensors"
"""Files of a Hugging Face folder; some repositories keep the same weights again under another name."""


def base_weights(model: nn.Module) -> dict[str, Tensor]:
    """The weights without those of an adapter, under the names they have in a model that has none."""
    weights = model.state_dict().items()
    return {name.replace(".base_layer.", "."): tensor for name, tensor in weights if not _is_adapter(name)}


def adapter_weights(model: nn.Module) -> dict[str, Tensor]:
    """The weights of the adapter, empty without one."""
    return {name: tensor for name, tensor in model.state_dict().items() if _is_adapter(name)}


def trainable_weights(model: nn.Module) -> dict[str, Tensor]:
    """The weights that training changes."""
    names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    return {name: tensor for name, tensor in model.state_dict().items() if name in names}


def whole(weight: Tensor) -> Tensor:
    """All of a weight, which is gathered where it is sharded; all ranks must call this together."""
    return weight.full_tensor() if isinstance(weight, DTensor) else weight


def laid_out_like(target: Tensor, whole: Tensor) -> Tensor:
    """`whole`, which every rank has, laid out over devices as `target` is."""
    if not isinstance(target, DTensor):
        return whole
    return distribute_tensor(whole.to(target.device), target.device_mesh, target.placements, src_data_rank=None)


@torch.no_grad()
def parameter_fingerprint(model: nn.Module) -> str:
    """A hash of all weights: two models share it exactly when every parameter has the same name and bytes.

    A new adapter changes nothing that the model computes (B = 0), so it does not count: the fingerprint is the base's.
    Sharded parameters are gathered one at a time; all ranks must call this together, and agree.
    """
    weights, adapter = base_weights(model), adapter_weights(model)
    if any(bool(whole(tensor).any()) for name, tensor in adapter.items() if "lora_B" in name):
        weights |= adapter
    digest = hashlib.sha256()
    for name, weight in sorted(weights.items()):
        tensor = whole(weight)
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def hash_files(*paths: Path) -> str:
    """A hash of files by name and bytes."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode())
        with path.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]


def _is_adapter(name: str) -> bool:
    return ".lora_" in name
