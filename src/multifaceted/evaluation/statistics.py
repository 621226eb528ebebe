"""Estimates with intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from multifaceted.records import Estimate

RESAMPLES = 2000


def bootstrap_mean(values: Sequence[float | None], seed: int = 0) -> Estimate:
    """The mean over prompts with a 95 % percentile bootstrap interval (Efron 1979), resampling prompts.

    Args:
        values: one value a prompt; None is unscored: left out of the mean, and counted.
    """
    scored = np.array([value for value in values if value is not None], dtype=np.float64)
    unscored = len(values) - len(scored)
    if not len(scored):
        return Estimate(value=None, low=None, high=None, n=0, unscored=unscored)
    picks = np.random.default_rng(seed).integers(0, len(scored), size=(RESAMPLES, len(scored)))
    low, high = np.quantile(scored[picks].mean(axis=1), [0.025, 0.975])
    return Estimate(value=float(scored.mean()), low=float(low), high=float(high), n=len(scored), unscored=unscored)
