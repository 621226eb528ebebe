"""Metrics that objectives share."""

from __future__ import annotations

from torch import Tensor

from multifaceted.objective.base import Branches

PAIR_METRICS = ("pair_accuracy", "margin")
REWARD_METRICS = (*PAIR_METRICS, "reward_chosen", "reward_rejected")


def pair_metrics(branches: Branches, scores: Tensor) -> dict[str, Tensor]:
    """How often and by how much chosen branches outscore rejected ones, `scores` [branches] to [examples] each."""
    margin = branches.chosen_minus_rejected(scores)
    return {
        "pair_accuracy": branches.mean_over_pairs((margin > 0).float()),
        "margin": branches.mean_over_pairs(margin),
    }


def reward_metrics(branches: Branches, rewards: Tensor) -> dict[str, Tensor]:
    """Pair metrics of rewards, implicit or not, and the rewards themselves, [branches] to [examples] each."""
    return {
        **pair_metrics(branches, rewards),
        "reward_chosen": rewards[branches.chosen],
        "reward_rejected": branches.mean_over_pairs(rewards[branches.pair_rejected]),
    }
