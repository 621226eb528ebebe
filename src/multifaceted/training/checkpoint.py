"""Checkpoints: one folder a step, of safetensors and JSON alone; whole or absent; readable by any number of ranks.

torch's own distributed checkpoints keep a pickled `.metadata`, which `weights_only` does not cover. Its Hugging Face
storage says the same in the headers of safetensors files, so that nothing here is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict
from torch.optim import Optimizer

from multifaceted.data.packing import Position
from multifaceted.model.weights import trainable_weights
from multifaceted.record_files import RecordError, put_in_place, read_json, write_json
from multifaceted.records import VERSION
from multifaceted.training.low_bit import plain_parts
from multifaceted.training.ranks import Ranks

STATE = "state.json"
VALUE = "monitored"
"""Key of the monitored metric's value in the state; None where no validation was due."""
POSITION = "position"
"""Key of where the stream of examples stands."""
DIGEST = "sha256"
"""Key of the digest of all else in the state."""
_FOLDER = re.compile(r"step-(\d{8})")
_TRAINABLE = StateDictOptions(ignore_frozen_params=True, strict=False)


class CheckpointError(ValueError):
    """A checkpoint that cannot be read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """A checkpoint on disk; `value` is that of the monitored metric, `position` that in the stream of examples."""

    folder: Path
    step: int
    value: float | None
    position: Position


def folder_of(root: Path, step: int) -> Path:
    """Where the checkpoint of an optimizer step lives."""
    return root / f"step-{step:08d}"


def checkpoints(root: Path) -> list[Checkpoint]:
    """All checkpoints in `root`, the oldest first.

    Raises:
        CheckpointError: one of them is broken.
    """
    found = [(int(match[1]), path) for path in root.glob("step-*") if (match := _FOLDER.fullmatch(path.name))]
    every = []
    for step, path in sorted(found):
        state = _read_state(path)["trainer"]
        position = Position(**state[POSITION])
        every.append(Checkpoint(folder=path, step=step, value=state.get(VALUE), position=position))
    return every


def remove(folder: Path) -> None:
    """Delete a checkpoint; a deletion that is cut off leaves nothing that looks like one."""
    hidden = folder.with_name(f".{folder.name}.deleted")
    folder.rename(hidden)
    shutil.rmtree(hidden)


def remove_leftovers(root: Path) -> None:
    """Delete what a killed process left half written or half deleted."""
    for path in root.glob(".step-*"):
        shutil.rmtree(path)


def write(folder: Path, model: nn.Module, optimizers: list[Optimizer], state: dict[str, Any], ranks: Ranks) -> None:
    """Write a checkpoint: every rank its shards, then the first rank gives the folder its name.

    Args:
        model: whose trainable parameters are kept; frozen ones come from where the run starts.
        state: progress of loops, callbacks and schedules, and the monitored metric.
    """
    states = [get_optimizer_state_dict(model, optimizer, options=_TRAINABLE) for optimizer in optimizers]
    tensors = {**_model_tensors(trainable_weights(model)), **_optimizer_tensors(states)}
    partial = folder.with_name(f".{folder.name}.partial")
    if ranks.is_first:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    ranks.barrier()
    dcp.save(
        {name: tensor.reshape(1) if tensor.ndim == 0 else tensor for name, tensor in tensors.items()},
        storage_writer=HuggingFaceStorageWriter(str(partial), save_distributed=True),
        no_dist=not dist.is_initialized(),
    )
    files = _digests(partial, ranks)
    if ranks.is_first:
        groups = [state["param_groups"] for state in states]
        contents = {"version": VERSION, "trainer": _to_json(state), "param_groups": _to_json(groups), "files": files}
        write_json(partial / STATE, {**contents, DIGEST: _digest(contents)})
        if folder.exists():  # a callback of the user's may save under one name again and again
            remove(folder)
        put_in_place(partial, folder)
    ranks.barrier()


def read(folder: Path, model: nn.Module, optimizers: list[Optimizer], ranks: Ranks) -> dict[str, Any]:
    """Read weights and optimizer state in place, each rank its part; returns `state` as it was written.

    Raises:
        CheckpointError: the folder was cut off, changed, or written for another model.
    """
    state = read_weights(folder, model, ranks)
    states = [get_optimizer_state_dict(model, optimizer, options=_TRAINABLE) for optimizer in optimizers]
    _load(folder, _optimizer_tensors(states))
    # The state is in place now. load_state_dict would cast it to the type of the weights.
    for optimizer, groups in zip(optimizers, _from_json(state["param_groups"]), strict=True):
        for group, saved in zip(optimizer.param_groups, groups, strict=True):
            kept = {key: value for key, value in saved.items() if key != "params"}
            group.update({key: tuple(value) if key == "betas" else value for key, value in kept.items()})
    return cast(dict[str, Any], _from_json(state["trainer"]))


def read_weights(folder: Path, model: nn.Module, ranks: Ranks) -> dict[str, Any]:
    """Read the trainable weights in place, each rank its part; returns the contents of `state.json`.

    Raises:
        CheckpointError: the folder was cut off, changed, or written for another model.
    """
    state = _read_state(folder)
    if _digests(folder, ranks) != state["files"]:
        raise CheckpointError(f"{_broken(folder)}: its shards are not those that were written")
    _load(folder, _model_tensors(trainable_weights(model)))
    return state


def _model_tensors(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"model.{name}": tensor for name, tensor in weights.items()}


def _optimizer_tensors(states: list[Any]) -> dict[str, Tensor]:
    """The tensors of optimizer states by flat name."""
    return {
        name: part
        for index, state in enumerate(states)
        for parameter, values in state["state"].items()
        for key, tensor in values.items()
        for name, part in plain_parts(f"optimizer.{index}.{parameter}.{key}", tensor).items()
    }


def _load(folder: Path, tensors: dict[str, Tensor]) -> None:
    """Fill tensors from the shards. Scalars are kept as vectors of one."""
    views = {name: tensor.view(1) if tensor.ndim == 0 else tensor for name, tensor in tensors.items()}
    try:
        dcp.load(views, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=not dist.is_initialized())
    except (CheckpointException, SafetensorError, RuntimeError, ValueError, KeyError) as error:
        raise CheckpointError(f"{_broken(folder)}: {_cause(error)}") from error


def _read_state(folder: Path) -> dict[str, Any]:
    """The contents of `state.json`, if it is as it was written and its shards are there.

    Digests tell an accident or a mix-up; who can write here can forge them too, which is why nothing is unpickled.
    """
    try:
        state = cast(dict[str, Any], read_json(folder / STATE))
        if state.pop(DIGEST) != _digest(state):
            raise CheckpointError(f"{_broken(folder)}: {STATE} was edited")
        if folder.name != folder_of(folder, state["trainer"]["global_step"]).name:
            raise CheckpointError(f"{_broken(folder)}: it holds step {state['trainer']['global_step']}")
        for name, recorded in state["files"].items():
            found = (folder / name).stat().st_size
            if found != recorded["bytes"]:
                raise CheckpointError(f"{_broken(folder)}: {name} has {found} bytes of {recorded['bytes']}")
    except (RecordError, OSError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{_broken(folder)}: {error}") from error
    return state


def _digests(folder: Path, ranks: Ranks) -> dict[str, dict[str, Any]]:
    """Size and hash of every shard in `folder`; the ranks share the reading."""
    names = ranks.from_first(lambda: sorted(path.name for path in folder.glob("*.safetensors")))
    mine = {}
    for name in names[ranks.rank :: ranks.world_size]:
        with (folder / name).open("rb") as shard:
            digest = hashlib.file_digest(shard, "sha256").hexdigest()
            mine[name] = {"bytes": shard.tell(), "sha256": digest}
    return {name: facts for part in ranks.gather(mine) for name, facts in part.items()}


def _digest(contents: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()


def _broken(folder: Path) -> str:
    return f"checkpoint {folder} is broken; delete this folder to continue from the one before it"


def _cause(error: BaseException) -> str:
    failures = getattr(error, "failures", None)
    return str(next(iter(failures.values()))[0] if failures else error).splitlines()[0]


def _to_json(value: Any) -> Any:
    """Plain data; what JSON lacks (third-party callbacks keep tensors and infinities) is spelled out."""
    if isinstance(value, Tensor):
        return {"__tensor__": _to_json(value.tolist()), "dtype": str(value.dtype).removeprefix("torch.")}
    if isinstance(value, float) and not math.isfinite(value):
        return {"__float__": str(value)}
    if isinstance(value, dict):
        return {str(key): _to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json(item) for item in value]
    return value


def _from_json(value: Any) -> Any:
    if isinstance(value, dict) and "__tensor__" in value:
        return torch.tensor(_from_json(value["__tensor__"]), dtype=getattr(torch, value["dtype"]))
    if isinstance(value, dict) and "__float__" in value:
        return float(value["__float__"])
    if isinstance(value, dict):
        return {key: _from_json(item) for key, item in value.items()}
    return [_from_json(item) for item in value] if isinstance(value, list) else value
