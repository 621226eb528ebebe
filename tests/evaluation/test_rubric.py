"""Scores by rubric: what is asked, what is averaged, and that the same files give the same scores."""

import gzip
import json
import random
import shutil
from statistics import fmean, stdev

import pytest

from multifaceted.data.bad_rows import DataError
from multifaceted.evaluation.judge import Judge
from multifaceted.evaluation.rubric import RubricTask
from multifaceted.evaluation.rubric_scores import judged
from multifaceted.evaluation.rubrics import LABELS, RubricError, rubric_question, rubrics_of
from multifaceted.evaluation.run import rescore
from multifaceted.evaluation.verdict_end import read_end
from multifaceted.evaluation.verdict_log import VerdictLog
from multifaceted.record_files import read_jsonl, write_json, write_jsonl
from multifaceted.records import PROMPTS, RESPONSE_SCORES, RESPONSES, RUN, SCORES, VERDICTS, Prompt, Response, Verdict
from tests.data.benches.fixtures import RUBRIC, biggen_bench, write_bench
from tests.evaluation.engines import RuleEngine, section
from tests.evaluation.injections import RAW

DIMENSIONS = ("style", "background_knowledge", "informativeness", "harmlessness")
WORDS = {
    "style": ("short", "long", "rhymed"),
    "background_knowledge": ("novice", "expert", "teacher"),
    "informativeness": ("dates", "names", "places"),
    "harmlessness": ("calm", "frank", "gentle"),
}
"""Three users' wants; a response meets one where it has the word."""


def row(number):
    """Rows of three users for each instruction, the columns as published."""
    instruction, user = divmod(number, 3)
    wants = [(dimension, WORDS[dimension][user]) for dimension in DIMENSIONS]
    return {
        "source": ("koala", "flask")[instruction % 2],
        "preference_set": [
            {"dimension": d, "subdimension": d, "preference": word, "description": f"Wants it {word}."}
            for d, word in wants
        ],
        "system": " ".join(f"Make it {word}." for _, word in wants),
        "prompt": f"What is rain, part {instruction}?",
        "reference_answer": " ".join(word for _, word in wants),
        "rubrics": [
            {"criteria": f"Does it say {word}?", "score_descriptions": RUBRIC["score_descriptions"]}
            for _, word in wants
        ],
    }


def bench(tmp_path, rows):
    return write_bench(tmp_path, "multifaceted_bench", rows)


def follows(prompt):
    """A response that says every word of its system message, and otherwise nothing of interest."""
    return f"Rain falls. {prompt.system or ''}"


def strict(request):
    """A judge that gives a 5 where the response has the rubric's word, else a 1."""
    word = section(request, "Rubric").splitlines()[0].split()[-1].rstrip("?")
    said = word in section(request, "Response to assess")
    return f"Feedback: It does{'' if said else ' not'} say it. [RESULT] {5 if said else 1}"


def evaluated(folder, task, answer, rule, *, runs=1, retries=0):
    """The files of an evaluation, made with a judge that follows a rule, and its scores."""
    prompts = task.prompts(0)
    responses = [Response(id=p.id, text=answer(p), finished=True) for p in prompts]
    write_json(folder / RUN, {"version": 1, "policy": "f" * 16, "policy_path": "policy"})
    write_jsonl(folder / PROMPTS, prompts)
    write_jsonl(folder / RESPONSES, responses)
    engine = RuleEngine(rule)
    questions = task.questions(prompts, {r.id: r for r in responses})
    log = VerdictLog(folder / VERDICTS)
    Judge(name="strict", engine=engine, runs=runs, retries=retries).answer(questions, log, "f" * 16, 0)
    return rescore(folder, task).metrics, engine


def test_averages_by_response_dimension_benchmark_and_model(tmp_path):
    task = RubricTask(bench=bench(tmp_path, [row(n) for n in range(9)]))
    metrics, engine = evaluated(tmp_path / "out", task, lambda prompt: "short novice dates calm", strict)
    assert len(engine.asked) == 9 * 4
    assert metrics["multifaceted_bench/score"].value == pytest.approx(1 + 4 / 3), "one user of three gets all"
    assert (
        metrics["multifaceted_bench/score"].n == 9 and metrics["koala/score"].n == 6 and metrics["flask/score"].n == 3
    )
    assert metrics["flask/score/style"].value == pytest.approx(7 / 3)
    assert set(DIMENSIONS) == {key.split("/")[2] for key in metrics if key.startswith("koala/score/")}
    assert metrics["multifaceted_bench/score"].low == metrics["multifaceted_bench/score"].high, (
        "each instruction has the same three users, so instructions do not differ"
    )


