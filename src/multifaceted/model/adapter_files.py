"""An adapter on disk: PEFT's own format, and beside it the base that it belongs to."""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from multifaceted.model.adapter import NAME, Adapter
from multifaceted.model.sharded import HEAD, barrier
from multifaceted.model.weights import adapter_weights, laid_out_like, whole
from multifaceted.record_files import put_in_place, read_json, write_json
from multifaceted.records import ADAPTER, VERSION

CONFIG, WEIGHTS, BASE = "adapter_config.json", "adapter_model.safetensors", "base.json"
PREFIX = "base_model.model."
"""What PEFT puts before every name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Base:
    """The weights that an adapter is added to: where they are from, and a hash of their files."""

    name: str
    revision: str | None
    fingerprint: str

    def __str__(self) -> str:
        return f"{self.name}{f'@{self.revision}' if self.revision else ''} (weights {self.fingerprint})"


def write_adapter(model: PreTrainedModel, base: Base, folder: Path, *, is_first: bool = True) -> None:
    """Write the adapter, and a reward head with it; the folder appears whole or not at all.

    Sharded weights are gathered, all ranks together; `is_first` is true on one of them.
    """
    tensors = {name: whole(tensor).detach().cpu().contiguous() for name, tensor in _named(model).items()}
    if is_first:
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        save_file(tensors, partial / WEIGHTS, metadata={"format": "pt"})
        write_json(partial / CONFIG, _config(model, base))
        write_json(partial / BASE, {"version": VERSION, **asdict(base)})
        shutil.rmtree(folder, ignore_errors=True)
        put_in_place(partial, folder)
    barrier()


def resolve_adapter(adapter: Adapter, base: Base) -> Path | None:
    """The folder of the adapter to start from, after checking that it fits; None where a new one is trained.

    Raises:
        ValueError: no adapter is there, it belongs to another base, or it has another rank, alpha or kind.
    """
    if adapter.start is None:
        return None
    path = Path(adapter.start)
    folder = next((f for f in (path / ADAPTER, path) if (f / CONFIG).exists()), None)
    if folder is None or not (folder / BASE).exists():
        raise ValueError(
            f"adapter.start={adapter.start!r} must be a run folder with {ADAPTER}/, or a folder with {CONFIG},"
            f" {WEIGHTS} and {BASE}, which names the weights that the adapter belongs to"
        )
    record = read_json(folder / BASE)
    theirs = Base(name=record["name"], revision=record["revision"], fingerprint=record["fingerprint"])
    if theirs.fingerprint != base.fingerprint:
        raise ValueError(f"{folder} was trained on {theirs}, and this run starts from {base}; set start to the former")
    config = read_json(folder / CONFIG)
    for ours, key in (("rank", "r"), ("alpha", "lora_alpha"), ("dora", "use_dora")):
        if config[key] != getattr(adapter, ours):
            raise ValueError(
                f"{folder} has {ours}={config[key]}, and this run adapter.{ours}={getattr(adapter, ours)}; they must"
                " agree"
            )
    return folder


@torch.no_grad()
def read_adapter(model: PreTrainedModel, folder: Path) -> None:
    """Read an adapter in place, each rank its part; a reward head that it lacks stays as it is.

    Raises:
        ValueError: it has weights for other layers, or of other shapes.
    """
    wanted = _named(model)
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        different = {*wanted} ^ {*file.keys()}
        if different - {PREFIX + HEAD}:
            raise ValueError(
                f"{folder} adapts other layers than adapter.target_modules: they differ in"
                f" {', '.join(sorted(different)[:3])}"
            )
        for name in file.keys() & wanted.keys():
            tensor = file.get_tensor(name)
            if tensor.shape != wanted[name].shape:
                raise ValueError(
                    f"{folder}: {name} is {[*tensor.shape]}, and {[*wanted[name].shape]} in {type(model).__name__}"
                )
            wanted[name].copy_(laid_out_like(wanted[name], tensor))


def _named(model: PreTrainedModel) -> dict[str, Tensor]:
    """The adapter's weights and a reward head's, under PEFT's names."""
    from peft import get_peft_model_state_dict

    tensors = get_peft_model_state_dict(model, adapter_weights(model), NAME, save_embedding_layers=False)
    head = getattr(model, "score", None)
    if head is not None:
        tensors[HEAD] = model.state_dict()[HEAD]
    return {PREFIX + name: tensor for name, tensor in tensors.items()}


def _config(model: PreTrainedModel, base: Base) -> dict[str, Any]:
    """`adapter_config.json`."""
    scores = hasattr(model, "score")
    config = dataclasses.replace(
        model.peft_config[NAME],
        base_model_name_or_path=base.name,
        revision=base.revision,
        task_type="SEQ_CLS" if scores else "CAUSAL_LM",
        modules_to_save=["score"] if scores else None,
        inference_mode=True,
    )
    return {key: sorted(value) if isinstance(value, set) else value for key, value in config.to_dict().items()}
