"""What every objective takes and returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar

import torch
from torch import Tensor


class Head(StrEnum):
    """What scores a branch: the language-model head or a scalar reward head."""

    LANGUAGE_MODEL = "language_model"
    REWARD = "reward"


@dataclass(kw_only=True, slots=True)
class Branches:
    """The scored branches of a batch of examples, and which of them are compared.

    With several rejected branches an example has several pairs, all with the same chosen branch.
    """

    values: Tensor
    """[branches], log-probability of each branch (sum over its tokens), or its reward."""
    num_tokens: Tensor
    """[branches]"""
    chosen: Tensor
    """[examples], index of the chosen branch."""
    pair_chosen: Tensor
    """[pairs]"""
    pair_rejected: Tensor
    """[pairs]"""
    pair_example: Tensor
    """[pairs]"""
    reference: Tensor | None = None
    """[branches], log-probabilities under the reference policy."""
    margin: Tensor | None = None
    """[examples], 0 where the data states none."""

    @property
    def mean_logps(self) -> Tensor:
        """[branches], log-probability of each branch a token."""
        return self.values / self.num_tokens

    @property
    def log_ratios(self) -> Tensor:
        """[branches], log-probability of each branch under the policy less that under the reference."""
        assert self.reference is not None
        return self.values - self.reference

    def chosen_minus_rejected(self, scores: Tensor) -> Tensor:
        """[branches] to [pairs]: by how much the chosen branch outscores the rejected one."""
        return scores[self.pair_chosen] - scores[self.pair_rejected]

    def mean_over_pairs(self, per_pair: Tensor) -> Tensor:
        """[pairs] to [examples]: the mean over the pairs of an example."""
        size = self.chosen.shape[0]
        total = per_pair.new_zeros(size).index_add(0, self.pair_example, per_pair)
        count = per_pair.new_zeros(size).index_add(0, self.pair_example, torch.ones_like(per_pair))
        return total / count.clamp(min=1)


@dataclass(kw_only=True, slots=True)
class Losses:
    """Per-example results; a batch's loss is `sum(weight * loss) / sum(weight)` over the whole optimizer step."""

    loss: Tensor
    """[examples]"""
    weight: Tensor
    """[examples]"""
    metrics: dict[str, Tensor] = field(default_factory=dict)
    """Name to [examples]; averaged over examples."""


class Objective:
    """A loss over branches. Subclasses are dataclasses whose fields are the hyper-parameters."""

    head: ClassVar[Head] = Head.LANGUAGE_MODEL
    needs_reference: ClassVar[bool] = False
    needs_rejected: ClassVar[bool] = True
    metrics: ClassVar[tuple[str, ...]] = ()
    """Names of what `Losses.metrics` may hold."""
    weighs_tokens: ClassVar[bool] = False
    """Whether an example's weight is its number of chosen tokens; otherwise it is 1."""

    def __call__(self, branches: Branches) -> Losses:
        """Per-example losses and metrics."""
        raise NotImplementedError

    def weight(self, branches: Branches) -> Tensor:
        """[examples], the weight of each example in the mean over an optimizer step."""
        tokens = branches.num_tokens[branches.chosen]
        return (
            tokens.to(branches.values.dtype)
            if self.weighs_tokens
            else torch.ones_like(branches.values[branches.chosen])
        )
