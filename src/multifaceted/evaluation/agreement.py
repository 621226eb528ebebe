"""How far judges agree with each other or with people."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from multifaceted.evaluation.statistics import bootstrap_mean, percentile_interval, places_of, resamples
from multifaceted.records import Estimate

Array = NDArray[np.float64]
Ratings = Sequence[float] | Array


class Weighting(StrEnum):
    """How much worse a disagreement is the farther apart two ratings are."""

    NONE = "none"
    LINEAR = "linear"
    QUADRATIC = "quadratic"


class Level(StrEnum):
    """What may be compared about ratings (Stevens 1946)."""

    NOMINAL = "nominal"
    ORDINAL = "ordinal"
    INTERVAL = "interval"


def cohen_kappa(first: Ratings, second: Ratings, weighting: Weighting = Weighting.NONE) -> float:
    """Agreement of two raters beyond chance (Cohen 1960, 1968): 1 is perfect, 0 is chance.

    Ratings are numbers; names have to be numbered, which without weighting may be done in any way. Weights are by the
    distance of ratings themselves, so a level that nobody used counts.

    Returns:
        NaN where both gave everything one and the same rating.

    Raises:
        ValueError: no ratings, or not as many of each.
    """
    table, rows, columns = _table(first, second)
    power = {Weighting.LINEAR: 1, Weighting.QUADRATIC: 2}.get(weighting)
    apart = np.abs(rows[:, None] - columns[None, :])
    cost = (apart > 0).astype(float) if power is None else apart**power
    shares = table / table.sum()
    expected = float((cost * np.outer(shares.sum(axis=1), shares.sum(axis=0))).sum())
    return 1 - float((cost * shares).sum()) / expected if expected > 0 else math.nan


def krippendorff_alpha(ratings: Sequence[Sequence[float | None] | Ratings], level: Level = Level.NOMINAL) -> float:
    """Agreement of any number of raters, some of whom may have left things out (Krippendorff 2011).

    Args:
        ratings: by rater and thing; None is missing. Names have to be numbered for the nominal level.

    Returns:
        NaN where all ratings are the same, or nothing was rated twice.

    Raises:
        ValueError: raters did not see the same number of things.
    """
    if len({len(row) for row in ratings}) > 1:
        raise ValueError(f"raters have {sorted({len(row) for row in ratings})} ratings; mark missing ones with None")
    units = [[value for value in unit if value is not None] for unit in zip(*ratings, strict=True)]
    units = [unit for unit in units if len(unit) > 1]
    values, places = np.unique([value for unit in units for value in unit], return_inverse=True)
    owners = np.repeat(np.arange(len(units)), [len(unit) for unit in units])
    counts = np.zeros((len(units), len(values)))  # of each value in each thing
    np.add.at(counts, (owners, places), 1.0)
    others = counts.sum(axis=1) - 1
    coincidences = (counts / others[:, None]).T @ counts - np.diag((counts / others[:, None]).sum(axis=0))
    totals, distances = coincidences.sum(axis=0), _distances(values, counts.sum(axis=0), level)
    expected = float((distances * np.outer(totals, totals)).sum())
    if not expected > 0:
        return math.nan
    return 1 - float((totals.sum() - 1) * (distances * coincidences).sum()) / expected


def _distances(values: Array, totals: Array, level: Level) -> Array:
    """The squared difference of every two values, which are in order."""
    if level is Level.NOMINAL:
        return 1.0 - np.eye(len(values))
    # Ordinal: a value lies in the middle of those that share its rank.
    at = values if level is Level.INTERVAL else np.cumsum(totals) - totals / 2
    return np.asarray((at[:, None] - at[None, :]) ** 2)


def pearson(first: Ratings, second: Ratings) -> float:
    """Correlation of two ratings; NaN where one of them is constant."""
    table, rows, columns = _table(first, second)
    return _correlation(table, rows, columns)


def spearman(first: Ratings, second: Ratings) -> float:
    """Correlation of ranks, equal ratings sharing the middle of theirs; NaN where one rating is constant."""
    table, _, _ = _table(first, second)
    middles = (np.cumsum(sums) - sums / 2 for sums in (table.sum(axis=1), table.sum(axis=0)))
    return _correlation(table, *middles)


def kendall(first: Ratings, second: Ratings) -> float:
    """Tau-b (Kendall 1945): concordant less discordant pairs, corrected for ties; NaN where one rating is constant."""
    table, _, _ = _table(first, second)
    below = np.zeros((table.shape[0] + 1, table.shape[1] + 1))
    below[1:, 1:] = table.cumsum(axis=0).cumsum(axis=1)  # [i, j]: how many have both ratings lower
    lower, left = below[:-1, :-1], below[:-1, -1:] - below[:-1, 1:]
    difference = float((table * (lower - left)).sum())
    total = table.sum()
    untied = [(total**2 - (sums**2).sum()) / 2 for sums in (table.sum(axis=1), table.sum(axis=0))]
    return difference / float(np.sqrt(untied[0] * untied[1])) if min(untied) > 0 else math.nan


def _table(first: Ratings, second: Ratings) -> tuple[Array, Array, Array]:
    """How often each pair of ratings occurs, [of the first, of the second], and the ratings, in order."""
    if len(first) != len(second) or not len(first):
        raise ValueError(f"there are {len(first)} and {len(second)} ratings; every thing needs one of each")
    rows, at_row = np.unique(np.asarray(first, dtype=np.float64), return_inverse=True)
    columns, at_column = np.unique(np.asarray(second, dtype=np.float64), return_inverse=True)
    table = np.zeros((len(rows), len(columns)))
    np.add.at(table, (at_row, at_column), 1.0)
    return table, rows, columns


def _correlation(table: Array, rows: Array, columns: Array) -> float:
    shares = table / table.sum()
    rows = rows - rows @ shares.sum(axis=1)
    columns = columns - columns @ shares.sum(axis=0)
    spread = np.sqrt((rows**2 @ shares.sum(axis=1)) * (columns**2 @ shares.sum(axis=0)))
    return float(rows @ shares @ columns / spread) if spread > 0 else math.nan


COEFFICIENTS: Mapping[str, Callable[[Ratings, Ratings], float]] = {
    "kappa": cohen_kappa,
    "linear_kappa": lambda first, second: cohen_kappa(first, second, Weighting.LINEAR),
    "quadratic_kappa": lambda first, second: cohen_kappa(first, second, Weighting.QUADRATIC),
    "ordinal_alpha": lambda first, second: krippendorff_alpha([first, second], Level.ORDINAL),
    "pearson": pearson,
    "spearman": spearman,
    "kendall": kendall,
}


def agreement(
    first: Sequence[float | None],
    second: Sequence[float | None],
    split: str,
    clusters: Sequence[Hashable] | None = None,
    seed: int = 0,
    number: int = 500,
) -> dict[str, Estimate]:
    """Two judges' ratings of the same responses: the share that is equal, and every coefficient.

    Args:
        first, second: None is unscored; what one of them did not score is left out, and counted.
        split: the first part of the metrics' names.
        clusters: of each response, the prompt it belongs to; prompts are resampled.
        number: of resamples of a coefficient; those in which it is not defined are left out of its interval.
    """
    names = list(range(len(first)) if clusters is None else clusters)
    rated = [(name, a, b) for name, a, b in zip(names, first, second, strict=True) if a is not None and b is not None]
    n, unscored = len(rated), len(first) - len(rated)
    equal = [None if a is None or b is None else float(a == b) for a, b in zip(first, second, strict=True)]
    estimates = {f"{split}/equal": bootstrap_mean(equal, seed, names)}
    pairs = np.array([(a, b) for _, a, b in rated], dtype=np.float64).reshape(-1, 2)
    draws = list(_draws(pairs, places_of(name for name, _, _ in rated), seed, number))
    for name, coefficient in COEFFICIENTS.items():
        value = coefficient(pairs[:, 0], pairs[:, 1]) if rated else math.nan
        if math.isnan(value):
            estimates[f"{split}/{name}"] = Estimate(value=None, low=None, high=None, n=n, unscored=unscored)
            continue
        drawn = [coefficient(draw[:, 0], draw[:, 1]) for draw in draws]
        low, high = percentile_interval([one for one in drawn if not math.isnan(one)] or [value])
        estimates[f"{split}/{name}"] = Estimate(value=value, low=low, high=high, n=n, unscored=unscored)
    return estimates


def _draws(pairs: Array, places: NDArray[np.int64], seed: int, number: int) -> Iterator[Array]:
    """The pairs of resampled prompts, [pairs, 2] each.

    Args:
        places: of each pair, its prompt, by number.
    """
    if len(pairs):
        members = [np.flatnonzero(places == place) for place in range(places.max() + 1)]
        for block in resamples(len(members), seed, number):
            yield from (pairs[np.concatenate([members[pick] for pick in picks])] for picks in block)
