"""Agreement coefficients against published examples and against their definitions over pairs."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multifaceted.evaluation.agreement import (
    COEFFICIENTS,
    Level,
    agreement,
    cohen_kappa,
    kendall,
    krippendorff_alpha,
    pearson,
    spearman,
)

PAIRS = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=2, max_size=25)


def tabulated(first, second):
    """How often each pair of ratings occurs, and the ratings."""
    values = sorted({*first, *second})
    pairs = list(zip(first, second, strict=True))
    return np.array([[pairs.count((a, b)) for b in values] for a in values], dtype=float), np.array(values, dtype=float)


def coincidences(ratings):
    """Of any number of raters, by the definition: every two ratings of a thing, a thing weighing as many as it has."""
    units = [[value for value in unit if value is not None] for unit in zip(*ratings, strict=True)]
    values = sorted({value for unit in units for value in unit})
    found = np.zeros((len(values), len(values)))
    for unit in units:
        for a, b in itertools.permutations(unit, 2):
            found[values.index(a), values.index(b)] += 1 / (len(unit) - 1)
    return found, np.array(values, dtype=float)


@pytest.mark.parametrize(
    ("table", "kappa"),
    [
        ([[20, 5], [10, 15]], 0.4),
        ([[45, 15], [25, 15]], 0.1304),
        ([[25, 35], [5, 35]], 0.2593),
        ([[75, 1, 4], [5, 4, 1], [0, 0, 10]], 0.6765),  # Fleiss, Levin and Paik 2003, table 18.1
    ],
)
def test_kappa_of_published_tables(table, kappa):
    ratings = np.arange(len(table), dtype=float)
    assert cohen_kappa(np.array(table, dtype=float), ratings) == pytest.approx(kappa, abs=5e-5)


NONE = None
# Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability": four observers, twelve units.
OBSERVERS = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, NONE, NONE, NONE],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NONE, 3],
    [NONE, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NONE],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NONE],
]


@pytest.mark.parametrize(("level", "alpha"), [(Level.NOMINAL, 0.743), (Level.ORDINAL, 0.815)])
def test_alpha_of_the_published_example(level, alpha):
    assert krippendorff_alpha(*coincidences(OBSERVERS), level) == pytest.approx(alpha, abs=5e-4)


def test_correlations_of_published_examples():
    x = [10, 8, 13, 9, 11, 14, 6, 4, 12, 7, 5]
    y = [8.04, 6.95, 7.58, 8.81, 8.33, 9.96, 7.24, 4.26, 10.84, 4.82, 5.68]
    assert pearson(*tabulated(x, y)) == pytest.approx(0.81642, abs=5e-6)  # Anscombe 1973, first set
    quotients = [106, 100, 86, 101, 99, 103, 97, 113, 112, 110]
    hours = [7, 27, 2, 50, 28, 29, 20, 12, 6, 17]
    assert spearman(*tabulated(quotients, hours)) == pytest.approx(-29 / 165)
    assert kendall(*tabulated([12, 2, 1, 12, 2], [1, 4, 7, 1, 0])) == pytest.approx(
        -0.47140452079103173
    )  # SciPy's example


@settings(max_examples=50, deadline=None)
@given(pairs=PAIRS, power=st.sampled_from([0, 1, 2]))
def test_kappa_is_the_cost_within_pairs_against_that_between_all(pairs, power):
    def cost(a, b):
        return abs(a - b) ** power if a != b else 0

    first, second = zip(*pairs, strict=True)
    expected = np.mean([cost(a, b) for a in first for b in second])
    kappa = cohen_kappa(*tabulated(first, second), power)
    if expected == 0:
        assert math.isnan(kappa)
    else:
        assert kappa == pytest.approx(1 - np.mean([cost(a, b) for a, b in pairs]) / expected)


@settings(max_examples=50, deadline=None)
@given(pairs=PAIRS)
def test_tau_counts_pairs_of_pairs_and_rho_correlates_middle_ranks(pairs):
    first, second = zip(*pairs, strict=True)
    agree, ties, table = 0, [0, 0], tabulated(first, second)
    for (a, b), (c, d) in itertools.combinations(pairs, 2):
        agree += np.sign(a - c) * np.sign(b - d)
        ties = [ties[0] + (a != c), ties[1] + (b != d)]
    ranks = [[np.mean([i for i, w in enumerate(sorted(side)) if w == v]) for v in side] for side in (first, second)]
    if not all(ties):
        assert math.isnan(kendall(*table)) and math.isnan(spearman(*table))
    else:
        assert kendall(*table) == pytest.approx(agree / math.sqrt(ties[0] * ties[1]))
        assert spearman(*table) == pytest.approx(np.corrcoef(ranks)[0, 1])
        assert pearson(*table) == pytest.approx(np.corrcoef(first, second)[0, 1])


@settings(max_examples=50, deadline=None)
@given(pairs=PAIRS, level=st.sampled_from(Level))
def test_alpha_of_two_is_the_distance_within_pairs_against_that_between_all_ratings(pairs, level):
    everything = sorted(rating for pair in pairs for rating in pair)
    rank = {value: np.mean([place for place, other in enumerate(everything) if other == value]) for value in everything}

    def distance(a, b):
        return float(a != b) if level is Level.NOMINAL else (rank[a] - rank[b]) ** 2

    alpha = COEFFICIENTS[level][f"{level}_alpha"](*tabulated(*zip(*pairs, strict=True)))
    expected = np.mean([distance(a, b) for a, b in itertools.permutations(everything, 2)])
    if not expected:
        assert math.isnan(alpha)
    else:
        assert alpha == pytest.approx(1 - np.mean([distance(a, b) for a, b in pairs]) / expected)


@pytest.mark.parametrize("level", Level)
def test_judges_with_gaps(level):
    first = [1, 2, 3, 4, 5, None, 2, 4]
    second = [1, 2, 3, 5, 5, 3, None, 4]
    estimates = agreement(first, second, ["a", "a", "b", "b", "c", "c", "d", "d"], level)
    assert {*estimates} == {"equal", *COEFFICIENTS[level]}
    assert all((e.n, e.unscored) == (6, 2) for e in estimates.values())
    assert all(e.low <= e.value <= e.high for e in estimates.values())
    assert estimates["equal"].value == pytest.approx(5 / 6)
    both = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
    for name, coefficient in COEFFICIENTS[level].items():
        assert estimates[name].value == coefficient(*tabulated(*zip(*both, strict=True)))


def test_clusters_are_drawn_together():
    first, second = [1, 2, 3, 1, 2, 3] * 4, [1, 2, 1, 1, 2, 1] * 4
    together = agreement(first, second, [place // 6 for place in range(24)], Level.ORDINAL)["kappa"]
    apart = agreement(first, second, range(24), Level.ORDINAL)["kappa"]
    assert together.low == together.value == together.high and apart.low < apart.value < apart.high


@pytest.mark.parametrize("ratings", [[3, 3, 3], [None, None], []])
def test_what_is_not_defined_has_no_value(ratings):
    estimates = agreement(ratings, ratings, range(len(ratings)), Level.ORDINAL)
    assert all(estimates[name].value is None for name in COEFFICIENTS[Level.ORDINAL])
