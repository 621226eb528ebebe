"""Recorded scores of two policies: what is compared, and what cannot be."""

from dataclasses import replace

import pytest

from multifaceted.config import build, to_plain
from multifaceted.evaluation.compare import CompareTask
from multifaceted.evaluation.config import EvalConfig
from multifaceted.evaluation.rubric import RubricTask
from multifaceted.evaluation.run import run
from multifaceted.record_files import RecordError, read_json, read_jsonl, read_prompts, write_json, write_jsonl
from multifaceted.records import PROMPTS, RUN, SCORES, VERDICTS
from multifaceted.tables import score_table
from tests.conftest import composed
from tests.evaluation.test_rubric import DIMENSIONS, bench, evaluated, follows, row, strict

JUDGE = {"name": "rule", "temperature": 1.0}


def short(prompt):
    return "short novice dates calm"


@pytest.fixture
def evaluation(tmp_path):
    """An evaluation's folder, by a judge that follows a rule."""
    path = bench(tmp_path, [row(n) for n in range(9)])

    def make(name, answer, rule=strict, judge=JUDGE, **settings):
        folder = tmp_path / name / "eval" / "rubric"
        evaluated(folder, RubricTask(bench=path, **settings), answer, rule)
        write_json(folder / RUN, read_json(folder / RUN) | {"judge": judge})
        return folder

    return make


def compared(ours, theirs):
    return CompareTask(ours=ours, theirs=theirs).metrics_of_records()


def test_prompts_are_compared_one_by_one(evaluation):
    """Ours pleases every user, theirs one of three; these two are equal there."""
    metrics = compared(evaluation("ours", follows), evaluation("theirs", short))
    found = {name.removeprefix("multifaceted_bench/"): e for name, e in metrics.items() if name.startswith("multi")}
    assert {name: e.value for name, e in found.items()} == pytest.approx(
        {
            **dict.fromkeys(["difference", *(f"difference/{d}" for d in DIMENSIONS)], 8 / 3),
            **{"win": 2 / 3, "tie": 1 / 3, "loss": 0.0, "win_rate": 5 / 6, "tie_win": 1.0, "win_decided": 1.0},
        }
    )
    assert all(e.unscored == 0 for e in found.values()) and found["win_rate"].n == 9 and found["win_decided"].n == 6
    assert found["difference"].low == found["difference"].high, "an instruction's three users are drawn together"
    assert metrics["koala/difference"].n == 6 and metrics["flask/difference"].n == 3


def test_the_other_way_round_everything_is_turned(evaluation):
    ours, theirs = evaluation("ours", follows), evaluation("theirs", short)
    there, back = compared(ours, theirs), compared(theirs, ours)
    for split in ("multifaceted_bench", "koala"):
        assert there[f"{split}/difference"].value == -back[f"{split}/difference"].value
        assert there[f"{split}/win"].value == back[f"{split}/loss"].value
        assert there[f"{split}/win_rate"].value == pytest.approx(1 - back[f"{split}/win_rate"].value)


def test_what_is_unscored_on_one_side_is_counted(evaluation):
    def silent(request):
        return "Hm." if "say novice?" in request.messages[-1]["content"] else strict(request)

    metrics = compared(evaluation("ours", follows), evaluation("theirs", short, silent))
    for name in ("difference", "difference/background_knowledge", "win_rate", "tie"):
        assert (metrics[f"multifaceted_bench/{name}"].n, metrics[f"multifaceted_bench/{name}"].unscored) == (6, 3)
    assert metrics["multifaceted_bench/difference/style"].n == 9


def test_controls_are_not_compared(evaluation):
    ours = evaluation("ours", follows, controls=["without_system", "other"])
    assert compared(ours, evaluation("theirs", short)) == compared(
        evaluation("plain", follows), evaluation("other", short)
    )


