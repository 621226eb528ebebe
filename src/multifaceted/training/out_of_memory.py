"""Running out of memory, said in terms of the config."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from transformers import PreTrainedModel

from multifaceted.training.config import TrainConfig
from multifaceted.training.hardware import GIB
from multifaceted.training.memory import memory_parts
from multifaceted.training.nearest import stages_of
from multifaceted.training.ranks import Ranks
from multifaceted.trees import TokenTree

HOST = ("DefaultCPUAllocator: can't allocate memory", "DefaultCPUAllocator: not enough memory")
"""What torch says, in an error of no type of its own, where the host's memory is used up."""


class OutOfMemoryError(RuntimeError):
    """A device's memory did not suffice; the message says what to lower."""


@contextlib.contextmanager
def memory_explained(
    config: TrainConfig, ranks: Ranks, model: PreTrainedModel | None = None, trees: Sequence[TokenTree] = ()
) -> Iterator[None]:
    """Say what takes how much, and what to lower, where memory runs out.

    Args:
        model: what is trained, once there is one.
        trees: what it is trained on, once it is known; rows are not to be shorter.

    Raises:
        OutOfMemoryError: in place of torch's error, which it quotes.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, OutOfMemoryError) or not _is_out_of_memory(error):
            raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
        needed = "" if model is None else f"\n{_needed(config, model, ranks)}"
        longest = max(map(config.batch.cost, trees), default=config.batch.max_tokens)
        advice = memory_advice(config, ranks.world_size, longest_tree=longest)
        raise OutOfMemoryError(
            f"out of memory on {config.device_type}: {reason}{needed}\n{advice}. Checkpoints are kept"
        ) from error


def _needed(config: TrainConfig, model: PreTrainedModel, ranks: Ranks) -> str:
    """What a plan says of each part."""
    parts = memory_parts(config, model, num_devices=ranks.world_size)
    listed = ", ".join(f"{name} {num_bytes / GIB:.1f}" for name, num_bytes in parts.items())
    return f"By plan, each device needs {sum(parts.values()) / GIB:.1f} GiB: {listed}"


def memory_advice(config: TrainConfig, num_devices: int, *, longest_tree: int) -> str:
    """The first of each kind of changes that need less memory and that the config allows."""
    options = []
    for stage in stages_of(config, num_devices, longest_tree=longest_tree):
        for change in stage:
            try:
                change.apply(config).batch.check_ranks(change.num_devices or num_devices)
            except ValueError:
                continue
            options.append(" ".join(change.overrides))
            break
    if not options:
        return "Lower data.max_length, and batch.max_tokens with it"
    return f"To need less, add, in this order: {'; '.join(options)}"


def _is_out_of_memory(error: BaseException) -> bool:
    is_named = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return is_named or any(words in str(error) for words in HOST)
