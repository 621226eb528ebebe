"""AlpacaEval 2 on real outputs, with a judge whose first token is as it was: the leaderboard's row of a model."""

import csv
import gzip
import json
from dataclasses import asdict

import pytest

from multifaceted.evaluation.protocols.alpaca_eval import Annotation, win_rate
from multifaceted.evaluation.protocols.length_control import fit, read_length_control
from multifaceted.evaluation.verdict_log import read_verdicts
from multifaceted.inference.requests import Reply
from multifaceted.record_files import read_prompts
from multifaceted.records import PROMPTS, VERDICTS
from tests.evaluation.engines import section
from tests.evaluation.replay import replayed

MODEL = "gpt-3.5-turbo-1106"


def test_recorded_log_probabilities_give_the_published_row(shared, tmp_path):
    with shared("alpaca_eval2/leaderboard.csv").open(encoding="utf-8", newline="") as stream:
        row = next(row for row in csv.DictReader(stream) if row[""] == MODEL)
    file = shared(f"alpaca_eval2/annotations/{MODEL}.weighted_alpaca_eval_gpt4_turbo.json.gz")
    with gzip.open(file, "rt", encoding="utf-8") as stream:
        recorded = {row["instruction"]: row["raw_completion"] for row in json.load(stream)}

    def said(request):
        (first,) = recorded[section(request, "Instruction")]["logprobs"]["content"]
        logprobs = {token["token"]: token["logprob"] for token in first["top_logprobs"]}
        return Reply(id=request.id, text=first["token"], finished=False, first_token=logprobs)

    reference = shared("alpaca_eval2/length_control_reference.json.gz")
    outputs = shared("alpaca_eval2/model_outputs")
    config, metrics, asked = replayed(
        said,
        *("task=alpaca_eval", "judge=alpaca_eval", f"task.length_control={reference}", f"into={tmp_path}/into"),
        *(f"bench={outputs}/gpt4_1106_preview.json.gz", f"task.against={outputs}/gpt4_1106_preview.json.gz"),
        *("engine=file", f"engine.path={outputs}/{MODEL}.json.gz"),
    )
    assert len(asked) == 801, "four pairs of answers are equal"
    found = {name.removeprefix("alpaca_eval/"): estimate for name, estimate in metrics.items()}
    assert all(
        found[name].value == pytest.approx(float(row[name]), abs=1e-9) for name in ("win_rate", "discrete_win_rate")
    )
    counts = [round(found[name].value * found[name].n / 100) for name in ("wins", "losses", "draws")]
    assert counts == [int(row[name]) for name in ("n_wins", "n_wins_base", "n_draws")]
    assert found["win_rate"].n == int(row["n_total"]) and int(found["avg_length"].value) == int(row["avg_length"])
    verdicts = read_verdicts(config.folder / VERDICTS)
    from_records = asdict(win_rate([v.score for v in verdicts]))
    assert from_records == {name: pytest.approx(float(row[name]), abs=1e-9) for name in from_records}
    # Published fits have an l1 term, whose weight cannot be known of a new model; this model's is.
    published_rate, control = float(row["length_controlled_winrate"]), read_length_control(reference)
    assert found["length_controlled_win_rate"].value == pytest.approx(published_rate, abs=0.0944)
    indices = {prompt.id: prompt.metadata["index"] for prompt in read_prompts(config.folder / PROMPTS)}
    annotations = [
        Annotation(index=indices[v.prompt], preference=v.score, model_length=v.lengths[0], baseline_length=v.lengths[1])
        for v in verdicts
    ]
    refitted = fit(annotations, control, l1=control.l1[MODEL]).predicted(control.difficulty)
    assert refitted.mean() == pytest.approx(published_rate, abs=0.0117)
