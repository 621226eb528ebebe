"""AlpacaEval's length-controlled win rate (Dubois et al. 2024, arXiv 2404.04475).

A model's preferences are regressed on how much longer its answers are, on how hard the instructions are, and on a
constant; the figure is what the regression predicts of answers as long as the baseline's.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from multifaceted.data.bad_rows import DataError
from multifaceted.data.benches.cells import Cells
from multifaceted.evaluation.lengths import length_feature
from multifaceted.evaluation.logistic import Array, fit_logistic, sigmoid
from multifaceted.evaluation.protocols.alpaca_eval import BASELINE, SPLIT, Annotation
from multifaceted.evaluation.protocols.recorded import number_in, read_recorded
from multifaceted.evaluation.statistics import percentile_interval, resamples
from multifaceted.records import Estimate

METRIC = f"{SPLIT}/length_controlled_win_rate"
COLUMNS = ("np.tanh(std_delta_len)", "instruction_difficulty", "not_gamed_baseline.astype(float)")
"""How AlpacaEval's files of weights call the three features."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Anchors:
    """Rows that pull every model's fit the same way: the baseline against a verbose and a concise self.

    Attributes:
        features: [rows, 3], the constant one zero.
        weight: of each of these rows; a model's own weigh 1.
        moments: `sum_i y_i x_i` of their outcomes y, unweighted, [3]; all that a fit needs of them.
    """

    features: Array
    weight: float
    moments: Array


@dataclass(frozen=True, kw_only=True, slots=True)
class LengthControl:
    """What is published for all models.

    Attributes:
        difficulty: of each instruction, [instructions].
        baseline_lengths: characters of the baseline's answers, [instructions]; nothing here holds against another one.
        l1: of the models for which cross-validation's choice is known, the weight of the l1 term.
    """

    difficulty: Array
    baseline_lengths: Array
    anchors: Anchors
    l1: Mapping[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """A model's regression: the coefficients of length, difficulty and the constant."""

    length: float
    difficulty: float
    constant: float

    def predicted(self, difficulty: ArrayLike) -> Array:
        """By instruction, in percent, how often the model would win with answers of the baseline's length."""
        return 100 * sigmoid(self.difficulty * np.asarray(difficulty, dtype=np.float64) + self.constant)


def fit(
    annotations: Sequence[Annotation], control: LengthControl, *, anchored: bool = True, l1: float = 0.0
) -> Weights:
    """A model's regression, from its scored annotations.

    The published fits are anchored, and cross-validation chose the weight of their l1 term; for a model of which that
    is not known, 0 is nearest. They give difficulties to annotations by their place in the file, so those of models
    that lack some are shifted against each other; here each keeps its own.

    Raises:
        ValueError: fewer than two scored annotations, answers all equally longer, or preferences without a finite fit.
    """
    rows, outcomes = _rows(annotations, control)
    return _fit(rows, outcomes, control, anchored=anchored, l1=l1)


def length_controlled_win_rate(
    annotations: Sequence[Annotation],
    control: LengthControl,
    *,
    anchored: bool = True,
    l1: float = 0.0,
    seed: int = 0,
    number: int = 500,
) -> Estimate:
    """The figure in percent with a 95 % percentile bootstrap interval: instructions are resampled and fitted again.

    Args:
        number: of resamples.

    Raises:
        ValueError: as `fit`.
    """
    rows, outcomes = _rows(annotations, control)

    def figure(picks: Any) -> float:
        weights = _fit(rows[picks], outcomes[picks], control, anchored=anchored, l1=l1)
        return float(weights.predicted(rows[picks, 1]).mean())

    value = figure(slice(None))
    low, high = percentile_interval([figure(picks) for block in resamples(len(rows), seed, number) for picks in block])
    return Estimate(value=value, low=low, high=high, n=len(rows), unscored=len(annotations) - len(rows))


def _rows(annotations: Sequence[Annotation], control: LengthControl) -> tuple[Array, Array]:
    """Of scored annotations: how much longer the baseline's answer is, and the difficulty, [rows, 2]; outcomes, [rows].

    Difficulty is published by place, so an annotation of another bench is refused.
    """
    scored = [(a, a.preference) for a in annotations if a.preference is not None]
    beyond = [a.index for a, _ in scored if not 0 <= a.index < len(control.difficulty)]
    if beyond:
        raise ValueError(f"no difficulty is known of instruction {beyond[0]}; there are {len(control.difficulty)}")
    rows = [(a.baseline_length - a.model_length, control.difficulty[a.index]) for a, _ in scored]
    return np.array(rows, dtype=np.float64).reshape(-1, 2), np.array([p - BASELINE for _, p in scored])


def _fit(rows: Array, outcomes: Array, control: LengthControl, *, anchored: bool, l1: float) -> Weights:
    features = _features(rows)
    weights, moments = np.ones(len(features)), outcomes @ features
    if anchored:
        anchors = control.anchors
        features = np.concatenate([features, anchors.features])
        weights = np.concatenate([weights, np.full(len(anchors.features), anchors.weight)])
        moments = moments + anchors.weight * anchors.moments
    length, difficulty, constant = map(float, fit_logistic(features, weights, moments, l1=l1))
    return Weights(length=length, difficulty=difficulty, constant=constant)


def _features(rows: Array, constant: float = 1.0) -> Array:
    """The three features, [rows, 3]."""
    return np.column_stack([length_feature(rows[:, 0]), rows[:, 1], np.full(len(rows), constant)])


def read_length_control(path: Path) -> LengthControl:
    """Read what was recovered of the published regressions: an object in JSON, gzipped or not.

    Its `instruction_difficulty` and `output_lengths` (of the baseline and of each of `gamed_baselines`) have a number
    an instruction; `gamed_row_weight`, `gamed_sum_preference_times_tanh_length` and
    `gamed_sum_preference_times_difficulty` are numbers; `l1_C_of_model` has the inverse weight of a model's l1 term.

    Raises:
        DataError: the file is missing or is something else.
    """
    try:
        content = path.read_bytes()
        return _control(json.loads(gzip.decompress(content) if path.suffix == ".gz" else content))
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError) as error:
        raise DataError(f"{path} is no record of AlpacaEval's length control: {error!r}") from error


def _control(published: Mapping[str, Any]) -> LengthControl:
    difficulty = np.array(published["instruction_difficulty"], dtype=np.float64)
    gamed = published["gamed_baselines"]
    lengths = {name: np.array(of, dtype=np.float64) for name, of in published["output_lengths"].items()}
    (baseline,) = lengths.keys() - {*gamed}
    features = [
        _features(np.column_stack([lengths[baseline] - lengths[name], difficulty]), constant=0.0) for name in gamed
    ]
    sums = [published[f"gamed_sum_preference_times_{name}"] for name in ("tanh_length", "difficulty")]
    anchors = Anchors(
        features=np.concatenate(features),
        weight=float(published["gamed_row_weight"]),
        moments=np.array([*sums, 0.0], dtype=np.float64),
    )
    l1 = {model: 1 / float(inverse) for model, inverse in published["l1_C_of_model"].items()}
    return LengthControl(difficulty=difficulty, baseline_lengths=lengths[baseline], anchors=anchors, l1=l1)


def read_weights(path: Path) -> dict[str, Weights]:
    """By model, the published weights: a table whose first column has no name.

    Raises:
        DataError: the file is missing or has a broken row.
    """

    def weights(cells: Cells) -> tuple[str, Weights]:
        length, difficulty, constant = (number_in(cells, name) for name in COLUMNS)
        return cells.label(""), Weights(length=length, difficulty=difficulty, constant=constant)

    return dict(read_recorded(path, weights))
