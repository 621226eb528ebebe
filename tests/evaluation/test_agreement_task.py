"""Two judges on the same responses, and a judge and people: what is paired, counted, left out and refused."""

import hashlib
import json
from dataclasses import replace

import pytest

from multifaceted.config import build, to_plain
from multifaceted.data.bad_rows import DataError
from multifaceted.evaluation.agreement import COEFFICIENTS, Level
from multifaceted.evaluation.agreement_task import AgreementTask
from multifaceted.evaluation.config import EvalConfig
from multifaceted.evaluation.labels import read_labels
from multifaceted.evaluation.rubric import RubricTask
from multifaceted.evaluation.run import run
from multifaceted.record_files import RecordError, read_json, read_jsonl, read_prompts, write_json, write_jsonl
from multifaceted.records import PROMPTS, RESPONSES, RULE, RUN, SCORES, VERDICTS, Prompt, Response, Verdict
from multifaceted.tables import score_table
from tests.conftest import composed
from tests.evaluation.engines import section
from tests.evaluation.test_pairwise import compared, longer
from tests.evaluation.test_rubric import DIMENSIONS, WORDS, bench, evaluated, follows, row, strict

BENCH = "multifaceted_bench"


@pytest.fixture
def evaluation(tmp_path):
    """An evaluation's folder, by a judge that follows a rule."""
    path = bench(tmp_path, [row(n) for n in range(9)])

    def make(name, rule, answer=follows, **settings):
        folder = tmp_path / name / "rubric"
        evaluated(folder, RubricTask(bench=path), answer, rule, **settings)
        write_json(folder / RUN, read_json(folder / RUN) | {"judge": {"name": name}})
        return folder

    return make


def by_dimension(request):
    """Strict about style, and content with everything else."""
    criteria = section(request, "Rubric").splitlines()[0]
    return strict(request) if any(word in criteria for word in WORDS["style"]) else "[RESULT] 4"


def by_run(*scores):
    return lambda request: f"[RESULT] {scores[request.sample % 1000]}"


def agreed(first, second):
    return AgreementTask(first=first, second=second).metrics_of_records()


def test_two_judges_by_benchmark_and_dimension(evaluation):
    def some(prompt):
        return "short novice"

    metrics = agreed(evaluation("a", strict, some), evaluation("b", by_dimension, some))
    style, tone = (metrics[f"{BENCH}/equal/{d}"] for d in ("style", "harmlessness"))
    assert (style.value, style.n, style.unscored) == (1.0, 9, 0)
    assert tone.value == 0.0 and metrics[f"{BENCH}/equal"].n == 36
    names = {"equal", *COEFFICIENTS[Level.ORDINAL]}
    assert {*metrics} == {
        f"{split}/{name}{suffix}"
        for split in (BENCH, "koala", "flask")
        for name in names
        for suffix in ("", *(f"/{d}" for d in DIMENSIONS))
    }
    assert metrics[f"{BENCH}/kappa/style"].value == 1.0
    assert metrics[f"{BENCH}/kappa/harmlessness"].value == 0.0, "each gives all the same, and not that of the other"
    assert metrics["koala/equal"].n == 24


def test_each_run_of_one_is_paired_with_each_of_the_other(evaluation):
    first = evaluation("a", by_run(2, 3, 4), runs=3)
    metrics = agreed(first, evaluation("b", by_run(3, 5), runs=2))
    equal = metrics[f"{BENCH}/equal"]
    assert (equal.value, equal.n) == (pytest.approx(1 / 6), 36 * 6), "of all pairs of runs one is (3, 3)"
    same = agreed(first, first)[f"{BENCH}/equal"]
    assert same.value == pytest.approx(1 / 3) and same.low == same.high


def test_what_one_of_them_lacks_is_unscored(evaluation):
    def silent(request):
        return "Hm." if "say novice?" in section(request, "Rubric") else strict(request)

    first, second = evaluation("a", strict), evaluation("b", silent)
    prompts = read_prompts(second / PROMPTS)
    write_jsonl(second / PROMPTS, prompts[:-1])
    write_jsonl(second / VERDICTS, [v for v in read_jsonl(second / VERDICTS) if v["prompt"] != prompts[-1].id])
    for ours, theirs in ((first, second), (second, first)):
        equal = agreed(ours, theirs)[f"{BENCH}/equal"]
        assert (equal.value, equal.n, equal.unscored) == (1.0, 36 - 3 - 4, 3 + 4)


def test_what_a_rule_decided_is_no_agreement(evaluation, caplog):
    caplog.set_level("INFO")

    def answer(prompt):
        return "" if "short" in prompt.system else "Rain."

    first = evaluation("a", by_run(2), answer)
    second = evaluation("b", by_run(3), answer)
    equal = agreed(first, second)[f"{BENCH}/equal"]
    assert (equal.value, equal.n, equal.unscored) == (0.0, 6 * 4, 0)
    assert "12 ratings that a rule decided are left out" in caplog.text