def test_runs_are_averaged_and_their_spread_is_told(tmp_path):
    task = RubricTask(bench=bench(tmp_path, [row(n) for n in range(3)]))
    metrics, _ = evaluated(tmp_path / "out", task, follows, lambda r: f"[RESULT] {(2, 3, 5)[r.sample % 1000]}", runs=3)
    bench_metrics = {name: metrics[f"multifaceted_bench/{name}"].value for name in ("score", "score_spread")}
    assert bench_metrics == pytest.approx({"score": 10 / 3, "score_spread": stdev([2, 3, 5])})
    assert [metrics[f"multifaceted_bench/score_run_{n}"].value for n in (1, 2, 3)] == [2.0, 3.0, 5.0]


def test_every_response_has_its_averages_and_they_make_the_models(tmp_path):
    """One rubric of the first prompt is never scored; another response is empty."""
    task = RubricTask(bench=bench(tmp_path, [row(n) for n in range(4)]))
    first, second, *_ = task.prompts(0)

    def rule(request):
        return "I cannot." if json.loads(request.id)[:3] == [first.id, first.id, 2] else strict(request)

    metrics, _ = evaluated(tmp_path / "out", task, lambda p: "" if p.id == second.id else "short dates", rule, runs=2)
    rows = list(read_jsonl(tmp_path / "out" / RESPONSE_SCORES))
    assert [line["id"] for line in rows] == [prompt.id for prompt in task.prompts(0)]
    assert rows[0]["score"] is None and rows[0]["by_rubric"][2] is None and rows[0]["by_rubric"].count(None) == 1
    assert (rows[0]["verdicts"], rows[0]["unscored"], rows[0]["empty"]) == (8, 2, False)
    assert (rows[1]["score"], rows[1]["empty"], set(rows[1]["by_dimension"])) == (1.0, True, set(DIMENSIONS))
    score = metrics["multifaceted_bench/score"]
    assert (score.n, score.unscored) == (3, 1)
    assert score.value == pytest.approx(sum(line["score"] for line in rows[1:]) / 3)


def test_the_spread_between_runs_is_that_of_the_judge(tmp_path):
    """What a rule decides is the same in every run, and one run has no spread."""
    task = RubricTask(bench=bench(tmp_path, [row(n) for n in range(6)]))

    def answer(prompt):
        return "" if "short" in prompt.system else "Rain."

    metrics, _ = evaluated(tmp_path / "out", task, answer, lambda r: f"[RESULT] {2 + 2 * (r.sample % 1000)}", runs=2)
    spread = metrics["multifaceted_bench/score_spread"]
    assert (spread.value, spread.n, spread.unscored) == (pytest.approx(stdev([2, 4])), 4, 0)
    once, _ = evaluated(tmp_path / "once", task, answer, lambda r: "[RESULT] 2")
    assert not any(name.endswith("score_spread") for name in once)


def test_an_unscored_verdict_is_counted_and_never_zero(tmp_path):
    task = RubricTask(bench=bench(tmp_path, [row(n) for n in range(3)]))

    def rule(request):
        return "No idea." if "say novice?" in section(request, "Rubric") else "[RESULT] 4"

    metrics, engine = evaluated(tmp_path / "out", task, follows, rule, runs=2, retries=3)
    assert len(engine.asked) == 24 + 2 * 3
    score = metrics["multifaceted_bench/score"]
    assert (score.value, score.n, score.unscored) == (4.0, 2, 1), "a mean of fewer rubrics is another quantity"
    knowledge = metrics["multifaceted_bench/score/background_knowledge"]
    assert (knowledge.value, knowledge.n, knowledge.unscored) == (4.0, 2, 1)
    assert metrics["multifaceted_bench/unscored"].value == pytest.approx(2 / 24)


def test_one_run_without_a_verdict_leaves_the_mean_of_the_others(tmp_path):
    task = RubricTask(bench=bench(tmp_path, [row(0)]))
    metrics, _ = evaluated(
        tmp_path / "out", task, follows, lambda r: "Hm." if r.sample == 1 else f"[RESULT] {r.sample + 1}", runs=3
    )
    assert metrics["multifaceted_bench/score"].value == 2.0
    assert metrics["multifaceted_bench/score_run_2"].value is None


