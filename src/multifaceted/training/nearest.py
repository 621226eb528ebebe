"""The nearest settings with which a run fits its devices."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

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


Fits = Callable[[Sequence[Change]], bool]


def nearest_that_fits(
    config: TrainConfig,
    num_devices: int,
    *,
    longest_tree: int,
    bytes_needed: Callable[[TrainConfig, int], int],
    bytes_there: float,
) -> str:
    """What to add to the command line: with more devices, and with as many.

    Args:
        longest_tree: tokens of the longest tree: what a row must hold.
        bytes_needed: of a config on so many devices.
    """

    def fits(changes: Sequence[Change]) -> bool:
        changed, number = config, num_devices
        try:
            for change in changes:
                changed, number = change.apply(changed), change.num_devices or number
            changed.batch.check_ranks(number)
            return bytes_needed(changed, number) <= bytes_there
        except ValueError:  # settings that do not go together
            return False

    least = max(longest_tree, config.data.max_length)
    same = [[_checkpointing(config)], [*_shorter_rows(config, least)], [*_eight_bits(config)]]
    more, adapter = [*_more_devices(config, num_devices)], [*_adapter(config)]
    found = [_search([*same, more, adapter], fits), _search([*same, adapter], fits)]
    lines = [" ".join(o for change in changes for o in change.overrides) for changes in found if changes]
    if not lines:
        return "Neither checkpointing, shorter rows, 8-bit state, more devices nor an adapter makes it fit"
    return "It fits with\n  " + "\nor with\n  ".join(dict.fromkeys(lines))


def _search(stages: Sequence[Sequence[Change]], fits: Fits) -> list[Change] | None:
    """Add stage after stage, each at its mildest, until the run fits; then take back what turned out not to matter."""
    stages = [stage for stage in stages if stage]
    chosen: list[Change] = []
    for stage in stages:
        for change in stage:
            if fits([*chosen, change]):
                return _without_idle([*chosen, change], stages, fits)
        chosen.append(stage[-1])
    return None


def _without_idle(chosen: list[Change], stages: Sequence[Sequence[Change]], fits: Fits) -> list[Change]:
    kept = list(chosen)
    for stage, change in reversed(list(zip(stages, chosen, strict=False))):  # the first changes cost the least
        rest = [other for other in kept if other is not change]
        place = kept.index(change)
        milder = [[], *([option] for option in stage[: stage.index(change)])]
        for option in milder:
            if fits([*rest[:place], *option, *rest[place:]]):
                kept = [*rest[:place], *option, *rest[place:]]
                break
    return kept


def _checkpointing(config: TrainConfig) -> Change:
    return Change(("activation_checkpointing=true",), lambda c: replace(c, activation_checkpointing=True))


def _shorter_rows(config: TrainConfig, least: int) -> Iterator[Change]:
    rows = config.batch.max_tokens // 2
    while rows >= least:
        yield Change(
            (f"batch.max_tokens={rows}",),
            lambda c, rows=rows: replace(c, batch=replace(c.batch, max_tokens=rows)),  # type: ignore[misc]
        )
        rows //= 2


def _eight_bits(config: TrainConfig) -> Iterator[Change]:
    optimizer = config.optimizer
    if isinstance(optimizer, AdamW) and not getattr(optimizer, "eight_bit", True):
        yield Change(("optimizer.eight_bit=true",), lambda c: replace(c, optimizer=replace(optimizer, eight_bit=True)))


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
