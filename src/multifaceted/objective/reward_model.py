"""Bradley-Terry reward modelling."""

from __future__ import annotations

from dataclasses import dataclass

from torch.nn.functional import logsigmoid

from multifaceted.objective.base import Branches, Head, Losses, Objective


@dataclass(kw_only=True, slots=True)
class RewardModel(Objective):
    """-log sigmoid(r_chosen - r_rejected - margin).

    Ouyang et al. 2022, arXiv 2203.02155, eq. 1; the margin as in Touvron et al. 2023, arXiv 2307.09288, eq. 2.

    Attributes:
        use_margin: subtract the margin that an example states.
    """

    use_margin: bool = False

    head = Head.REWARD
    metrics = ("pair_accuracy", "margin", "reward_chosen", "reward_rejected")

    def __call__(self, branches: Branches) -> Losses:
        """The loss of each example, averaged over its pairs."""
        difference = branches.values[branches.pair_chosen] - branches.values[branches.pair_rejected]
        required = difference.new_zeros(())
        if self.use_margin and branches.margin is not None:
            required = branches.margin[branches.pair_example]
        return Losses(
            loss=branches.mean_over_pairs(-logsigmoid(difference - required)),
            weight=self.weight(branches),
            metrics={
                "pair_accuracy": branches.mean_over_pairs((difference > 0).float()),
                "margin": branches.mean_over_pairs(difference),
                "reward_chosen": branches.values[branches.chosen],
                "reward_rejected": branches.mean_over_pairs(branches.values[branches.pair_rejected]),
            },
        )
