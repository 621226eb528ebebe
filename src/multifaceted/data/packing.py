"""Packing: which trees share a row of at most so many tokens. Needs their lengths only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field


@dataclass(kw_only=True, slots=True)
class Position:
    """How far a stream of trees has been used: all that is needed to continue it.

    Attributes:
        drawn: how many trees have been taken from the stream.
        waiting: places in the stream of those that were taken and are in no row yet, the oldest first.
    """

    drawn: int = 0
    waiting: list[int] = field(default_factory=list)


def fullest(lengths: Sequence[int], capacity: int) -> list[int]:
    """Indices of the lengths, the first always among them, whose sum comes closest to `capacity` from below.

    Subset sums as bits of an integer (Bellman 1957): bit n of `reachable[i]` is set where some of the first i + 1
    lengths sum to n. Of equal sums, one of earlier lengths is taken.
    """
    within = (1 << (capacity + 1)) - 1
    reachable = [1 << lengths[0]]
    for length in lengths[1:]:
        reachable.append((reachable[-1] | reachable[-1] << length) & within)
    total = reachable[-1].bit_length() - 1
    chosen = []
    for index in range(len(lengths) - 1, 0, -1):
        if not reachable[index - 1] >> total & 1:
            chosen.append(index)
            total -= lengths[index]
    return [0, *reversed(chosen)]


def next_row(position: Position, length: Callable[[int], int], size: int, capacity: int, look_ahead: int) -> list[int]:
    """Take the next row from a stream of `size` trees, in place; empty at its end.

    The oldest tree that waits is always taken, so none waits for more than `look_ahead` rows.

    Args:
        length: tokens of the tree at a place of the stream, at most `capacity`.
        look_ahead: how many trees may wait.

    Returns:
        Places in the stream.
    """
    fresh = min(look_ahead - len(position.waiting), size - position.drawn)
    position.waiting += range(position.drawn, position.drawn + fresh)
    position.drawn += fresh
    if not position.waiting:
        return []
    chosen = fullest([length(place) for place in position.waiting], capacity)
    row = [position.waiting[index] for index in chosen]
    taken = set(chosen)
    position.waiting = [place for index, place in enumerate(position.waiting) if index not in taken]
    return row


def all_rows(lengths: Sequence[int], capacity: int, look_ahead: int) -> Iterator[list[int]]:
    """The rows of a whole stream, in its order."""
    position = Position()
    while row := next_row(position, lengths.__getitem__, len(lengths), capacity, look_ahead):
        yield row


def step_rows(lengths: Sequence[int], capacity: int, world_size: int) -> list[list[int]]:
    """Rows for the trees of one optimizer step: few, as many on every rank, and of equal length, so that none waits.

    Where rows of equal length would not hold the trees, they are filled one after the other instead.
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    in_order = [lengths[i] for i in order]
    rows = [[order[i] for i in row] for row in all_rows(in_order, capacity, len(lengths))]
    balanced = _balanced_rows(lengths, order, -(-len(rows) // world_size) * world_size)
    return rows if max(sum(lengths[i] for i in row) for row in balanced) > capacity else balanced


def _balanced_rows(lengths: Sequence[int], longest_first: Sequence[int], num_rows: int) -> list[list[int]]:
    """Deal trees to rows, the longest first, each to the shortest row so far (Graham 1969)."""
    rows: list[list[int]] = [[] for _ in range(min(num_rows, len(lengths)))]
    filled = [0] * len(rows)
    for index in longest_first:
        row = filled.index(min(filled))
        rows[row].append(index)
        filled[row] += lengths[index]
    return rows


def padded_rows(lengths: Sequence[Sequence[int]], capacity: int) -> list[list[int]]:
    """Groups of examples for rows that are padded to the longest of their group: `capacity` bounds rows times width.

    Args:
        lengths: of each example, the lengths of its rows.
    """
    groups: list[list[int]] = []
    rows = 0
    for index in sorted(range(len(lengths)), key=lambda i: -max(lengths[i])):
        width = max(lengths[groups[-1][0]]) if groups else 0
        if not groups or (rows + len(lengths[index])) * width > capacity:
            groups.append([])
            rows = 0
        groups[-1].append(index)
        rows += len(lengths[index])
    return groups
