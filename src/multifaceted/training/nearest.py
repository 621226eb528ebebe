"""The nearest settings with which a run fits its devices."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import inf

from multifaceted.model.adapter import Adapter
from multifaceted.training.config import TrainConfig
from multifaceted.training.optimizer import AdamW
from multifaceted.training.strategy import FullyShard

MORE_DEVICES = (2, 4, 8, 16, 32, 64)

LARGEST_NODE = 8
"""Devices that `trainer.devices` may ask for; more are on several nodes, which a launcher starts."""


@dataclass(frozen=True, slots=True)
class Change:
    """Settings that need less memory, as overrides and as what they do."""

    overrides: tuple[str, ...]
    apply: Callable[[TrainConfig], TrainConfig]
    num_devices: int | None = None


Stage = Sequence[Change]
"""Changes of one kind, the mildest first."""

Needed = Callable[[Sequence[Change]], float]
"""Bytes that a run needs after changes; infinite where they do not go together."""


def nearest_that_fits(
    config: TrainConfig,
    num_devices: int,
    *,
    longest_tree: int,
    bytes_needed: Callable[[TrainConfig, int], float],
    bytes_there: float,
) -> str:
    """What to add to the command line: with more devices, and with as many.

    Args:
        longest_tree: tokens of the longest tree: what a row must hold.
        bytes_needed: of a config on so many devices.
    """

    def needed(changes: Sequence[Change]) -> float:
        changed, number = config, num_devices
        try:
            for change in changes:
                changed, number = change.apply(changed), change.num_devices or number
            changed.batch.check_ranks(number)
        except ValueError:
            return inf
        return bytes_needed(changed, number)

    *same, more, adapter = stages_of(config, num_devices, longest_tree=longest_tree)
    found = [_search(stages, needed, bytes_there) for stages in ([*same, more, adapter], [*same, adapter])]
    lines = [" ".join(o for change in changes for o in change.overrides) for changes in found if changes]
    if not lines:
        return "Neither checkpointing, shorter rows, 8-bit state, more devices nor an adapter makes it fit"
    return "It fits with\n  " + "\nor with\n  ".join(dict.fromkeys(lines))


def stages_of(config: TrainConfig, num_devices: int, *, longest_tree: int) -> list[Stage]:
    """What would need less memory, kind by kind; what changes the run least comes first."""
    least = max(longest_tree, config.data.max_length)
    return [
        [*_checkpointing(config)],
        [*_shorter_rows(config, least)],
        [*_eight_bits(config)],
        [*_more_devices(config, num_devices)],
        [*_adapter(config)],
    ]


def _search(stages: Sequence[Stage], needed: Needed, there: float) -> list[Change] | None:
    """Add a change of stage after stage, the mildest that will do or else the strongest; None if all are too few."""
    chosen: list[tuple[Stage, Change]] = []
    for stage in stages:
        so_far = [change for _, change in chosen]
        for change in stage:
            if needed([*so_far, change]) <= there:
                return _mildest([*chosen, (stage, change)], needed, there)
        possible = [change for change in stage if needed([*so_far, change]) < inf]
        chosen += [(stage, change) for change in possible[-1:]]
    return None


def _mildest(chosen: Sequence[tuple[Stage, Change]], needed: Needed, there: float) -> list[Change]:
    """Take back what turned out not to matter, the last changes first: they are the greatest."""
    kept = [[change] for _, change in chosen]
    for place in reversed(range(len(chosen))):
        stage, change = chosen[place]
        for option in ([], *([milder] for milder in stage[: stage.index(change)])):
            others = [*kept[:place], option, *kept[place + 1 :]]
            if needed([c for part in others for c in part]) <= there:
                kept = others
                break
    return [change for part in kept for change in part]


def _checkpointing(config: TrainConfig) -> Iterator[Change]:
    if not config.activation_checkpointing:
        yield Change(("activation_checkpointing=true",), lambda c: replace(c, activation_checkpointing=True))


def _shorter_rows(config: TrainConfig, least: int) -> Iterator[Change]:
    rows = config.batch.max_tokens // 2
    while rows >= least:
        yield Change(
            (f"batch.max_tokens={rows}",),
            lambda c, rows=rows: replace(c, batch=replace(c.batch, max_tokens=rows)),  # type: ignore[misc]
        )
        rows //= 2


def _eight_bits(config: TrainConfig) -> Iterator[Change]:
    if isinstance(config.optimizer, AdamW) and not config.optimizer.eight_bit:
        smaller = replace(config.optimizer, eight_bit=True)
        yield Change(("optimizer.eight_bit=true",), lambda c: replace(c, optimizer=smaller))


def _more_devices(config: TrainConfig, num_devices: int) -> Iterator[Change]:
    strategy = config.strategy if config.strategy.shards else FullyShard()
    for number in MORE_DEVICES:
        if number <= num_devices:
            continue
        is_node = number <= LARGEST_NODE
        devices = {"devices": number} if is_node else {}
        planned = None if is_node and config.plan.num_devices is None else number
        yield Change(
            (
                *(() if config.strategy.shards else ("strategy=fsdp",)),
                *(f"trainer.{key}={value}" for key, value in devices.items()),
                *(() if planned is None else (f"plan.num_devices={planned}",)),
            ),
            lambda c, devices=devices: replace(c, strategy=strategy, trainer=c.trainer | devices),  # type: ignore[misc]
            num_devices=number,
        )


def _adapter(config: TrainConfig) -> Iterator[Change]:
    if config.adapter is None:
        yield Change(("adapter=lora",), lambda c: replace(c, adapter=Adapter()))
