"""Supervised fine-tuning on the chosen response."""

from __future__ import annotations

from dataclasses import dataclass

from multifaceted.objective.base import Branches, Losses, Objective
from multifaceted.objective.metrics import PAIR_METRICS, pair_metrics


@dataclass(kw_only=True, slots=True)
class SFT(Objective):
    """Negative log-likelihood a token, averaged over all response tokens of the optimizer step."""

    needs_rejected = False
    weighs_tokens = True
    metrics = PAIR_METRICS

    def __call__(self, branches: Branches) -> Losses:
        """The mean negative log-probability of the chosen tokens; pairs, where there are any, are measured."""
        mean_logps = branches.mean_logps
        return Losses(
            loss=-mean_logps[branches.chosen],
            weight=self.weight(branches),
            metrics=pair_metrics(branches, mean_logps) if len(branches.pair_chosen) else {},
        )