def test_another_judge_task_or_bench_is_refused_by_name(evaluation):
    ours = evaluation("ours", follows)
    other = evaluation("judge", short, judge={"name": "rule", "temperature": 0.0, "top_p": 0.9})
    with pytest.raises(RecordError, match=r"different judges: temperature 1\.0 and 0\.0, top_p None and 0\.9\. Judge"):
        compared(ours, other)
    with pytest.raises(RecordError, match=r"of task rubric_multifaceted_bench, and .* of rubric_multifaceted_bench_w"):
        compared(ours, evaluation("system", short, show_system=True))
    theirs = evaluation("theirs", short)
    prompts = read_prompts(theirs / PROMPTS)
    write_jsonl(theirs / PROMPTS, [replace(prompts[0], system="Be long."), *prompts[1:-1]])
    with pytest.raises(RecordError, match=f"differ in 2 of 9 prompts, first '{prompts[0].id}'"):
        compared(ours, theirs)


def test_a_folder_without_scores_is_refused(evaluation, tmp_path):
    ours, theirs = evaluation("ours", follows), evaluation("theirs", short)
    write_jsonl(theirs / VERDICTS, list(read_jsonl(theirs / VERDICTS))[4:])
    with pytest.raises(RecordError, match=r"has no score of prompt .*, and of 1 in all"):
        compared(ours, theirs)
    (theirs / SCORES).unlink()
    with pytest.raises(RecordError, match="is not finished"):
        compared(ours, theirs)
    write_json(theirs / RUN, read_json(theirs / RUN) | {"judge": None})
    with pytest.raises(RecordError, match="holds no verdicts of a judge"):
        compared(ours, theirs)
    with pytest.raises(RecordError, match="does not exist"):
        compared(tmp_path, theirs)


def test_the_app_compares_and_says_who_is_compared(evaluation):
    ours, theirs = evaluation("ours", follows), evaluation("theirs", short)
    config = build(composed("eval", ["task=compare", f"task.ours={ours}", f"task.theirs={theirs}"]), EvalConfig)
    scores = run(config, to_plain(config))
    assert config.folder.parent == ours.parent and scores.policy["fingerprint"] == "f" * 16
    assert scores.task.startswith("compare_rubric_") and read_json(config.folder / SCORES)["task"] == scores.task
    assert "difference" in score_table(scores).splitlines()[1]
    elsewhere = replace(config, task=CompareTask(ours=ours, theirs=ours))
    assert elsewhere.folder != config.folder, "another opponent's figures do not take their place"


def test_a_record_says_what_it_is_about(evaluation):
    ours, theirs = evaluation("ours", follows), evaluation("theirs", short)
    config = build(composed("eval", ["task=compare", f"task.ours={ours}", f"task.theirs={theirs}"]), EvalConfig)

    def record():
        run(config, to_plain(config))
        return read_json(config.folder / RUN)

    before = record()
    assert before["task"] == config.task.name and {*before["sources"]} == {"ours", "theirs"}
    for setting, folder in (("ours", ours), ("theirs", theirs)):
        source = before["sources"][setting]
        assert (source["path"], source["policy"], source["judge"]) == (str(folder), "f" * 16, JUDGE)
    write_jsonl(theirs / VERDICTS, [row | {"text": "Else."} for row in read_jsonl(theirs / VERDICTS)])
    after = record()
    assert after["sources"]["ours"] == before["sources"]["ours"], "and it is written once more into its own folder"
    assert after["sources"]["theirs"]["verdicts_sha256"] != before["sources"]["theirs"]["verdicts_sha256"]


def test_the_app_refuses_what_is_no_evaluation_and_overwrites_none(evaluation, tmp_path):
    ours = evaluation("ours", follows)
    write_json(tmp_path / "run" / RUN, {"version": 1, "command": "python train.py"})
    for overrides, message in (
        ([f"task.ours={tmp_path}/run", f"into={tmp_path}/out"], "run holds no verdicts of a judge"),
        ([f"task.ours={ours}", f"into={ours}"], "holds an evaluation, whose scores.json would be lost"),
    ):
        config = build(composed("eval", ["task=compare", f"task.theirs={ours}", *overrides]), EvalConfig)
        with pytest.raises(RecordError, match=message):
            run(config, to_plain(config))
    assert read_json(ours / SCORES)["task"] == "rubric_multifaceted_bench"
