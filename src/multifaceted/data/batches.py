"""Batches: which examples an optimizer step sees, and the forward passes it is cut into, on each rank.

Everything follows from the seed and a position in the stream of examples, so a run resumes from that position and
every rank agrees.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from multifaceted.data.batch import Batch
from multifaceted.data.packing import Position, all_rows, next_row
from multifaceted.trees import TokenTree, TreeRows
from multifaceted.work import Work


@dataclass(kw_only=True, slots=True)
class PreferenceBatch:
    """Examples of one forward pass. `chosen` and the pairs index the branches of `rows`."""

    rows: TreeRows
    chosen: Tensor
    """[examples]"""
    pair_chosen: Tensor
    """[pairs]"""
    pair_rejected: Tensor
    """[pairs]"""
    pair_example: Tensor
    """[pairs]"""
    margin: Tensor
    """[examples]"""
    reference: Tensor | None
    """[branches]"""
    ids: list[str]
    sources: list[str]
    dimensions: list[tuple[str, ...]]
    counts: bool = True
    """False for a batch that only keeps a rank in step with the others and must add nothing."""

    def to(self, device: torch.device | str) -> PreferenceBatch:
        """The same batch on another device."""
        moved: dict[str, Any] = {
            f.name: value.to(device)
            for f in fields(self)
            if isinstance(value := getattr(self, f.name), Tensor | TreeRows)
        }
        return replace(self, **moved)


def collate(
    trees: Sequence[TokenTree],
    batch: Batch,
    reference: dict[str, list[float]] | None = None,
    *,
    on_gpu: bool = False,
    counts: bool = True,
) -> PreferenceBatch:
    """Lay out the examples of one forward pass.

    Args:
        reference: example id to the reference log-probability of each branch.
    """
    chosen, pairs, start = [], [], 0
    for index, tree in enumerate(trees):
        chosen.append(start)
        pairs += [(start, start + b, index) for b in range(1, len(tree.branches))]
        start += len(tree.branches)
    columns = torch.tensor(pairs, dtype=torch.long).reshape(-1, 3).unbind(1)
    return PreferenceBatch(
        rows=batch.lay_out(trees, on_gpu=on_gpu),
        chosen=torch.tensor(chosen),
        pair_chosen=columns[0],
        pair_rejected=columns[1],
        pair_example=columns[2],
        margin=torch.tensor([tree.margin or 0.0 for tree in trees]),
        reference=None if reference is None else torch.tensor([v for tree in trees for v in reference[tree.id]]),
        ids=[tree.id for tree in trees],
        sources=[tree.source for tree in trees],
        dimensions=[tree.dimensions for tree in trees],
        counts=counts,
    )


@dataclass(kw_only=True, slots=True)
class StepBatch:
    """One optimizer step: the forward passes of this rank, of which every rank has as many."""

    passes: list[PreferenceBatch]
    examples: int
    """Of all passes of all ranks."""
    tokens: int
    """Of the chosen branches, of all passes of all ranks."""
    work: Work
    """Of all passes of all ranks."""
    position: Position
    """Where the stream of examples stands after this step."""

    def to(self, device: torch.device | str) -> StepBatch:
        """The same batch on another device."""
        return replace(self, passes=[batch.to(device) for batch in self.passes])


@dataclass(kw_only=True, eq=False)
class TrainingBatches(IterableDataset[StepBatch]):
    """The optimizer steps of a whole run. Epochs follow one another, each a shuffle of its own.

    Iterating begins at `start`, so a run continues where it stood; the last step takes what is left.
    """

    trees: Sequence[TokenTree]
    batch: Batch
    num_epochs: int
    seed: int
    max_steps: int | None = None
    rank: int = 0
    world_size: int = 1
    on_gpu: bool = False
    reference: dict[str, list[float]] | None = None
    start_step: int = 0
    start: Position = field(default_factory=Position)

    def __post_init__(self) -> None:
        self.batch.check_trees(self.trees)

    @cached_property
    def num_steps(self) -> int:
        """Optimizer steps of the whole run, which the schedule needs; full rows are counted by packing lengths."""
        most = sys.maxsize if self.max_steps is None else self.max_steps
        if self.batch.examples is not None:
            return min(-(-self._stream_size // self.batch.examples), most)
        steps, position = 0, Position()
        while steps < most and self._next_rows(position):
            steps += 1
        return steps

    def __len__(self) -> int:
        return self.num_steps

    def __iter__(self) -> Iterator[StepBatch]:
        position = copy.deepcopy(self.start)
        for _ in range(self.start_step, self.num_steps):
            yield self._step(self._next_rows(position), copy.deepcopy(position))

    def rows_of_steps(self) -> Iterator[list[list[int]]]:
        """Indices of the trees of each forward pass of each step of the whole run, over all ranks."""
        position = Position()
        for _ in range(self.num_steps):
            yield self._next_rows(position)

    def _next_rows(self, position: Position) -> list[list[int]]:
        """Trees of the forward passes of the next step, over all ranks; moves `position` on."""
        size = self._stream_size
        if self.batch.examples is not None:
            end = min(position.drawn + self.batch.examples, size)
            members = [self._tree_at(place) for place in range(position.drawn, end)]
            position.drawn = end
            passes = self.batch.passes([self.trees[i] for i in members], self.world_size)
            return [[members[i] for i in row] for row in passes]
        rows = []
        for _ in range((self.batch.tokens or 0) // self.batch.max_tokens):
            row = next_row(position, self._length_at, size, self.batch.max_tokens, self.batch.look_ahead)
            rows.append([self._tree_at(place) for place in row])
        return [row for row in rows if row]

    def _step(self, rows: list[list[int]], position: Position) -> StepBatch:
        members = [self.trees[index] for row in rows for index in row]
        return StepBatch(
            passes=[
                collate([self.trees[i] for i in row], self.batch, self.reference, on_gpu=self.on_gpu, counts=counts)
                for row, counts in dealt(rows, self.rank, self.world_size)
            ],
            examples=len(members),
            tokens=sum(len(tree.branches[0]) for tree in members),
            work=self.batch.work(([self.trees[i] for i in row] for row in rows), on_gpu=self.on_gpu),
            position=position,
        )

    @property
    def _stream_size(self) -> int:
        return len(self.trees) * self.num_epochs

    def _tree_at(self, place: int) -> int:
        epoch, within = divmod(place, len(self.trees))
        return int(self._epoch_order(epoch)[within])

    def _length_at(self, place: int) -> int:
        return self.batch.cost(self.trees[self._tree_at(place)])

    @lru_cache(maxsize=4)  # noqa: B019 - one data set lives as long as its run
    def _epoch_order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((self.seed, epoch)).permutation(len(self.trees))


def dealt(rows: Sequence[list[int]], rank: int, world_size: int) -> Iterator[tuple[list[int], bool]]:
    """The rows of a rank, and whether they count: a rank without one repeats a tree, to stay in step."""
    for first in range(0, len(rows), world_size):
        mine = first + rank
        yield (rows[mine], True) if mine < len(rows) else (rows[0][:1], False)


@dataclass(kw_only=True, eq=False)
class EvaluationBatches(Dataset[PreferenceBatch]):
    """Each example once, dealt to the ranks in turn."""

    trees: Sequence[TokenTree]
    batch: Batch
    rank: int = 0
    world_size: int = 1
    on_gpu: bool = False
    reference: dict[str, list[float]] | None = None
    rows: list[list[int]] = field(default_factory=list)
    """Trees of each forward pass; by default all trees, packed."""

    def __post_init__(self) -> None:
        if not self.rows:
            self.batch.check_trees(self.trees)
            self.rows = self._all_rows()
        self._mine = list(dealt(self.rows, self.rank, self.world_size))

    def only(self, rows: list[list[int]]) -> EvaluationBatches:
        """Some of the forward passes."""
        return replace(self, rows=rows)

    def _all_rows(self) -> list[list[int]]:
        if not self.batch.packing:
            return self.batch.passes(self.trees)
        lengths = [self.batch.cost(tree) for tree in self.trees]
        return list(all_rows(lengths, self.batch.max_tokens, self.batch.look_ahead))

    def __len__(self) -> int:
        return len(self._mine)

    def __getitem__(self, position: int) -> PreferenceBatch:
        row, counts = self._mine[position]
        return collate([self.trees[i] for i in row], self.batch, self.reference, on_gpu=self.on_gpu, counts=counts)
