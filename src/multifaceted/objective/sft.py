"""Supervised fine-tuning on the chosen response."""

from __future__ import annotations

from dataclasses import dataclass

from multifaceted.objective.base import Branches, Losses, Objective


@dataclass(kw_only=True, slots=True)
class SFT(Objective):
    """Negative log-likelihood a token, averaged over all response tokens of the optimizer step."""

    needs_rejected = False
    weighs_tokens = True
    metrics = ("pair_accuracy", "margin")

    def __call__(self, branches: Branches) -> Losses:
        """The mean negative log-probability of the chosen tokens; pairs, where there are any, are measured."""
        mean_logps = branches.values / branches.num_tokens
        metrics = {}
        if len(branches.pair_chosen):
            margin = mean_logps[branches.pair_chosen] - mean_logps[branches.pair_rejected]
            metrics = {
                "pair_accuracy": branches.mean_over_pairs((margin > 0).float()),
                "margin": branches.mean_over_pairs(margin),
            }
        return Losses(loss=-mean_logps[branches.chosen], weight=self.weight(branches), metrics=metrics)
