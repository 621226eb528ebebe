"""How often a policy would win if its responses were as long as the opponent's."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from multifaceted.evaluation.logistic import Array, fit_logistic, sigmoid
from multifaceted.evaluation.statistics import cluster_draws, percentile_interval
from multifaceted.records import Estimate

log = logging.getLogger(__name__)

MAX_LOG_ODDS = 20.0
"""Farther out, 2e-9 from no win or no loss, rounding decides whether an optimum is found at all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Preferred:
    """How much the comparisons of one prompt speak for the policy.

    Attributes:
        preference: from 0 to 1; None is unscored.
        longer: how many characters the policy's response has more than the opponent's; None is not recorded.
        by_rule: whether a response was empty, so that nobody was asked.
        cluster: what is resampled together: the instruction.
    """

    preference: float | None
    longer: int | None
    by_rule: bool
    cluster: Hashable


def length_feature(longer: Array) -> Array:
    """Differences of length in their sample standard deviation, squashed by tanh (Dubois et al. 2024, section 3).

    Args:
        longer: how much longer one response is than the other, [rows].

    Raises:
        ValueError: there are fewer than two, or they do not differ from each other.
    """
    if len(longer) < 2:
        raise ValueError(f"decided pairs of known lengths: {len(longer)}; controlling for length takes two")
    deviation = float(longer.std(ddof=1))
    if not deviation > 0:
        raise ValueError("all responses differ from the others by the same length; length cannot be controlled for")
    return np.tanh(longer / deviation)


def length_controlled_win_rate(rows: Sequence[Preferred], split: str, seed: int = 0, number: int = 500) -> Estimate:
    """The win rate that a logistic regression on length and a constant predicts at equal length, from 0 to 1.

    AlpacaEval's idea (`protocols.length_control`) without its difficulties of instructions and its anchors, which are
    published for its own prompts and opponent only. What a rule decided is kept as it is, at whatever length.

    The 95 % percentile bootstrap interval refits every resample of clusters. One that has no fit could be anything: it
    counts as 0 for the lower end and as 1 for the upper.

    Args:
        rows: one a prompt.
        split: what they are, for the log.
        number: of resamples.

    Returns:
        No value where the regression has no finite optimum, or lengths do not differ; the log says so.
    """
    known = [row for row in rows if row.preference is not None and (row.by_rule or row.longer is not None)]
    n, unscored = len(known), len(rows) - len(known)
    preference = np.array([row.preference for row in known], dtype=np.float64)
    longer = np.array([row.longer or 0 for row in known], dtype=np.float64)
    by_rule = np.array([row.by_rule for row in known], dtype=bool)

    def figure(picks: NDArray[np.int64] | slice) -> float:
        return _at_equal_length(preference[picks], longer[picks], by_rule[picks])

    try:
        value = figure(slice(None))
    except ValueError as error:
        log.warning("%s has no length-controlled win rate: %s", split, error)
        return Estimate(value=None, low=None, high=None, n=n, unscored=unscored)
    drawn = []
    for picks in cluster_draws([row.cluster for row in known], seed, number):
        try:
            drawn.append((figure(picks),) * 2)
        except ValueError:
            drawn.append((0.0, 1.0))
    lows, highs = zip(*drawn, strict=True)
    return Estimate(
        value=value,
        low=percentile_interval(lows)[0],
        high=percentile_interval(highs)[1],
        n=n,
        unscored=unscored,
    )


def _at_equal_length(preference: Array, longer: Array, by_rule: NDArray[np.bool_]) -> float:
    """Of all rows: what the regression predicts of those that were judged, and what the others are."""
    asked = ~by_rule
    length = length_feature(longer[asked])
    _check_overlap(length, preference[asked])
    features = np.column_stack([length, np.ones(len(length))])
    _, constant = fit_logistic(features, np.ones(len(length)), preference[asked] @ features)
    if abs(constant) > MAX_LOG_ODDS:
        raise ValueError(
            f"the logistic regression has its optimum at log odds of {constant:.0f}: length nearly tells won from lost"
        )
    return float(np.where(asked, sigmoid(constant), preference).mean())


def _check_overlap(length: Array, preference: Array) -> None:
    """Refuse rows without a finite optimum: a threshold of length tells those won from those lost.

    Exact for one feature and a constant (Albert and Anderson 1984), where steps towards infinity end by rounding. A
    row within 0 and 1 is won and lost.
    """
    won, lost = length[preference > 0], length[preference < 1]
    if not (len(won) and len(lost) and won.min() < lost.max() and lost.min() < won.max()):
        raise ValueError(
            "the logistic regression has no finite optimum: length tells won from lost, or all are one of them"
        )
