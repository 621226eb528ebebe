"""Direct preference optimisation."""

from __future__ import annotations

from dataclasses import dataclass

from torch.nn.functional import logsigmoid

from multifaceted.objective.base import Branches, Losses, Objective


@dataclass(kw_only=True, slots=True)
class DPO(Objective):
    """DPO (Rafailov et al. 2023, arXiv 2305.18290, eq. 7) with conservative label smoothing.

    Attributes:
        beta: strength of the pull towards the reference.
        label_smoothing: assumed share of swapped labels, in [0, 0.5) (Mitchell 2023, "cDPO", eq. 3).
    """

    beta: float
    label_smoothing: float = 0.0

    needs_reference = True
    metrics = ("pair_accuracy", "margin", "reward_chosen", "reward_rejected")

    def __post_init__(self) -> None:
        if self.beta <= 0:
            raise ValueError(f"beta is {self.beta}; it must be positive")
        if not 0 <= self.label_smoothing < 0.5:
            raise ValueError(f"label_smoothing is {self.label_smoothing}; it must lie in [0, 0.5)")

    def __call__(self, branches: Branches) -> Losses:
        """The loss of each example, averaged over its pairs."""
        assert branches.reference is not None
        rewards = self.beta * (branches.values - branches.reference)  # eq. 5, without the partition function
        margin = rewards[branches.pair_chosen] - rewards[branches.pair_rejected]
        epsilon = self.label_smoothing
        loss = -(1 - epsilon) * logsigmoid(margin) - epsilon * logsigmoid(-margin)
        return Losses(
            loss=branches.mean_over_pairs(loss),
            weight=self.weight(branches),
            metrics={
                "pair_accuracy": branches.mean_over_pairs((margin > 0).float()),
                "margin": branches.mean_over_pairs(margin),
                "reward_chosen": rewards[branches.chosen],
                "reward_rejected": branches.mean_over_pairs(rewards[branches.pair_rejected]),
            },
        )
