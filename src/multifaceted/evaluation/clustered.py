"""The bootstrap over clusters: values that belong together are drawn together."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from multifaceted.evaluation import statistics
from multifaceted.records import Estimate


def bootstrap_mean(
    values: Sequence[float | None], seed: int = 0, clusters: Sequence[Hashable] | None = None
) -> Estimate:
    """The mean with a 95 % percentile bootstrap interval, resampling clusters (Davison and Hinkley 1997, section 3.8).

    Args:
        values: None is unscored: left out of the mean, and counted.
        clusters: of each value, what it belongs to, such as its prompt; None where every value stands alone.
    """
    if clusters is None:
        return statistics.bootstrap_mean(values, seed)
    scored = [(value, cluster) for value, cluster in zip(values, clusters, strict=True) if value is not None]
    unscored = len(values) - len(scored)
    if not scored:
        return Estimate(value=None, low=None, high=None, n=0, unscored=unscored)
    place = {cluster: index for index, cluster in enumerate(dict.fromkeys(cluster for _, cluster in scored))}
    member = [place[cluster] for _, cluster in scored]
    column = np.array([value for value, _ in scored], dtype=np.float64)
    sums, sizes = np.bincount(member, weights=column), np.bincount(member)
    picks = np.random.default_rng(seed).integers(0, len(place), size=(statistics.RESAMPLES, len(place)))
    low, high = np.quantile(sums[picks].sum(axis=1) / sizes[picks].sum(axis=1), [0.025, 0.975])
    return Estimate(value=float(column.mean()), low=float(low), high=float(high), n=len(scored), unscored=unscored)
