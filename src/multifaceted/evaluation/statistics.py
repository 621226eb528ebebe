"""Estimates with intervals."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from multifaceted.records import Estimate

RESAMPLES = 2000
BLOCK = 2**22
"""How many picks are held at once: 32 MiB of them."""


def bootstrap_mean(
    values: Sequence[float | None], seed: int = 0, clusters: Sequence[Hashable] | None = None
) -> Estimate:
    """The mean with a 95 % percentile bootstrap interval (Efron 1979), resampling prompts.

    Args:
        values: None is unscored: left out of the mean, and counted.
        clusters: of each value, the prompt it belongs to. Values of one prompt are not independent, so they are drawn
            together (Davison and Hinkley 1997, section 3.8); without it each value is a prompt's only one.

    Raises:
        ValueError: `clusters` has another length than `values`.
    """
    names = range(len(values)) if clusters is None else clusters
    scored = [(name, value) for name, value in zip(names, values, strict=True) if value is not None]
    unscored = len(values) - len(scored)
    if not scored:
        return Estimate(value=None, low=None, high=None, n=0, unscored=unscored)
    numbers = np.array([value for _, value in scored], dtype=np.float64)
    places = places_of(name for name, _ in scored)
    sums, sizes = np.bincount(places, numbers), np.bincount(places)
    means = [sums[picks].sum(axis=1) / sizes[picks].sum(axis=1) for picks in resamples(len(sums), seed)]
    low, high = percentile_interval(np.concatenate(means))
    return Estimate(value=float(numbers.mean()), low=low, high=high, n=len(numbers), unscored=unscored)


def percentile_interval(replicates: ArrayLike) -> tuple[float, float]:
    """The 2.5 and 97.5 percentiles of bootstrap replicates, linear between two of them."""
    low, high = np.quantile(np.asarray(replicates, dtype=np.float64), [0.025, 0.975])
    return float(low), float(high)


def resamples(size: int, seed: int, number: int = RESAMPLES) -> Iterator[NDArray[np.int64]]:
    """Resamples of `size` things with replacement, in blocks that fit memory.

    Yields:
        Places of what was drawn, [some of `number`, size]; the same draws however they are cut into blocks.
    """
    random = np.random.default_rng(seed)
    rows = max(1, BLOCK // size)
    for start in range(0, number, rows):
        yield random.integers(0, size, size=(min(rows, number - start), size))


def cluster_draws(names: Iterable[Hashable], seed: int, number: int) -> Iterator[NDArray[np.int64]]:
    """Rows of resampled clusters, for what is no mean.

    Args:
        names: of each row, its cluster.

    Yields:
        Places of rows, [rows of the clusters that were drawn], `number` times; nothing where there are no rows.
    """
    places = places_of(names)
    if len(places):
        members = [np.flatnonzero(places == place) for place in range(places.max() + 1)]
        for block in resamples(len(members), seed, number):
            yield from (np.concatenate([members[pick] for pick in picks]) for picks in block)


def places_of(names: Iterable[Hashable]) -> NDArray[np.int64]:
    """Names as numbers from 0, in the order in which they first occur."""
    known: dict[Hashable, int] = {}
    return np.array([known.setdefault(name, len(known)) for name in names], dtype=np.int64)
