"""Intervals over clusters."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multifaceted.evaluation import statistics
from multifaceted.evaluation.clustered import bootstrap_mean

VALUES = st.lists(st.one_of(st.none(), st.floats(-5, 5)), max_size=12)


@given(VALUES)
def test_values_that_stand_alone_have_the_plain_interval(values):
    plain, clustered = statistics.bootstrap_mean(values), bootstrap_mean(values, clusters=range(len(values)))
    assert (plain.n, plain.unscored) == (clustered.n, clustered.unscored)
    if plain.value is None:
        assert clustered.value is None
    else:
        found = [clustered.value, clustered.low, clustered.high]
        assert found == pytest.approx([plain.value, plain.low, plain.high], abs=1e-9)


def test_repeating_values_within_clusters_does_not_narrow_the_interval():
    rng = np.random.default_rng(0)
    values = [float(value) for value in rng.normal(size=60)]
    once = bootstrap_mean(values, clusters=range(60))
    repeated = bootstrap_mean(values * 3, clusters=[*range(60)] * 3)
    naive = bootstrap_mean(values * 3)
    assert (repeated.low, repeated.high) == pytest.approx((once.low, once.high), abs=1e-9)
    assert naive.high - naive.low < 0.7 * (once.high - once.low)


def test_clusters_of_other_sizes_weigh_by_their_values():
    estimate = bootstrap_mean([1.0, 1.0, 1.0, 0.0, None], clusters=["a", "a", "a", "b", "b"])
    assert (estimate.value, estimate.low, estimate.high, estimate.unscored) == (0.75, 0.0, 1.0, 1)
