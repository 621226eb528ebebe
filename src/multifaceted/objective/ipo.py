"""Identity preference optimisation."""

from __future__ import annotations

from dataclasses import dataclass

from multifaceted.objective.base import Branches, Losses, Objective
from multifaceted.objective.metrics import REWARD_METRICS, reward_metrics


@dataclass(kw_only=True, slots=True)
class IPO(Objective):
    """IPO (Azar et al. 2023, arXiv 2310.12036, eq. 17): regress the gap between log-ratios on 1 / (2 tau).

    Log-ratios are means over tokens, as in TRL, which had this confirmed by the authors: the equation leaves lengths
    aside, and with sums the same gap would ask the less of a token the longer the response.

    Attributes:
        tau: strength of the pull towards the reference (`beta` in TRL).
    """

    tau: float

    needs_reference = True
    metrics = REWARD_METRICS

    def __post_init__(self) -> None:
        if self.tau <= 0:
            raise ValueError(f"tau is {self.tau}; it must be positive")

    def __call__(self, branches: Branches) -> Losses:
        """The loss of each example, averaged over its pairs; the margin of rewards that it aims at is 1/2."""
        log_ratios = branches.log_ratios / branches.num_tokens
        gap = branches.chosen_minus_rejected(log_ratios)
        return Losses(
            loss=branches.mean_over_pairs((gap - 1 / (2 * self.tau)) ** 2),
            weight=self.weight(branches),
            metrics=reward_metrics(branches, self.tau * log_ratios),
        )
