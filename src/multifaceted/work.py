"""How much there is to compute for preference trees: exact counts from their lengths, every shared prompt token once.

What a row's layout adds (padding, prompts repeated before each branch) is counted beside it, not in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

from multifaceted.trees import TokenTree


@dataclass(kw_only=True, slots=True)  # not frozen: Lightning casts what batches hold in place
class Work:
    """Counts over trees; they add up over passes, ranks and steps.

    Attributes:
        tokens: of prompts and branches.
        branches: each has one last token, at which a reward is read.
        scored: tokens that are predicted: those of the branches.
        pairs: of a query and a key it attends to, itself included, in one head of one layer.
        laid_out: positions of the rows that hold the trees.
        padding: of these, positions without a token.
    """

    tokens: int = 0
    branches: int = 0
    scored: int = 0
    pairs: int = 0
    laid_out: int = 0
    padding: int = 0

    @classmethod
    def of_lengths(cls, prompt: int, branches: Sequence[int]) -> Work:
        """The work of one tree.

        >>> Work.of_lengths(3, [2]).pairs == Work.of_lengths(0, [5]).pairs == 15
        True
        """
        return cls(
            tokens=prompt + sum(branches),
            branches=len(branches),
            scored=sum(branches),
            # The prompt attends within itself; a branch to all of the prompt, and within itself.
            pairs=_within(prompt) + sum(length * prompt + _within(length) for length in branches),
        )

    @classmethod
    def of(cls, trees: Iterable[TokenTree]) -> Work:
        """The work of trees."""
        return sum((cls.of_lengths(len(t.prompt), [len(branch) for branch in t.branches]) for t in trees), cls())

    def __add__(self, other: Work) -> Work:
        return Work(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})

    @property
    def padding_share(self) -> float:
        """Share of the rows' positions that are padding."""
        return self.padding / max(self.laid_out, 1)


def _within(length: int) -> int:
    """Pairs of a causal sequence."""
    return length * (length + 1) // 2
