"""Where an evaluation is shown beside its files: W&B, and inspect_ai's log."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from multifaceted.config import build
from multifaceted.evaluation.config import EvalConfig
from multifaceted.evaluation.inspect_log import INSPECT_LOG, inspect_log, write_inspect_log
from multifaceted.evaluation.results import read_results
from multifaceted.evaluation.tracking import ABOUT, response_table, summary_rows, track
from multifaceted.record_files import RecordError, write_json, write_jsonl
from multifaceted.records import (
    PROMPTS,
    RESPONSES,
    RUN,
    SCORES,
    VERDICTS,
    Estimate,
    Prompt,
    Response,
    Scores,
    Verdict,
)
from multifaceted.tracking import Wandb, run_facts
from tests.conftest import composed

ROOT = Path(__file__).parents[2]
METRICS = {
    "koala/score": Estimate(value=3.5, low=3.0, high=4.0, n=2, unscored=1),
    "koala/score/style": Estimate(value=4.0, low=4.0, high=4.0, n=1),
    "koala/score_spread": Estimate(value=None, low=None, high=None, n=0, unscored=2),
}
SAID = {"a": 4, "b": 3, "c": None}


def verdict(name, score, **changes):
    fields = dict(prompt=name, response=name, policy="f", judge="gpt-4", run=0, attempt=1, asked="q", rubric=0)
    return Verdict(**fields | dict(score=score, text=f"It is so. [RESULT] {score}", dimension="style") | changes)


@pytest.fixture
def scores():
    return Scores(task="rubric_koala", policy={"path": "runs/orpo/policy", "fingerprint": "f"}, metrics=METRICS)


@pytest.fixture
def folder(tmp_path, scores):
    """An evaluation of three prompts; the second has two turns, the third was cut and is unscored."""
    prompts = [Prompt(id=name, split="koala", system=f"Be {name}.", instruction=f"Why {name}?") for name in SAID]
    prompts[1].follow_ups = ["And then?"]
    responses = [Response(id=name, text=f"So {name}.", finished=name != "c") for name in SAID]
    responses[1].follow_ups = ["Nothing."]
    write_jsonl(tmp_path / PROMPTS, prompts)
    write_jsonl(tmp_path / RESPONSES, responses)
    write_jsonl(tmp_path / VERDICTS, [verdict(name, score) for name, score in SAID.items()])
    write_json(tmp_path / RUN, {"version": 1, "judge": {"name": "gpt-4"}})
    write_json(tmp_path / SCORES, scores)
    return tmp_path


def test_the_tables_hold_every_metric_and_every_verdict(folder, scores):
    assert summary_rows(scores)[1] == ["koala", "score", "style", 4.0, 4.0, 4.0, 1, 0]
    assert [row[2] for row in summary_rows(scores)] == ["", "style", ""]
    columns, rows = response_table(read_results(folder))
    assert columns[: len(ABOUT)] == list(ABOUT) and all(len(row) == len(columns) for row in rows)
    named = [dict(zip(columns, row, strict=True)) for row in rows]
    assert [row["score"] for row in named] == [4, 3, None] and [row["cut"] for row in named] == [False, False, True]
    assert named[1]["instruction"].split() == ["Why", "b?", "---", "And", "then?"]
    assert named[0]["text"] == "It is so. [RESULT] 4" and named[0]["system"] == "Be a."


def test_a_response_that_nothing_is_said_of_has_a_row(folder):
    write_jsonl(folder / VERDICTS, [verdict("a", 4), verdict("a", 5, run=1)])
    columns, rows = response_table(read_results(folder))
    assert [row[0] for row in rows] == ["a", "a", "b", "c"] and rows[-1][columns.index("score")] is None


def test_a_missing_response_is_refused(folder):
    write_jsonl(folder / RESPONSES, [Response(id="a", text="x", finished=True)])
    with pytest.raises(RecordError, match="lacks the response to 'b' and 1 others"):
        read_results(folder)


def test_wandb_offline_gets_figures_and_tables(folder, scores, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    track(Wandb(project="p"), folder, scores, {"seed": 0})
    (run,) = (folder / "wandb").glob("offline-run-*")
    tables = {path.name.rsplit("_", 2)[0]: json.loads(path.read_text()) for path in run.rglob("*.table.json")}
    assert set(tables) == {"summary", "responses"}
    assert len(tables["responses"]["data"]) == 3 and tables["summary"]["columns"][:2] == ["split", "metric"]
    (binary,) = run.glob("*.wandb")
    assert b"eval/rubric_koala/koala/score/style" in binary.read_bytes()


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("runs/orpo/policy", "orpo"),
        ("outputs/rm/reward_model", "rm"),
        ("mistralai/Mistral-7B-Instruct-v0.2", "mistralai/Mistral-7B-Instruct-v0.2"),
        ("gpt-4", "gpt-4"),
        ("policy", "policy"),
    ],
)
def test_a_run_is_named_by_what_tells_models_apart(path, shown, scores, tmp_path, monkeypatch):
    """Models of one owner on the hub would all have his name."""
    named = []
    monkeypatch.setattr(Wandb, "start", lambda self, folder, name, *others, **more: named.append(name))
    track(Wandb(), tmp_path, replace(scores, policy={"path": path, "fingerprint": "f"}), {})
    assert named == [f"{shown} rubric_koala"]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="the code is in no git checkout")
def test_the_commit_of_the_code_is_a_fact_of_a_run():
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run_facts(0)["git"]["commit"] == head.stdout.strip()


def test_disabled_writes_nothing(folder, scores, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    track(Wandb(), folder, scores, {})
    assert not (folder / "wandb").exists()


def test_inspects_reader_opens_the_log(folder):
    log_module = pytest.importorskip("inspect_ai.log", reason="needs the extra inspect")
    log = log_module.read_eval_log(str(write_inspect_log(folder)))
    assert log.status == "success" and log.eval.task == "rubric_koala" and len(log.samples) == 3
    (scored,) = log.results.scores
    assert {name: metric.value for name, metric in scored.metrics.items()} == {"score": 3.5, "score/style": 4.0}
    by_id = {sample.id: sample for sample in log.samples}
    (name,) = by_id["a"].scores
    assert name == "rubric 1, style, run 1, attempt 1" and by_id["a"].scores[name].value == 4
    assert [message.role for message in by_id["b"].messages] == ["system", "user", "assistant", "user", "assistant"]
    unscored = by_id["c"].scores[name]
    assert unscored.value != unscored.value and unscored.reason == "grader_failed", "not a number"
    assert by_id["c"].output.stop_reason == "max_tokens"


def test_rules_are_scores_of_their_own(folder):
    pytest.importorskip("inspect_ai.log", reason="needs the extra inspect")
    rows = [{"id": name, "split": "koala", "on_topic": True, "satisfied": ["plain"]} for name in SAID]
    write_jsonl(folder / VERDICTS, rows)
    scores = inspect_log(folder).samples[0].scores
    assert scores["on_topic"].value is True and scores["satisfied"].value == '["plain"]'


def test_a_log_is_not_promised_without_inspect(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "inspect_ai.log", None)
    with pytest.raises(ValueError, match=r"pip install --editable '.\[inspect\]'"):
        build(composed("eval", ["policy=x", "inspect_log=true"]), EvalConfig)
    assert INSPECT_LOG == "inspect.eval"