def test_other_responses_are_refused_and_other_questions_are_told(evaluation, caplog):
    first, second = evaluation("a", strict), evaluation("b", strict)
    rows = list(read_jsonl(second / VERDICTS))
    write_jsonl(second / VERDICTS, [rows[0] | {"asked": "else"}, *rows[1:]])
    agreed(first, second)
    assert "1 verdicts answer another question" in caplog.text
    responses = list(read_jsonl(second / RESPONSES))
    write_jsonl(second / RESPONSES, [responses[0] | {"text": "Else."}, *responses[1:]])
    with pytest.raises(
        RecordError, match=r"1 of 9 prompts have another response, first .*\. Have the other judge read"
    ):
        agreed(first, second)
    prompts = read_prompts(second / PROMPTS)
    write_jsonl(second / RESPONSES, responses)
    write_jsonl(second / PROMPTS, [replace(prompts[0], metadata={}), *prompts[1:]])
    with pytest.raises(RecordError, match="1 of 9 prompts have another response"):
        agreed(first, second)
    write_jsonl(second / PROMPTS, [replace(prompt, id=f"{prompt.id}-b") for prompt in prompts])
    with pytest.raises(RecordError, match="no prompt is in both"):
        agreed(first, second)


@pytest.fixture
def labels(tmp_path):
    def write(rows, suffix="jsonl"):
        path = tmp_path / f"labels.{suffix}"
        if suffix == "csv":
            lines = [",".join(rows[0]), *(",".join(str(value) for value in row.values()) for row in rows)]
            path.write_text("\n".join(lines) + "\n")
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_a_judge_and_people(evaluation, labels, suffix):
    """Two people about one rubric, one about another, and one who could not tell."""
    first = evaluation("a", by_run(2, 3), runs=2)
    one, two, *_ = (prompt.id for prompt in read_prompts(first / PROMPTS))
    rows = [
        {"prompt": one, "rubric": 0, "score": 2},
        {"prompt": one, "rubric": 0, "score": 4},
        {"prompt": one, "rubric": 1, "score": 3.0},
        {"prompt": two, "rubric": 3, "score": ""},
    ]
    metrics = agreed(first, labels(rows, suffix))
    equal = metrics[f"{BENCH}/equal"]
    assert (equal.value, equal.n) == (pytest.approx(2 / 6), 2 * 2 + 2), "one equal run each of 2 and of 3"
    assert equal.unscored == 2 * (36 - 2), "every other verdict"
    assert metrics[f"{BENCH}/equal/harmlessness"].value is None


@pytest.mark.parametrize(
    ("task", "good", "bad", "expected"),
    [
        ("rubric_mini", "5", "6", "1 to 5"),
        ("mt_bench", "10", "10.5", "1 to 10"),
        ("alpaca_eval", "1.5", "0", "1 to 2"),
        ("pairwise", "both_bad", "Win", "one of win, tie, both_bad, loss"),
        ("pairwise_preferences", "loss", "1", "one of win, tie, both_bad, loss"),
    ],
)
def test_a_label_is_on_the_scale_of_the_judge(labels, task, good, bad, expected):
    rows = [{"prompt": "p", "score": score} for score in (good, "", bad)]
    first, empty = (label.score for label in read_labels(labels(rows[:2], "csv"), task))
    assert str(first) == str(type(first)(good)) and empty is None
    with pytest.raises(
        DataError, match=rf"labels\.csv, line 4: score is '{bad}'; expected .*{expected}.*; correct the file"
    ):
        read_labels(labels(rows, "csv"), task)


@pytest.mark.parametrize(
    ("change", "error", "problem"),
    [
        ({"rubric": 7}, RecordError, r"has a label of prompt '.*', rubric 7, of which .* has no verdict"),
        ({"prompt": "else"}, RecordError, "has a label of prompt 'else', rubric 0, of which"),
        ({"rubric": None}, RecordError, "has 4 rubrics; say in the column rubric, from 0, which"),
        ({"rubric": 0.5}, DataError, "rubric is 0.5; expected a place from 0"),
        (
            {"score": 70},
            DataError,
            r"labels\.jsonl, line 1: score is '70'; expected a number from 1 to 5, the judge's scale",
        ),
        ({"score": 0.9}, DataError, "score is '0.9'; expected a number from 1 to 5"),
        ({"score": "nan"}, DataError, "score is 'nan'; expected a number from 1 to 5"),
        ({"score": "win"}, DataError, "score is 'win'; expected a number from 1 to 5"),
        ({"prompt": None}, DataError, r"prompt is empty; .*correct the file, or leave such rows out$"),
    ],
)
def test_what_is_no_label_is_refused(evaluation, labels, change, error, problem):
    first = evaluation("a", strict)
    row = {"prompt": read_prompts(first / PROMPTS)[0].id, "rubric": 0, "score": 3}
    with pytest.raises(error, match=problem):
        agreed(first, labels([row | change]))