def test_an_empty_response_gets_the_lowest_score_by_rule_and_is_counted(tmp_path):
    task = RubricTask(bench=bench(tmp_path, [row(n) for n in range(3)]))
    metrics, engine = evaluated(
        tmp_path / "out", task, lambda p: "" if "short" in p.system else "Rain.", lambda r: "[RESULT] 5", runs=2
    )
    assert len(engine.asked) == 2 * 4 * 2
    assert metrics["multifaceted_bench/empty"].value == pytest.approx(1 / 3)
    assert metrics["multifaceted_bench/score"].value == pytest.approx(11 / 3)
    assert metrics["multifaceted_bench/unscored"].value == 0.0


def test_responses_that_dictate_their_score_get_what_the_judge_gives(tmp_path):
    task = RubricTask(bench=bench(tmp_path, [row(n) for n in range(len(RAW))]))
    texts = iter(RAW.values())

    def quoting(request):
        response = section(request, "Response to assess")
        return f"Feedback: The response reads:\n{response}\nThat does not answer anything. [RESULT] 2"

    metrics, _ = evaluated(tmp_path / "out", task, lambda prompt: next(texts), quoting)
    assert len(RAW) >= 30
    assert {metrics[f"multifaceted_bench/{name}"].value for name in ("score", "score_run_1")} == {2.0}
    assert metrics["multifaceted_bench/unscored"].value == 0.0


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"3": ""}, r"rubric 1 \('Does it say novice\?'\) lacks a description of 3"),
        ({"3": "", "5": " "}, "lacks a description of 3, 5; a rubric describes the scores 1 to 5"),
    ],
)
def test_a_rubric_without_five_levels_is_refused_by_name(tmp_path, change, problem):
    broken = row(0)
    broken["rubrics"][1] = {**broken["rubrics"][1], "score_descriptions": RUBRIC["score_descriptions"] | change}
    with pytest.raises(RubricError, match=problem):
        RubricTask(bench=bench(tmp_path, [row(1), broken])).prompts(0)


def test_levels_beyond_five_missing_ones_and_no_rubrics_are_refused(tmp_path):
    def prompt(*rubrics):
        return Prompt(id="p7", split="bench", system=None, instruction="?", metadata={"rubrics": list(rubrics)})

    six = {"criteria": "Is it?", "score_descriptions": RUBRIC["score_descriptions"] | {"6": "More."}}
    with pytest.raises(RubricError, match=r"prompt 'p7', rubric 0 \('Is it\?'\) describes 6"):
        rubrics_of(prompt(six))
    with pytest.raises(RubricError, match="lacks a description of 1, 2, 3, 4, 5"):
        rubrics_of(prompt({"criteria": "Is it?", "score_descriptions": {}}))
    with pytest.raises(RubricError, match="prompt 'p7' has no rubrics"):
        RubricTask().questions([prompt()], {})
    del (lacking := row(0))["rubrics"][0]["score_descriptions"]
    with pytest.raises(DataError, match="score_descriptions"):
        RubricTask(bench=bench(tmp_path, [lacking])).prompts(0)
    assert RubricTask(show_system=True).name == f"{RubricTask().name}_with_system"
    with pytest.raises(ValueError, match="reader is 'koala'; benches with rubrics are multifaceted_bench, big"):
        RubricTask(reader="koala")


def test_rescoring_gives_the_same_bytes_in_whatever_order_verdicts_arrived(tmp_path):
    task = RubricTask(bench=bench(tmp_path, [row(n) for n in range(6)]), controls=["other", "flip"])
    folder, draw = tmp_path / "out", random.Random(0)
    evaluated(folder, task, follows, lambda r: draw.choice(["[RESULT] 1", "[RESULT] 4", "Hm."]), runs=2, retries=1)
    first = (folder / SCORES).read_bytes()
    lines = (folder / VERDICTS).read_text().splitlines(keepends=True)
    random.Random(1).shuffle(lines)
    moved = shutil.copytree(folder, tmp_path / "elsewhere")
    (moved / VERDICTS).write_text("".join(lines))
    (moved / SCORES).unlink()
    (tmp_path / "rows.jsonl").unlink()
    rescore(moved, task)
    assert (moved / SCORES).read_bytes() == first


