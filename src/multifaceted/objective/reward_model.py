"""Bradley-Terry reward modelling."""

from __future__ import annotations

from dataclasses import dataclass

from torch.nn.functional import logsigmoid

from multifaceted.objective.base import Branches, Head, Losses, Objective
from multifaceted.objective.metrics import REWARD_METRICS, reward_metrics


@dataclass(kw_only=True, slots=True)
class RewardModel(Objective):
    """-log sigmoid(r_chosen - r_rejected - margin).

    Ouyang et al. 2022, arXiv 2203.02155, eq. 1; the margin as in Touvron et al. 2023, arXiv 2307.09288, eq. 2.

    Attributes:
        use_margin: subtract the margin that an example states.
    """

    use_margin: bool = False

    head = Head.REWARD
    metrics = REWARD_METRICS

    def __call__(self, branches: Branches) -> Losses:
        """The loss of each example, averaged over its pairs."""
        difference = branches.chosen_minus_rejected(branches.values)
        required = difference.new_zeros(())
        if self.use_margin and branches.margin is not None:
            required = branches.margin[branches.pair_example]
        return Losses(
            loss=branches.mean_over_pairs(-logsigmoid(difference - required)),
            weight=self.weight(branches),
            metrics=reward_metrics(branches, branches.values),
        )