def test_a_label_of_a_control_is_refused_as_such(labels, tmp_path):
    folder = tmp_path / "c" / "rubric"
    evaluated(folder, RubricTask(bench=bench(tmp_path, [row(0)]), controls=["without_system"]), follows, strict)
    write_json(folder / RUN, read_json(folder / RUN) | {"judge": {"name": "c"}})
    control = next(prompt.id for prompt in read_prompts(folder / PROMPTS) if prompt.split == "without_system")
    with pytest.raises(RecordError, match=f"prompt '{control}', rubric 0, which is a control: those are left out; lea"):
        agreed(folder, labels([{"prompt": control, "rubric": 0, "score": 3}]))


def test_a_file_in_the_place_of_the_folder_is_told(evaluation, labels):
    folder, people = evaluation("a", strict), labels([{"prompt": "p", "score": 3}])
    with pytest.raises(RecordError, match=f"is a file; name .*, and swap the two: task.first={folder} task.second="):
        agreed(people, folder)
    with pytest.raises(RecordError, match=r"is a file; name the folder of a judged evaluation$"):
        agreed(people, people)


def test_a_file_without_scores_is_refused(evaluation, labels, tmp_path):
    first = evaluation("a", strict)
    with pytest.raises(DataError, match="no 'score'; found 'prompt', 'rubric', 'points'; leave it empty"):
        agreed(first, labels([{"prompt": "p", "rubric": 0, "points": 3}]))
    with pytest.raises(DataError, match=r"nobody\.csv does not exist"):
        agreed(first, tmp_path / "nobody.csv")


def test_outcomes_of_pairs_are_names(tmp_path, labels):
    """One judge takes the longer response and the other one the first; people say it once for both orders."""
    ours, theirs = ["aaa", "a", "bb", ""], ["b", "bbb", "aa", "b"]
    for name, rule in (("a", longer), ("b", lambda request: "[RESULT] first")):
        (tmp_path / name).mkdir()
        compared(tmp_path / name, ours, theirs, rule)
        write_json(tmp_path / name / "out" / RUN, read_json(tmp_path / name / "out" / RUN) | {"judge": {"name": name}})
    first, second = (tmp_path / name / "out" for name in "ab")
    metrics = agreed(first, second)
    assert {name for name in metrics if name.startswith("bench/")} == {
        *("bench/equal", "bench/kappa", "bench/nominal_alpha")
    }
    equal = metrics["bench/equal"]
    assert (equal.value, equal.n, equal.unscored) == (pytest.approx(1 / 3), 6, 0), "the empty response is left out"
    people = labels([{"prompt": "p0", "score": "win"}, {"prompt": "p1", "score": "both_bad"}])
    equal = agreed(first, people)["bench/equal"]
    assert (equal.value, equal.n, equal.unscored) == (0.5, 4, 2)


def test_what_a_rule_decided_is_left_out_though_no_response_was_empty(tmp_path):
    """AlpacaEval's equal answers are a draw by rule, on which no two judges can disagree."""
    draw = Verdict(
        **dict(prompt="p", response="p", policy="f", judge=RULE, run=0, score=1.5, text="", attempt=0, asked="q"),
        order="policy_first",
    )
    for name, score in (("a", 1.2), ("b", 1.8)):
        said = replace(draw, prompt="s", response="s", judge=name, score=score, attempt=1)
        folder = tmp_path / name
        write_jsonl(folder / PROMPTS, [Prompt(id=id_, split="x", system=None, instruction=id_) for id_ in "ps"])
        write_jsonl(folder / RESPONSES, [Response(id=id_, text="Yes.", finished=True) for id_ in "ps"])
        write_jsonl(folder / VERDICTS, [draw, said])
        write_json(folder / RUN, {"judge": {"name": name}})
        write_json(folder / SCORES, {"task": "alpaca_eval"})
    equal = agreed(tmp_path / "a", tmp_path / "b")["x/equal"]
    assert (equal.value, equal.n) == (0.0, 1)


def test_the_app_writes_scores_beside_the_first(evaluation, labels):
    first, second = evaluation("a", strict), evaluation("b", by_dimension)
    config = build(composed("eval", ["task=agreement", f"task.first={first}", f"task.second={second}"]), EvalConfig)
    scores = run(config, to_plain(config))
    assert config.folder.parent == first.parent and scores.task.startswith("agreement_rubric_")
    assert read_json(config.folder / SCORES)["metrics"][f"{BENCH}/equal"]["n"] == 36
    assert "quadratic_kappa" in score_table(scores).splitlines()[1]


def test_a_record_says_which_labels_were_compared(evaluation, labels):
    first = evaluation("a", strict)
    people = labels([{"prompt": read_prompts(first / PROMPTS)[0].id, "rubric": 0, "score": 3}])
    config = build(composed("eval", ["task=agreement", f"task.first={first}", f"task.second={people}"]), EvalConfig)
    run(config, to_plain(config))
    digest = hashlib.sha256(people.read_bytes()).hexdigest()
    sources = read_json(config.folder / RUN)["sources"]
    assert sources["second"] == {"path": str(people), "sha256": digest}
    assert (sources["first"]["path"], sources["first"]["judge"]) == (str(first), {"name": "a"})
