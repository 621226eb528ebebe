"""Simple preference optimisation."""

from __future__ import annotations

from dataclasses import dataclass

from torch.nn.functional import logsigmoid

from multifaceted.objective.base import Branches, Losses, Objective
from multifaceted.objective.metrics import REWARD_METRICS, reward_metrics


@dataclass(kw_only=True, slots=True)
class SimPO(Objective):
    """SimPO (Meng et al. 2024, arXiv 2405.14734, eq. 6): the reward is the log-probability a token, no reference.

    Attributes:
        beta: scale of the reward.
        gamma: margin of rewards to reach (`simpo_gamma` in TRL; the paper's later code takes gamma / beta).
    """

    beta: float
    gamma: float

    metrics = REWARD_METRICS

    def __post_init__(self) -> None:
        if self.beta <= 0:
            raise ValueError(f"beta is {self.beta}; it must be positive")
        if self.gamma < 0:
            raise ValueError(f"gamma is {self.gamma}; it must not be negative")

    def __call__(self, branches: Branches) -> Losses:
        """The loss of each example, averaged over its pairs."""
        rewards = self.beta * branches.mean_logps  # eq. 4
        margin = branches.chosen_minus_rejected(rewards)
        return Losses(
            loss=branches.mean_over_pairs(-logsigmoid(margin - self.gamma)),
            weight=self.weight(branches),
            metrics=reward_metrics(branches, rewards),
        )
