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
    Weighting,
    agreement,
    cohen_kappa,
    kendall,
    krippendorff_alpha,
    pearson,
    spearman,
)

PAIRS = st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=2, max_size=25)


def raters(table):
    """Ratings of two raters from how often each pair of them occurred."""
    pairs = [(i, j) for i, row in enumerate(table) for j, count in enumerate(row) for _ in range(count)]
    return [list(side) for side in zip(*pairs, strict=True)]


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
    assert cohen_kappa(*raters(table)) == pytest.approx(kappa, abs=5e-5)


NONE = None
# Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability": four observers, twelve units.
OBSERVERS = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, NONE, NONE, NONE],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NONE, 3],
    [NONE, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NONE],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NONE],
]


@pytest.mark.parametrize(("level", "alpha"), [(Level.NOMINAL, 0.743), (Level.ORDINAL, 0.815), (Level.INTERVAL, 0.849)])
def test_alpha_of_the_published_example(level, alpha):
    assert krippendorff_alpha(OBSERVERS, level) == pytest.approx(alpha, abs=5e-4)


def test_correlations_of_published_examples():
    x = [10, 8, 13, 9, 11, 14, 6, 4, 12, 7, 5]
    y = [8.04, 6.95, 7.58, 8.81, 8.33, 9.96, 7.24, 4.26, 10.84, 4.82, 5.68]
    assert pearson(x, y) == pytest.approx(0.81642, abs=5e-6)  # Anscombe 1973, first set
    quotients = [106, 100, 86, 101, 99, 103, 97, 113, 112, 110]
    hours = [7, 27, 2, 50, 28, 29, 20, 12, 6, 17]
    assert spearman(quotients, hours) == pytest.approx(-29 / 165)
    assert kendall([12, 2, 1, 12, 2], [1, 4, 7, 1, 0]) == pytest.approx(-0.47140452079103173)  # SciPy's example


@settings(max_examples=50, deadline=None)
@given(pairs=PAIRS, weighting=st.sampled_from(Weighting))
def test_kappa_is_the_cost_within_pairs_against_that_between_all(pairs, weighting):
    cost = {
        Weighting.NONE: lambda a, b: float(a != b),
        Weighting.LINEAR: lambda a, b: abs(a - b),
        Weighting.QUADRATIC: lambda a, b: (a - b) ** 2,
    }[weighting]
    first, second = zip(*pairs, strict=True)
    expected = np.mean([cost(a, b) for a in first for b in second])
    kappa = cohen_kappa(first, second, weighting)
    if expected == 0:
        assert math.isnan(kappa)
    else:
        assert kappa == pytest.approx(1 - np.mean([cost(a, b) for a, b in pairs]) / expected)


@settings(max_examples=50, deadline=None)
@given(pairs=PAIRS)
def test_tau_counts_pairs_of_pairs_and_rho_correlates_middle_ranks(pairs):
    first, second = zip(*pairs, strict=True)
    agree, ties = 0, [0, 0]
    for (a, b), (c, d) in itertools.combinations(pairs, 2):
        agree += np.sign(a - c) * np.sign(b - d)
        ties = [ties[0] + (a != c), ties[1] + (b != d)]
    ranks = [[np.mean([i for i, w in enumerate(sorted(side)) if w == v]) for v in side] for side in (first, second)]
    if not all(ties):
        assert math.isnan(kendall(first, second)) and math.isnan(spearman(first, second))
    else:
        assert kendall(first, second) == pytest.approx(agree / math.sqrt(ties[0] * ties[1]))
        assert spearman(first, second) == pytest.approx(np.corrcoef(ranks)[0, 1])
        assert pearson(first, second) == pytest.approx(np.corrcoef(first, second)[0, 1])


@settings(max_examples=50, deadline=None)
@given(units=st.lists(st.lists(st.integers(1, 4) | st.none(), min_size=3, max_size=3), min_size=1, max_size=12))
def test_alpha_is_the_distance_within_units_against_that_between_all(units):
    alpha = krippendorff_alpha(list(zip(*units, strict=True)), Level.INTERVAL)
    rated = [[v for v in unit if v is not None] for unit in units]
    rated = [unit for unit in rated if len(unit) > 1]
    everything = [v for unit in rated for v in unit]
    n = len(everything)
    expected = sum((a - b) ** 2 for a, b in itertools.permutations(everything, 2)) / (n * (n - 1)) if n else 0
    if not expected:
        assert math.isnan(alpha)
        return
    within = sum(sum((a - b) ** 2 for a, b in itertools.permutations(unit, 2)) / (len(unit) - 1) for unit in rated) / n
    assert alpha == pytest.approx(1 - within / expected)


def test_judges_with_gaps():
    first = [1, 2, 3, 4, 5, None, 2, 4]
    second = [1, 2, 3, 5, 5, 3, None, 4]
    estimates = agreement(first, second, "bench", clusters=["a", "a", "b", "b", "c", "c", "d", "d"])
    assert {*estimates} == {"bench/equal", *(f"bench/{name}" for name in COEFFICIENTS)}
    assert all((e.n, e.unscored) == (6, 2) for e in estimates.values())
    assert all(e.low <= e.value <= e.high for e in estimates.values())
    assert estimates["bench/equal"].value == pytest.approx(5 / 6)
    both = [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
    for name, coefficient in COEFFICIENTS.items():
        assert estimates[f"bench/{name}"].value == coefficient(*zip(*both, strict=True))


@pytest.mark.parametrize("ratings", [[3, 3, 3], [None, None]])
def test_what_is_not_defined_has_no_value(ratings):
    estimates = agreement(ratings, ratings, "bench")
    assert all(estimates[f"bench/{name}"].value is None for name in COEFFICIENTS)


def test_unequal_numbers_of_ratings_are_refused():
    with pytest.raises(ValueError, match="2 and 1 ratings"):
        cohen_kappa([1, 2], [1])
    with pytest.raises(ValueError, match="mark missing ones with None"):
        krippendorff_alpha([[1, 2], [1]])
