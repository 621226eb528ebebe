"""The length-controlled win rate: published weights, a fit of its own, and what each part of the fit is worth."""

import csv
import gzip
import json
from dataclasses import replace

import numpy as np
import pytest

from multifaceted.data.bad_rows import DataError
from multifaceted.evaluation.logistic import sigmoid
from multifaceted.evaluation.protocols.alpaca_eval import Annotation, read_preferences
from multifaceted.evaluation.protocols.length_control import (
    METRIC,
    Weights,
    fit,
    length_controlled_win_rate,
    read_length_control,
    read_weights,
)

PROMPTS = 120


def published(**changes):
    """A record in the documented form, of a bench of `PROMPTS` instructions."""
    random = np.random.default_rng(5)
    base = random.integers(200, 3000, size=PROMPTS)
    return {
        "note": "made for this test",
        "instruction_difficulty": random.normal(size=PROMPTS).round(3).tolist(),
        "output_lengths": {
            "base": base.tolist(),
            "base_verbose": (base + random.integers(100, 900, size=PROMPTS)).tolist(),
            "base_concise": (base // 2).tolist(),
        },
        "gamed_baselines": ["base_verbose", "base_concise"],
        "gamed_row_weight": 0.1,
        "gamed_sum_preference_times_tanh_length": -20.5,
        "gamed_sum_preference_times_difficulty": 3.25,
        "l1_C_of_model": {"small": 2.5},
    } | changes


def write(path, record):
    text = json.dumps(record)
    (path.write_bytes(gzip.compress(text.encode())) if path.suffix == ".gz" else path.write_text(text))
    return path


@pytest.fixture
def control(tmp_path):
    return read_length_control(write(tmp_path / "reference.json.gz", published()))


def annotations(control, weights, seed=0, unscored=()):
    """Preferences that are exactly what `weights` predict."""
    lengths = np.random.default_rng(seed).integers(100, 3000, size=(PROMPTS, 2))
    difference = lengths[:, 0] - lengths[:, 1]
    scored = [place for place in range(PROMPTS) if place not in unscored]
    features = np.tanh(difference / difference[scored].std(ddof=1))
    shares = sigmoid(weights.length * features + weights.difficulty * control.difficulty + weights.constant)
    return [
        Annotation(
            index=place,
            preference=None if place in unscored else 1 + float(shares[place]),
            baseline_length=int(lengths[place, 0]),
            model_length=int(lengths[place, 1]),
        )
        for place in range(PROMPTS)
    ]


TRUE = Weights(length=-1.5, difficulty=0.7, constant=-0.4)


def test_a_record_is_read(control, tmp_path):
    assert control.difficulty.shape == (PROMPTS,) and control.l1 == {"small": 0.4}
    assert control.anchors.features.shape == (2 * PROMPTS, 3) and control.anchors.weight == 0.1
    assert control.anchors.moments.tolist() == [-20.5, 3.25, 0.0]
    assert not control.anchors.features[:, 2].any()
    verbose, concise = control.anchors.features[:PROMPTS, 0], control.anchors.features[PROMPTS:, 0]
    assert (verbose < 0).all() and (concise > 0).all()
    again = read_length_control(write(tmp_path / "reference.json", published()))
    assert np.array_equal(again.anchors.features, control.anchors.features)


@pytest.mark.parametrize(
    "broken",
    [
        {"instruction_difficulty": ["x"]},
        {"output_lengths": {"base": [1.0]}},
        {"gamed_row_weight": None},
        {"l1_C_of_model": {"small": 0}},
        {"gamed_baselines": []},
    ],
)
def test_another_record_is_refused(broken, tmp_path):
    with pytest.raises(DataError, match="no record of AlpacaEval's length control"):
        read_length_control(write(tmp_path / "reference.json", published(**broken)))


def test_a_missing_record_is_refused(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_length_control(tmp_path / "none.json")


def test_exact_preferences_give_their_weights_back(control):
    rows = annotations(control, TRUE, unscored={3, 50})
    found = fit(rows, control, anchored=False)
    assert [found.length, found.difficulty, found.constant] == pytest.approx([-1.5, 0.7, -0.4], abs=1e-6)
    estimate = length_controlled_win_rate(rows, control, anchored=False, number=50)
    scored = [a.index for a in rows if a.preference is not None]
    assert estimate.value == pytest.approx(TRUE.predicted(control.difficulty[scored]).mean(), abs=1e-6)
    assert estimate.low < estimate.value < estimate.high
    assert (estimate.n, estimate.unscored, METRIC) == (118, 2, "alpaca_eval/length_controlled_win_rate")


def test_length_is_what_is_controlled_for(control):
    models = [annotations(control, Weights(length=length, difficulty=0.7, constant=-0.4)) for length in (0.0, -3.0)]
    plain = [float(np.mean([a.preference for a in rows])) for rows in models]
    controlled = [fit(rows, control, anchored=False).predicted(control.difficulty).mean() for rows in models]
    assert abs(plain[0] - plain[1]) > 0.001 and controlled[0] == pytest.approx(controlled[1], abs=1e-6)


def test_anchors_pull_and_l1_shrinks(control):
    rows = annotations(control, TRUE)
    plain, anchored = fit(rows, control, anchored=False), fit(rows, control)
    shrunk = fit(rows, control, l1=1e3)
    assert abs(plain.length - anchored.length) > 0.01
    assert (shrunk.length, shrunk.difficulty, shrunk.constant) == (0, 0, 0)


def test_what_cannot_be_fitted_is_refused(control):
    same = [Annotation(index=i, preference=1.5, baseline_length=10, model_length=10) for i in range(5)]
    with pytest.raises(ValueError, match="by the same length"):
        fit(same, control)
    with pytest.raises(ValueError, match="decided pairs of known lengths: 0; controlling for length takes two"):
        fit([], control)
    with pytest.raises(ValueError, match="no difficulty is known of instruction 500"):
        fit([Annotation(index=500, preference=1.5, baseline_length=10, model_length=9)], control)


def test_published_weights_are_read(tmp_path):
    path = tmp_path / "weights.csv"
    path.write_text(",np.tanh(std_delta_len),instruction_difficulty,not_gamed_baseline.astype(float)\na,-1.5,0.5,0.0\n")
    weights = read_weights(path)["a"]
    assert weights == Weights(length=-1.5, difficulty=0.5, constant=0.0)
    assert weights.predicted([0.0, 2.0]).tolist() == pytest.approx([50.0, 73.10585786])
    path.write_text(path.read_text().replace("0.5", "half"))
    with pytest.raises(DataError, match="line 2: instruction_difficulty is 'half'"):
        read_weights(path)


def figures(shared):
    with shared("alpaca_eval2/leaderboard.csv").open(encoding="utf-8", newline="") as stream:
        rows = {row[""]: row["length_controlled_winrate"] for row in csv.DictReader(stream)}
    return {model: float(figure) for model, figure in rows.items() if figure}


def test_published_weights_give_published_figures(shared):
    control = read_length_control(shared("alpaca_eval2/length_control_reference.json.gz"))
    published, weights = figures(shared), read_weights(shared("alpaca_eval2/length_controlled_weights.csv"))
    errors = {
        model: abs(weights[model].predicted(control.difficulty).mean() - published[model])
        for model in weights.keys() & published.keys()
    }
    # The published weights of these two do not give their published figures.
    assert {model for model, error in errors.items() if error > 0.02} == {"dbrx-instruct", "NullModel"}
    assert len(errors) == 199 and sum(error < 1e-6 for error in errors.values()) == 189


@pytest.mark.parametrize(
    ("parts", "mean", "largest"),
    [
        ({"anchored": True, "l1": True}, 0.0013, 0.0062),
        ({"anchored": True, "l1": False}, 0.0402, 0.1028),
        ({"anchored": False, "l1": True}, 0.9530, 2.8343),
        ({"anchored": False, "l1": False}, 0.9692, 2.8593),
    ],
)
def test_error_of_refitting_thirty_models(parts, mean, largest, shared):
    """Points of win rate: what this project's own fit, from preferences and lengths, misses the published figure by."""
    control = read_length_control(shared("alpaca_eval2/length_control_reference.json.gz"))
    published, models = figures(shared), read_preferences(shared("alpaca_eval2/preferences.csv.gz"))
    errors = []
    for model in sorted(models.keys() & published.keys() & control.l1.keys()):
        l1 = control.l1[model] if parts["l1"] else 0.0
        weights = fit(models[model], control, anchored=parts["anchored"], l1=l1)
        difficulty = control.difficulty[[a.index for a in models[model]]]
        errors.append(abs(weights.predicted(difficulty).mean() - published[model]))
    assert len(errors) == 30
    assert (np.mean(errors), max(errors)) == (pytest.approx(mean, abs=1e-4), pytest.approx(largest, abs=1e-4))


@pytest.mark.parametrize("model", ["text_davinci_001", "minotaur-13b", "phi-2", "alpaca-7b_concise"])
def test_published_figures_shift_difficulties_where_annotations_are_missing(model, shared):
    control = read_length_control(shared("alpaca_eval2/length_control_reference.json.gz"))
    rows = read_preferences(shared("alpaca_eval2/preferences.csv.gz"))[model]
    shifted = [replace(row, index=place) for place, row in enumerate(rows)]
    own, theirs = (
        abs(fit(of, control).predicted(control.difficulty[[a.index for a in of]]).mean() - figures(shared)[model])
        for of in (rows, shifted)
    )
    assert len(rows) < 805 and theirs < 0.12 and theirs < own / 5
