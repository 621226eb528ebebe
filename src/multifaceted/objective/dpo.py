"""Direct preference optimisation."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import logsigmoid

from multifaceted.objective.base import Branches, Losses, Objective
from multifaceted.objective.metrics import REWARD_METRICS, reward_metrics


@dataclass(kw_only=True, slots=True)
class DPO(Objective):
    """DPO (Rafailov et al. 2023, arXiv 2305.18290, eq. 7) and variants that change one term of it.

    Attributes:
        beta: strength of the pull towards the reference.
        label_smoothing: assumed share of swapped labels, in [0, 0.5) (Mitchell 2023, "cDPO", eq. 3).
        robust: make the loss unbiased under that share of swapped labels, instead of smoothing (Chowdhury et al. 2024,
            "rDPO", arXiv 2403.00409, section 3.1).
        length_normalized: average log-ratios over tokens instead of summing them, so that length alone earns no
            reward; beta grows accordingly (Lambert et al. 2024, "Tulu 3", arXiv 2411.15124, section 5.1).
        sft_weight: weight of the chosen response's negative log-likelihood a token (Pang et al. 2024,
            arXiv 2404.19733v3, eq. 1: alpha).
    """

    beta: float
    label_smoothing: float = 0.0
    robust: bool = False
    length_normalized: bool = False
    sft_weight: float = 0.0

    needs_reference = True
    metrics = (*REWARD_METRICS, "nll")

    def __post_init__(self) -> None:
        if self.beta <= 0:
            raise ValueError(f"beta is {self.beta}; it must be positive")
        if not 0 <= self.label_smoothing < 0.5:
            raise ValueError(f"label_smoothing is {self.label_smoothing}; it must lie in [0, 0.5)")
        if self.robust and self.label_smoothing == 0:
            raise ValueError(
                f"robust is {self.robust} and label_smoothing is {self.label_smoothing}; label_smoothing must be the"
                " assumed share of swapped labels, or robust false"
            )
        if self.sft_weight < 0:
            raise ValueError(f"sft_weight is {self.sft_weight}; it must not be negative")

    def __call__(self, branches: Branches) -> Losses:
        """The loss of each example; the preference term is averaged over its pairs."""
        log_ratios = branches.log_ratios / branches.num_tokens if self.length_normalized else branches.log_ratios
        rewards = self.beta * log_ratios  # eq. 5, without the partition function
        preference = branches.mean_over_pairs(self._pair_loss(branches.chosen_minus_rejected(rewards)))
        nll = -branches.mean_logps[branches.chosen]
        return Losses(
            loss=preference + self.sft_weight * nll,
            weight=self.weight(branches),
            metrics={**reward_metrics(branches, rewards), "nll": nll},
        )

    def _pair_loss(self, margin: Tensor) -> Tensor:
        """The loss of each pair, [pairs] to [pairs], given the share of labels that may be swapped."""
        epsilon = self.label_smoothing
        loss, swapped_loss = -logsigmoid(margin), -logsigmoid(-margin)
        if self.robust:
            return ((1 - epsilon) * loss - epsilon * swapped_loss) / (1 - 2 * epsilon)
        return (1 - epsilon) * loss + epsilon * swapped_loss
