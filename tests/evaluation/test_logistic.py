"""The optimum of a logistic regression, by its conditions rather than by another solver."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multifaceted.evaluation.logistic import fit_logistic, sigmoid


def problem(seed, rows=60, features=3):
    random = np.random.default_rng(seed)
    x, w = random.normal(size=(rows, features)), random.uniform(0.1, 2.0, size=rows)
    y = random.uniform(0.02, 0.98, size=rows)
    return x, w, (w * y) @ x


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), l1=st.sampled_from([0.0, 0.3, 3.0, 20.0]), l2=st.sampled_from([0.0, 0.5]))
def test_the_subgradient_holds_zero(seed, l1, l2):
    x, w, moments = problem(seed)
    beta = fit_logistic(x, w, moments, l1=l1, l2=l2)
    slope = x.T @ (w * sigmoid(x @ beta)) - moments + l2 * beta
    for value, at in zip(slope, beta, strict=True):
        if at:
            assert value == pytest.approx(-l1 * np.sign(at), abs=1e-7)
        else:
            assert abs(value) <= l1 + 1e-7


def test_one_constant_feature_is_the_log_odds():
    beta = fit_logistic(np.ones((4, 1)), np.ones(4), np.array([3.0]))
    assert beta[0] == pytest.approx(np.log(3))


def test_a_strong_l1_term_leaves_nothing():
    x, w, moments = problem(1)
    assert fit_logistic(x, w, moments, l1=1e4).tolist() == [0, 0, 0]


def test_outcomes_told_apart_perfectly_have_no_fit_and_a_ridge_gives_them_one():
    x, w = np.array([[1.0], [-1.0]]), np.ones(2)
    with pytest.raises(ValueError, match="no finite optimum"):
        fit_logistic(x, w, np.array([1.0]))
    assert sigmoid(x @ fit_logistic(x, w, np.array([1.0]), l2=1e-6))[0] > 0.9999


def test_large_values_do_not_overflow():
    assert sigmoid(np.array([-1e4, 0.0, 1e4])).tolist() == [0.0, 0.5, 1.0]
