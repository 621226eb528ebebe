"""Supervised fine-tuning on the chosen response."""

from __future__ import annotations

from dataclasses import dataclass

from multifaceted.objective.base import Branches, Losses, Objective


@dataclass(kw_only=True, slots=True)
class SFT(Objective):
    """Negative log-likelihood a token, averaged over all response tokens of the optimizer step."""

    needs_rejected = False
    weighs_tokens = True

    def __call__(self, branches: Branches) -> Losses:
        """The mean negative log-probability of each chosen response's tokens."""
        nll = -branches.values[branches.chosen] / branches.num_tokens[branches.chosen]
        return Losses(loss=nll, weight=self.weight(branches), metrics={})
