"""Running out of memory, said in terms of the config."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from transformers import PreTrainedModel

from multifaceted.training.config import TrainConfig
from multifaceted.training.hardware import GIB
from multifaceted.training.memory import memory_parts
from multifaceted.training.optimizer import AdamW
from multifaceted.training.ranks import Ranks

HOST = ("DefaultCPUAllocator: can't allocate memory", "DefaultCPUAllocator: not enough memory")
"""What torch says, in an error of no type of its own, where the host's memory is used up."""


class OutOfMemoryError(RuntimeError):
    """A device's memory did not suffice; the message says what to lower."""


@contextlib.contextmanager
def memory_explained(config: TrainConfig, ranks: Ranks, model: PreTrainedModel | None = None) -> Iterator[None]:
    """Say what takes how much, and what to lower, where memory runs out.

    Args:
        model: what is trained, once there is one.

    Raises:
        OutOfMemoryError: in place of torch's error, which it quotes.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
        needed = "" if model is None else f"\n{_needed(config, model, ranks)}"
        raise OutOfMemoryError(
            f"out of memory on {config.device_type}: {reason}{needed}\n{memory_advice(config)}."
            " The last checkpoint is kept"
        ) from error


def _needed(config: TrainConfig, model: PreTrainedModel, ranks: Ranks) -> str:
    """What a plan says of each part."""
    parts = memory_parts(config, model, num_devices=ranks.world_size)
    listed = ", ".join(f"{name} {num_bytes / GIB:.1f}" for name, num_bytes in parts.items())
    return f"By plan, each device needs {sum(parts.values()) / GIB:.1f} GiB: {listed}"


def memory_advice(config: TrainConfig) -> str:
    """Settings that need less memory and that the run does not use yet, beginning with those that change it least."""
    batch, shortest, adapter = config.batch, config.data.max_length, config.adapter
    options = []
    if batch.max_tokens > shortest:
        options.append(f"batch.max_tokens={max(shortest, batch.max_tokens // 2)}")
    if not config.activation_checkpointing:
        options.append("activation_checkpointing=true")
    if adapter is None and not (isinstance(config.optimizer, AdamW) and config.optimizer.eight_bit):
        options.append("optimizer=adamw_8bit")
    if adapter is None:
        options.append("adapter=lora")
    if adapter is None or not adapter.four_bit:
        options.append("more devices" + ("" if config.strategy.shards else " with strategy=fsdp"))
    options.append(f"data.max_length and batch.max_tokens below {shortest}")
    return f"To need less, set, in this order: {', '.join(options)}"


def _is_out_of_memory(error: BaseException) -> bool:
    is_named = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return is_named or any(words in str(error) for words in HOST)