def test_controls_by_a_judge_move_what_was_asked_for(tmp_path):
    controls = ["other", "without_system", "flip", "irrelevant"]
    task = RubricTask(bench=bench(tmp_path, [row(n) for n in range(12)]), controls=controls)
    metrics, engine = evaluated(tmp_path / "out", task, follows, strict)
    prompts = task.prompts(0)
    assert len({p.id for p in prompts}) == len(prompts) == 12 * 5, "bench, without, stated, irrelevant, flip"
    assert len(engine.asked) == 12 * (5 * 4 + 1 + 4), "and the stated response by what came in, and by another's"
    assert metrics["multifaceted_bench/score"].value == 5.0 and metrics["multifaceted_bench/score"].n == 12
    assert metrics["multifaceted_bench/score_by_others"].value == 1.0
    for asked in DIMENSIONS:
        row_of_matrix = {d: metrics[f"multifaceted_bench/moved_{asked}/{d}"].value for d in DIMENSIONS}
        assert row_of_matrix == {d: 4.0 if d == asked else 0.0 for d in DIMENSIONS}
        assert metrics[f"multifaceted_bench/moved_without_system/{asked}"].value == -4.0
        assert metrics[f"multifaceted_bench/moved_irrelevant/{asked}"].value == 0.0
    deaf, _ = evaluated(tmp_path / "deaf", task, lambda prompt: "short novice dates calm", strict)
    moved = [estimate.value for name, estimate in deaf.items() if "/moved_" in name]
    assert set(moved) == {0.0}, "a policy that ignores its system message is not moved"


def wanting(number, style=None, tone=None):
    """A prompt of one instruction whose user wants something in two dimensions, or in one."""
    wants = [(d, word) for d, word in (("style", style), ("harmlessness", tone)) if word]
    return row(0) | {
        "preference_set": [
            {"dimension": d, "subdimension": d, "preference": word, "description": f"Wants it {word}."}
            for d, word in wants
        ],
        "system": f"User {number}.",
        "reference_answer": f"An answer for {number}.",
        "rubrics": [
            {"criteria": f"Does it say {word}?", "score_descriptions": RUBRIC["score_descriptions"]}
            for _, word in wants
        ],
    }


@pytest.mark.parametrize(
    ("users", "expected"),
    [
        ([("a", "b"), ("c", "d")], [(0, "c"), (1, "b")]),
        ([("a", "b"), ("a", "d")], [(1, "d"), (1, "b")]),  # the style is the same: the next dimension
        ([("a", "b"), ("a", "d"), ("c", "b")], [(0, "c"), (1, "b"), (0, "a")]),  # or the user after the next
        ([("a", "b"), (None, "d")], [(1, "d"), (0, "b")]),  # who states no style
        ([("a", "b"), ("a", "b")], []),
        ([("a", None), (None, "b")], []),
        ([("a", "b")], []),
    ],
)
def test_a_flip_brings_in_what_another_user_wants_and_this_one_does_not(tmp_path, caplog, users, expected):
    caplog.set_level("INFO")
    rows = [wanting(number, *wants) for number, wants in enumerate(users)]
    prompts = RubricTask(bench=bench(tmp_path, rows), controls=["flip"]).prompts(0)
    flips = [p for p in prompts if p.split == "flip"]
    assert [(p.metadata["flipped_place"], p.metadata["flipped"]) for p in flips] == expected
    stated = {p.id.removeprefix("stated-"): p for p in prompts if p.split == "stated"}
    for flip in flips:
        before, place = stated[flip.id.removeprefix("flip-")], flip.metadata["flipped_place"]
        assert flip.system != before.system and rubrics_of(flip)[place].criteria.endswith(
            f"{flip.metadata['flipped']}?"
        )
        assert rubrics_of(flip)[place].reference != before.metadata["reference_answer"]
    left_out = len(users) - len(expected)
    assert (f"flip leaves out {left_out} of {len(users)} prompts" in caplog.text) == bool(left_out)


def test_a_flip_in_a_dimension_of_two_rubrics_is_about_the_one_that_came_in(tmp_path):
    """The response follows every wish for style but one, which says nothing of the flip."""

    def two(first, second):
        wanted = wanting(first, first, second)
        for preference in wanted["preference_set"]:
            preference["dimension"] = "style"
        return wanted

    task = RubricTask(bench=bench(tmp_path, [two("a1", "b"), two("a2", "b")]), controls=["flip"])

    def answer(prompt):
        return " ".join(p.preference for p in prompt.preferences if p.preference != "b")

    metrics, _ = evaluated(tmp_path / "out", task, answer, strict)
    moved = metrics["multifaceted_bench/moved_style/style"]
    assert (moved.value, moved.n) == (4.0, 2)


def test_controls_need_a_preference_for_each_rubric(tmp_path):
    path = write_bench(tmp_path, "biggen_bench", [biggen_bench(number) for number in range(3)])
    assert len(RubricTask(bench=path, reader="biggen_bench").prompts(0)) == 3
    with pytest.raises(RubricError, match="of biggen_bench does not state a preference for each rubric"):
        RubricTask(bench=path, reader="biggen_bench", controls=["flip"]).prompts(0)


