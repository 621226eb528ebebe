"""Logistic regression to the optimum, for the statistics that are defined by one. A few features, no intercept."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

GAIN, STEP = 1e-14, 1e-6
MOST_STEPS = 200


def sigmoid(values: Array) -> Array:
    """1 / (1 + exp(-x)) without overflow."""
    return np.asarray(np.exp(-np.logaddexp(0.0, -values)))


def fit_logistic(features: Array, weights: Array, moments: Array, *, l1: float = 0.0, l2: float = 0.0) -> Array:
    """The coefficients b that minimise a weighted cross-entropy, by proximal Newton steps (Lee, Sun, Saunders 2014).

    The objective is `sum_i w_i log(1 + exp(x_i b)) - moments b + l1 |b|_1 + l2/2 |b|^2`. Outcomes enter it only
    through `moments`, so they may be shares, and need not be known one by one.

    Args:
        features: x, [rows, features].
        weights: w, [rows].
        moments: `sum_i w_i y_i x_i` of outcomes y within 0 and 1, [features].

    Raises:
        ValueError: there is no finite optimum.
    """
    beta = np.zeros(features.shape[1])

    def objective(at: Array) -> float:
        losses = weights @ np.logaddexp(0.0, features @ at)
        return float(losses - moments @ at + l1 * np.abs(at).sum() + l2 / 2 * at @ at)

    for _ in range(MOST_STEPS):
        shares = sigmoid(features @ beta)
        gradient = features.T @ (weights * shares) - moments + l2 * beta
        curvature = weights * shares * (1 - shares)
        hessian = (features * curvature[:, None]).T @ features + l2 * np.eye(len(beta))
        step = _step(gradient, hessian, beta, l1)
        if step is None:
            break
        before, size = objective(beta), 1.0
        slope = gradient @ step + l1 * (np.abs(beta + step).sum() - np.abs(beta).sum())
        # Nothing is left to gain, and the last step squares the error; towards infinity steps would stay long.
        if -slope <= GAIN * (1 + abs(before)) and np.abs(step).max() <= STEP * (1 + np.abs(beta).max()):
            return beta + step
        # What rounding makes of equal objectives is no reason to shorten a step.
        while objective(beta + size * step) > before + 1e-4 * size * slope + 1e-12 * abs(before):
            size /= 2
        beta = beta + size * step
    raise ValueError(
        "the logistic regression has no finite optimum: some combination of its features tells all outcomes apart;"
        " more outcomes, or a penalty, are needed"
    )


def _step(gradient: Array, hessian: Array, beta: Array, l1: float) -> Array | None:
    """What minimises the quadratic model with its l1 term; None where the model is flat."""
    if l1 == 0.0:
        try:
            return np.asarray(np.linalg.solve(hessian, -gradient))
        except np.linalg.LinAlgError:
            return None
    if not (np.diag(hessian) > 0).all():
        return None
    target = beta.copy()
    for _ in range(10_000):  # by coordinates, each exactly (Friedman et al. 2010)
        before = target.copy()
        for j, own in enumerate(np.diag(hessian)):
            free = target[j] - (gradient[j] + hessian[j] @ (target - beta)) / own
            target[j] = np.sign(free) * max(abs(free) - l1 / own, 0.0)
        if np.abs(target - before).max() <= 1e-12:
            break
    return target - beta
