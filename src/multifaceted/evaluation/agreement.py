"""How far judges agree with each other or with people.

Coefficients are functions of a table: how often each pair of ratings occurs, [of the first rater, of the second], and
the ratings that its rows and columns stand for, in order. Names have to be numbered, for `Level.NOMINAL` in any way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from multifaceted.evaluation.statistics import bootstrap_mean, cluster_draws, percentile_interval
from multifaceted.records import Estimate

Array = NDArray[np.float64]


class Level(StrEnum):
    """What may be compared about ratings (Stevens 1946)."""

    NOMINAL = "nominal"
    ORDINAL = "ordinal"


def cohen_kappa(table: Array, values: Array, power: int = 0) -> float:
    """Agreement of two raters beyond chance (Cohen 1960, 1968): 1 is perfect, 0 is chance.

    A disagreement weighs as much as this power of the distance of the two ratings: 0 any the same, 1 linear, 2
    quadratic. Distances are those of ratings themselves, so a level that nobody used counts.

    Returns:
        NaN where both gave everything one and the same rating.
    """
    apart = np.abs(values[:, None] - values[None, :])
    cost = np.where(apart > 0, apart**power, 0.0)
    shares = table / table.sum()
    expected = float((cost * np.outer(shares.sum(axis=1), shares.sum(axis=0))).sum())
    return 1 - float((cost * shares).sum()) / expected if expected > 0 else math.nan


def krippendorff_alpha(coincidences: Array, values: Array, level: Level) -> float:
    """Agreement of raters beyond chance (Krippendorff 2011).

    Args:
        coincidences: how often two ratings of one thing occur together, in both orders, each thing weighing as many as
            it has ratings; of two raters the table and its transpose.

    Returns:
        NaN where all ratings are the same.
    """
    totals = coincidences.sum(axis=0)
    if level is Level.NOMINAL:
        distances = 1.0 - np.eye(len(values))
    else:  # a rating lies in the middle of those that share its rank
        middles = np.cumsum(totals) - totals / 2
        distances = (middles[:, None] - middles[None, :]) ** 2
    expected = float((distances * np.outer(totals, totals)).sum())
    if not expected > 0:
        return math.nan
    return 1 - float((totals.sum() - 1) * (distances * coincidences).sum()) / expected


def pearson(table: Array, values: Array) -> float:
    """Correlation of two ratings; NaN where one of them is constant."""
    return _correlation(table, values, values)


def spearman(table: Array, values: Array) -> float:
    """Correlation of ranks, equal ratings sharing the middle of theirs; NaN where one rating is constant."""
    first, second = (np.cumsum(sums) - sums / 2 for sums in (table.sum(axis=1), table.sum(axis=0)))
    return _correlation(table, first, second)


def kendall(table: Array, values: Array) -> float:
    """Tau-b (Kendall 1945): concordant less discordant pairs, corrected for ties; NaN where one rating is constant."""
    below = np.zeros((len(table) + 1, len(table) + 1))
    below[1:, 1:] = table.cumsum(axis=0).cumsum(axis=1)  # [i, j]: how many have both ratings lower
    lower, left = below[:-1, :-1], below[:-1, -1:] - below[:-1, 1:]
    difference = float((table * (lower - left)).sum())
    total = table.sum()
    untied = [(total**2 - (sums**2).sum()) / 2 for sums in (table.sum(axis=1), table.sum(axis=0))]
    return difference / float(np.sqrt(untied[0] * untied[1])) if min(untied) > 0 else math.nan


def _correlation(table: Array, first: Array, second: Array) -> float:
    """The correlation of what the rows and the columns of a table stand for."""
    shares = table / table.sum()
    first = first - first @ shares.sum(axis=1)
    second = second - second @ shares.sum(axis=0)
    spread = np.sqrt((first**2 @ shares.sum(axis=1)) * (second**2 @ shares.sum(axis=0)))
    return float(first @ shares @ second / spread) if spread > 0 else math.nan


Coefficient = Callable[[Array, Array], float]
COEFFICIENTS: Mapping[Level, Mapping[str, Coefficient]] = {
    Level.NOMINAL: {
        "kappa": cohen_kappa,
        "nominal_alpha": lambda table, values: krippendorff_alpha(table + table.T, values, Level.NOMINAL),
    },
    Level.ORDINAL: {
        "kappa": cohen_kappa,
        "linear_kappa": lambda table, values: cohen_kappa(table, values, 1),
        "quadratic_kappa": lambda table, values: cohen_kappa(table, values, 2),
        "ordinal_alpha": lambda table, values: krippendorff_alpha(table + table.T, values, Level.ORDINAL),
        "pearson": pearson,
        "spearman": spearman,
        "kendall": kendall,
    },
}


def agreement(
    first: Sequence[float | None],
    second: Sequence[float | None],
    clusters: Sequence[Hashable],
    level: Level,
    seed: int = 0,
    number: int = 500,
) -> dict[str, Estimate]:
    """Two raters' ratings of the same things: the share that is equal, and every coefficient of their level.

    Args:
        first, second: None is unscored; what one of them did not score is left out, and counted.
        clusters: of each thing, what is resampled together: its instruction.
        number: of resamples of a coefficient; those in which it is not defined are left out of its interval.
    """
    rated = [
        (name, a, b) for name, a, b in zip(clusters, first, second, strict=True) if a is not None and b is not None
    ]
    n, unscored = len(rated), len(first) - len(rated)
    equal = [None if a is None or b is None else float(a == b) for a, b in zip(first, second, strict=True)]
    pairs = np.array([(a, b) for _, a, b in rated], dtype=np.float64).reshape(-1, 2)
    values, places = np.unique(pairs, return_inverse=True)
    cells = places.reshape(-1, 2) @ np.array([len(values), 1])

    def table(cells: NDArray[np.int64]) -> Array:
        return np.bincount(cells, minlength=len(values) ** 2).reshape(len(values), len(values)).astype(np.float64)

    whole = table(cells)
    drawn = [table(cells[rows]) for rows in cluster_draws([name for name, _, _ in rated], seed, number)]
    estimates = {"equal": bootstrap_mean(equal, seed, clusters)}
    for name, coefficient in COEFFICIENTS[level].items():
        value = coefficient(whole, values) if rated else math.nan
        if math.isnan(value):
            estimates[name] = Estimate(value=None, low=None, high=None, n=n, unscored=unscored)
            continue
        replicates = [coefficient(each, values) for each in drawn]
        low, high = percentile_interval([one for one in replicates if not math.isnan(one)] or [value])
        estimates[name] = Estimate(value=value, low=low, high=high, n=n, unscored=unscored)
    return estimates
