"""The length-controlled win rate: what it predicts, what it refuses, and that a planted bias is removed."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from multifaceted.evaluation.lengths import Preferred, length_controlled_win_rate, length_feature
from multifaceted.evaluation.logistic import sigmoid

COMPARED = st.lists(
    st.tuples(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), st.integers(-500, 500), st.booleans()),
    min_size=4,
    max_size=20,
)


def rows_of(compared):
    return [
        Preferred(preference=preference, longer=longer, by_rule=by_rule, cluster=place)
        for place, (preference, longer, by_rule) in enumerate(compared)
    ]


def rate(rows, number=1):
    return length_controlled_win_rate(rows, "bench", number=number)


@settings(max_examples=60)
@given(COMPARED)
@example([(0.0, 174, False), (0.0, 228, False), (0.0, 267, False), (0.25, 263, False)])
@example([(0.0, 0, False), (0.0, 0, False), (0.25, 147, False), (0.5, 148, False)])
def test_the_other_side_has_the_rest(compared):
    ours = rate(rows_of(compared))
    theirs = rate(rows_of([(1 - preference, -longer, by_rule) for preference, longer, by_rule in compared]))
    assert (ours.value is None) == (theirs.value is None) and (ours.n, ours.unscored) == (len(compared), 0)
    if ours.value is not None:
        assert ours.value == pytest.approx(1 - theirs.value, abs=1e-6) and 0 < ours.value < 1


@settings(max_examples=60)
@given(COMPARED)
def test_it_is_the_plain_rate_where_length_says_nothing(compared):
    """Every preference once with a longer response and once with one that is as much shorter."""
    mirrored = [(preference, sign * longer, by_rule) for preference, longer, by_rule in compared for sign in (1, -1)]
    found = rate(rows_of(mirrored))
    if found.value is not None:
        assert found.value == pytest.approx(np.mean([preference for preference, _, _ in compared]), abs=1e-6)


@pytest.mark.parametrize("fair", [0.2, 0.5, 0.7])
def test_a_planted_liking_for_length_is_removed(fair):
    """The policy writes at greater length, and the judge likes that; at equal length it would win `fair`."""
    random = np.random.default_rng(0)
    longer = random.normal(300, 400, size=4000).round()
    wins = random.random(4000) < sigmoid(np.log(fair / (1 - fair)) + 2 * length_feature(longer))
    rows = rows_of([(float(win), int(by), False) for win, by in zip(wins, longer, strict=True)])
    found = rate(rows, number=100)
    assert wins.mean() > fair + 0.05, "the plain rate is taken in"
    assert found.value == pytest.approx(fair, abs=0.04) and found.low < fair < found.high


def test_what_a_rule_decided_stays_at_whatever_length():
    judged = [(1.0, 10, False), (0.0, 20, False), (1.0, -10, False), (0.0, -20, False)]
    without, with_empty = rate(rows_of(judged)), rate(rows_of([*judged, *[(0.0, -900, True)] * 4]))
    assert with_empty.value == pytest.approx(without.value / 2) and with_empty.n == 8


@pytest.mark.parametrize(
    ("compared", "reason"),
    [
        ([(1.0, 5, False), (0.0, 5, False), (0.5, 5, False)], "by the same length"),
        ([(1.0, 0, False), (0.0, 0, False)], "by the same length"),
        ([(1.0, 5, False)], "decided pairs of known lengths: 1"),
        ([(0.0, 5, True), (1.0, 7, True)], "decided pairs of known lengths: 0"),
        ([], "decided pairs of known lengths: 0"),
        ([(1.0, 5, False), (1.0, 7, False), (1.0, -3, False)], "no finite optimum"),
        ([(1.0, 5, False), (0.0, -7, False), (0.0, -3, False)], "no finite optimum"),
    ],
)
def test_without_a_fit_there_is_no_value(compared, reason, caplog):
    unknown = [Preferred(preference=None, longer=5, by_rule=False, cluster="a")]
    unmeasured = [Preferred(preference=1.0, longer=None, by_rule=False, cluster="b")]
    found = rate([*rows_of(compared), *unknown, *unmeasured])
    assert (found.value, found.low, found.high, found.n, found.unscored) == (None, None, None, len(compared), 2)
    assert "bench has no length-controlled win rate" in caplog.text and reason in caplog.text


def test_a_resample_without_a_fit_could_be_anything():
    """Half of the resamples of these have one outcome only."""
    found = rate(rows_of([(1.0, 5, False), (0.0, -4, False), (0.0, 7, False), (1.0, 0, False)]), number=200)
    assert 0 < found.value < 1 and (found.low, found.high) == (0.0, 1.0)


def test_clusters_are_drawn_together():
    rows = [(1.0, 10), (0.0, 20), (1.0, -10), (0.0, -20)] * 6
    together = [Preferred(preference=p, longer=by, by_rule=False, cluster=n // 4) for n, (p, by) in enumerate(rows)]
    apart = [Preferred(preference=p, longer=by, by_rule=False, cluster=n) for n, (p, by) in enumerate(rows)]
    assert rate(together, number=50).low == pytest.approx(rate(together, number=50).high)
    assert rate(apart, number=50).low < rate(apart, number=50).high
