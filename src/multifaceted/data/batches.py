"""Batches: which examples an optimizer step sees, cut into micro-batches for ranks.

Everything follows from the seed and a global position, so a run resumes from a number and every rank agrees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from multifaceted.trees import TokenTree, TreeRows, balanced_rows, lay_out


@dataclass(kw_only=True, slots=True)
class Batch:
    """How many examples an optimizer step averages over, and how many of them a device holds at once.

    Attributes:
        examples: examples of an optimizer step, over all ranks.
        micro_examples: most examples in one forward pass of one rank.
    """

    examples: int
    micro_examples: int = 16

    def __post_init__(self) -> None:
        for name in ("examples", "micro_examples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")

    def num_micro_batches(self, world_size: int) -> int:
        """Forward passes of each rank in one optimizer step."""
        return -(-self.examples // (self.micro_examples * world_size))


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
    step_examples: int
    """Examples of the whole optimizer step, over all micro-batches and ranks."""
    step_tokens: int
    """Tokens of the chosen branches of the whole optimizer step."""
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
    reference: dict[str, list[float]] | None = None,
    *,
    step_examples: int | None = None,
    step_tokens: int | None = None,
    counts: bool = True,
) -> PreferenceBatch:
    """Lay out examples, about two trees a row: a long one beside a short one leaves little padding.

    Args:
        reference: example id to the reference log-probability of each branch.
        step_examples, step_tokens: totals of the optimizer step; by default those of this batch.
    """
    chosen, pairs, start = [], [], 0
    for index, tree in enumerate(trees):
        chosen.append(start)
        pairs += [(start, start + b, index) for b in range(1, len(tree.branches))]
        start += len(tree.branches)
    columns = torch.tensor(pairs, dtype=torch.long).reshape(-1, 3).unbind(1)
    return PreferenceBatch(
        rows=lay_out(trees, balanced_rows([len(tree) for tree in trees], -(-len(trees) // 2))),
        chosen=torch.tensor(chosen),
        pair_chosen=columns[0],
        pair_rejected=columns[1],
        pair_example=columns[2],
        margin=torch.tensor([tree.margin or 0.0 for tree in trees]),
        reference=None if reference is None else torch.tensor([v for tree in trees for v in reference[tree.id]]),
        ids=[tree.id for tree in trees],
        sources=[tree.source for tree in trees],
        dimensions=[tree.dimensions for tree in trees],
        step_examples=len(trees) if step_examples is None else step_examples,
        step_tokens=sum(len(t.branches[0]) for t in trees) if step_tokens is None else step_tokens,
        counts=counts,
    )


@dataclass(kw_only=True, eq=False)
class TrainingBatches(Dataset[PreferenceBatch]):
    """The micro-batches of a whole run, as a sequence that any position can be read from.

    Epochs follow one another, each a shuffle of its own; the last step takes what is left.
    """

    trees: Sequence[TokenTree]
    batch: Batch
    num_epochs: int
    seed: int
    max_steps: int | None = None
    rank: int = 0
    world_size: int = 1
    reference: dict[str, list[float]] | None = None

    @property
    def num_steps(self) -> int:
        """Optimizer steps of the whole run."""
        steps = -(-len(self.trees) * self.num_epochs // self.batch.examples)
        return steps if self.max_steps is None else min(steps, self.max_steps)

    @property
    def micro_per_step(self) -> int:
        """Micro-batches of this rank in one optimizer step."""
        return self.batch.num_micro_batches(self.world_size)

    def __len__(self) -> int:
        return self.num_steps * self.micro_per_step

    def step_indices(self, step: int) -> list[int]:
        """Indices of the trees of an optimizer step, in the run's order."""
        size = len(self.trees)
        begin = step * self.batch.examples
        end = min(begin + self.batch.examples, size * self.num_epochs)
        return [int(self._epoch_order(place // size)[place % size]) for place in range(begin, end)]

    def __getitem__(self, position: int) -> PreferenceBatch:
        step, part = divmod(position, self.micro_per_step)
        # Similar lengths share a forward pass: less padding, and the same work for every rank.
        indices = sorted(self.step_indices(step), key=lambda i: len(self.trees[i]), reverse=True)
        num_chunks = self.micro_per_step * self.world_size
        size = -(-len(indices) // num_chunks)
        chunk = part * self.world_size + self.rank
        members = indices[chunk * size : (chunk + 1) * size]
        return collate(
            [self.trees[i] for i in members or indices[:1]],
            self.reference,
            step_examples=len(indices),
            step_tokens=sum(len(self.trees[i].branches[0]) for i in indices),
            counts=bool(members),
        )

    @lru_cache(maxsize=4)  # noqa: B019 - one data set lives as long as its run
    def _epoch_order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((self.seed, epoch)).permutation(len(self.trees))


@dataclass(kw_only=True, eq=False)
class EvaluationBatches(Dataset[PreferenceBatch]):
    """Each example once, similar lengths together, dealt to the ranks in turn."""

    trees: Sequence[TokenTree]
    micro_examples: int
    rank: int = 0
    world_size: int = 1
    reference: dict[str, list[float]] | None = None

    def __len__(self) -> int:
        return -(-len(self.trees) // (self.micro_examples * self.world_size))

    def __post_init__(self) -> None:
        self._order = sorted(range(len(self.trees)), key=lambda i: len(self.trees[i]), reverse=True)

    def __getitem__(self, position: int) -> PreferenceBatch:
        if position >= len(self):
            raise IndexError(position)
        begin = (position * self.world_size + self.rank) * self.micro_examples
        members = self._order[begin : begin + self.micro_examples]
        return collate([self.trees[i] for i in members or self._order[:1]], self.reference, counts=bool(members))