def verdict_of(name, run, text, score):
    return Verdict(
        prompt=name,
        response=name,
        policy="p",
        judge="j",
        run=run,
        score=score,
        text=text,
        attempt=1,
        asked="",
        rubric=0,
    )


def rows_in(path):
    return json.loads(gzip.decompress(path.read_bytes()))


OWN_ROWS = [
    {
        "instruction": "###The instruction to evaluate:\nWhat is rain?\n\n###Response to evaluate:\nWater.\n\n"
        "###Reference Answer (Score 5):\nWater from clouds.\n\n###Score Rubrics:\n[Does it say where from?]\n"
        + "\n".join(f"Score {n}: Worth {n}." for n in range(1, 6))
        + "\n\n###Feedback: ",
        "gpt4_score": [1, 2, 2],
        "gpt4_feedback": [
            "It leaves out the clouds. [RESULT] Score: 1.",
            "It does not meet the criteria for a score of 5.",
            "It is short.\n###Score: 2",
        ],
    }
]
"""A row in the columns of the published verdicts."""


def parts(row):
    """The sections of a published prompt: instruction, response, reference, rubric."""
    return [part.split(":\n", 1)[-1].strip() for part in row["instruction"].split("###")[-5:-1]]


def check_verdicts(rows):
    """Scores as recorded are read from text that has its end, and averaged; the means and spreads of the responses."""
    verdicts = []
    for place, row in enumerate(rows):
        for run, (text, score) in enumerate(zip(row["gpt4_feedback"], row["gpt4_score"], strict=True)):
            assert read_end(text, LABELS) in (None, score)
            ended = text if read_end(text, LABELS) else f"Feedback: {text} [RESULT] {score}"
            verdicts.append(verdict_of(f"{place:03}", run, ended, read_end(ended, LABELS, parts(row)[1:2])))
    assert [v.score for v in verdicts] == [score for row in rows for score in row["gpt4_score"]]
    by_response = judged(verdicts)
    means = [entry.mean() for entry in by_response.values()]
    assert means == pytest.approx([fmean(row["gpt4_score"]) for row in rows])
    spreads = [entry.spread() for entry in by_response.values()]
    assert spreads == pytest.approx([stdev(row["gpt4_score"]) for row in rows])
    return means, spreads


def check_material(rows):
    """The sections of published prompts, in our form, come to the same rubric."""
    for row in rows:
        instruction, response, reference, rubric = parts(row)
        criteria, *levels = rubric.splitlines()
        described = {str(n): level.split(": ", 1)[1] for n, level in enumerate(levels, start=1)}
        rubrics = [{"criteria": criteria.strip("[]"), "score_descriptions": described}]
        metadata = {"rubrics": rubrics, "reference_answer": reference}
        prompt = Prompt(id="p", split="bench", system=None, instruction=instruction, metadata=metadata)
        answer = Response(id="p", text=response, finished=True)
        (found,) = rubrics_of(prompt)
        asked = rubric_question(prompt, 0, found, prompt, answer)
        assert section(asked, "Rubric") == rubric.replace("[", "").replace("]", "")
        assert section(asked, "Response to assess") == response


def test_verdicts_and_prompts_in_the_published_columns():
    means, spreads = check_verdicts(OWN_ROWS)
    assert means == pytest.approx([5 / 3]) and spreads == pytest.approx([stdev([1, 2, 2])])
    check_material(OWN_ROWS)


def test_published_verdicts_are_read_and_averaged(shared):
    """Of 960 verdicts that GPT-4 wrote, one still has its end; the others' scores were cut off and kept beside them."""
    rows = rows_in(shared("rubric_judging/mt_bench_eval.json.gz"))
    whole = [text for row in rows for text in row["gpt4_feedback"] if read_end(text, LABELS)]
    assert len(whole) == 1 and sum(len(row["gpt4_feedback"]) for row in rows) == 960
    means, spreads = check_verdicts(rows)
    assert fmean(means) == pytest.approx(3.48854, abs=1e-5) and fmean(spreads) == pytest.approx(0.36246, abs=1e-5)
    check_material(rows)


def test_published_rubrics_are_asked(shared, tmp_path):
    path = shared("rubric_judging/biggen_bench_sample_evals.json.gz")
    raw = rows_in(path)
    task = RubricTask(bench=path, reader="biggen_bench")
    prompts = task.prompts(0)
    responses = {p.id: Response(id=p.id, text=p.metadata["reference_answer"], finished=True) for p in prompts}
    questions = task.questions(prompts, responses)
    assert len(questions) == len(raw) == 695
    for question in questions:
        assert raw[question.prompt]["score_rubric"]["criteria"] in question.messages[1]["content"]
