"""Odds ratio preference optimisation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from multifaceted.objective.base import Branches, Losses, Objective
from multifaceted.objective.metrics import PAIR_METRICS, pair_metrics


def log_odds(mean_logps: Tensor) -> Tensor:
    """log(p / (1 - p)) of p = exp(mean_logps), [n] to [n], finite for every representable mean_logps <= 0.

    log(1 - e^x) loses all digits near x = 0 in the form log1p(-exp(x)), and to -inf at 0; log(-expm1(x)) keeps them
    there, the other form far below (Maechler 2012, "Accurately computing log(1 - exp(-|a|))", eq. 7). x = 0 itself,
    odds without bound, is read as the smallest negative number that keeps the gradient finite.
    """
    x = mean_logps.clamp(max=-1e-7)
    near = x > -0.6931471805599453
    # Both branches get a harmless argument where the other is used: a NaN in an unused branch poisons the gradient.
    log1m = torch.where(
        near,
        torch.log(-torch.expm1(torch.where(near, x, -1.0))),
        torch.log1p(-torch.exp(torch.where(near, -1.0, x))),
    )
    return x - log1m


@dataclass(kw_only=True, slots=True)
class ORPO(Objective):
    """ORPO (Hong et al. 2024, arXiv 2403.07691, eq. 6): likelihood of the chosen response plus the odds-ratio term.

    The likelihood is the mean over the response's tokens; the paper's code also counts the prompt's.

    Attributes:
        lam: weight of the odds-ratio term (lambda; `orpo_alpha` in axolotl, `beta` in TRL).
    """

    lam: float

    metrics = (*PAIR_METRICS, "nll", "odds_ratio_loss")

    def __post_init__(self) -> None:
        if self.lam < 0:
            raise ValueError(f"lam is {self.lam}; it must not be negative")

    def __call__(self, branches: Branches) -> Losses:
        """The loss of each example; the odds-ratio term is averaged over its pairs."""
        mean_logps = branches.mean_logps  # eq. 2
        odds = log_odds(mean_logps)  # eq. 4, in log space
        log_odds_ratio = branches.chosen_minus_rejected(odds)  # eq. 5
        nll = -mean_logps[branches.chosen]
        ratio_loss = branches.mean_over_pairs(-logsigmoid(log_odds_ratio))  # eq. 7
        return Losses(
            loss=nll + self.lam * ratio_loss,
            weight=self.weight(branches),
            metrics={**pair_metrics(branches, odds), "nll": nll, "odds_ratio_loss": ratio_loss},
        )
