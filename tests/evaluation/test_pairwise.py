"""Comparisons of two responses: both orders, strict ends, and the paper's rates."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multifaceted.evaluation.controls import without_system
from multifaceted.evaluation.judge import Judge
from multifaceted.evaluation.pairwise import LABELS, Choice, Order, PairwiseTask, pair_question
from multifaceted.evaluation.run import rescore
from multifaceted.evaluation.verdict_end import read_end
from multifaceted.evaluation.verdict_log import VerdictLog
from multifaceted.evaluation.win_rates import (
    Comparison,
    Outcome,
    judge_metrics,
    outcome_of_scores,
    preference,
    win_rates,
)
from multifaceted.inference.requests import EngineError
from multifaceted.record_files import RecordError, read_jsonl, write_json, write_jsonl
from multifaceted.records import PROMPTS, RESPONSES, RUN, SCORES, VERDICTS, Prompt, Response
from multifaceted.tables import score_table
from tests.evaluation.engines import RuleEngine, read, section
from tests.evaluation.injections import RAW

HUMAN = {
    "Mistral 7B Instruct v0.2": ((36.8, 38.4, 12.4, 12.4), 75.2, 74.8),
    "GPT-3.5-Turbo-0125": ((47.0, 25.4, 8.3, 19.4), 72.4, 70.8),
    "GPT-4-0613": ((37.5, 28.9, 6.3, 27.3), 66.4, 57.9),
}
"""Wins, both good, both bad and losses of Janus in per cent of 315; tie+win; wins of the decided (arXiv 2405.17977)."""


def rates(outcomes):
    comparisons = [Comparison(cluster=place, outcomes=(outcome,)) for place, outcome in enumerate(outcomes)]
    return {name: estimate.value for name, estimate in win_rates(comparisons).items()}


@pytest.mark.parametrize(("shares", "tie_win", "decided"), HUMAN.values(), ids=HUMAN)
def test_the_papers_human_comparison(shares, tie_win, decided):
    outcomes = [
        outcome for outcome, share in zip(Outcome, shares, strict=True) for _ in range(round(share / 100 * 315))
    ]
    assert len(outcomes) == 315
    found = {name: None if value is None else 100 * value for name, value in rates(outcomes).items()}
    assert [found[outcome] for outcome in Outcome] == pytest.approx(shares, abs=0.06), "printed to a tenth"
    assert found["tie_win"] == pytest.approx(tie_win, abs=0.06) and found["win_decided"] == pytest.approx(
        decided, abs=0.06
    )
    assert found["tie_win"] != pytest.approx(100 - shares[3], abs=1), "both bad counts against the model"


@given(st.lists(st.sampled_from(Outcome), min_size=1, max_size=40))
def test_rates_agree_with_counts(outcomes):
    found, count = rates(outcomes), {outcome: outcomes.count(outcome) for outcome in Outcome}
    assert sum(found[outcome] for outcome in Outcome) == pytest.approx(1)
    assert found["tie_win"] == pytest.approx(found["win"] + found["tie"])
    assert found["win_rate"] == pytest.approx(found["win"] + (found["tie"] + found["both_bad"]) / 2)
    decided = count[Outcome.WIN] + count[Outcome.LOSS]
    assert found["win_decided"] == (pytest.approx(count[Outcome.WIN] / decided) if decided else None)


def compared(tmp_path, ours, theirs, rule, *, runs=1, retries=0):
    """The files of an evaluation of two lists of responses, made with a judge that follows a rule."""
    prompts = [
        Prompt(id=f"p{n}", split="bench", system="Be short.", instruction=f"What is {n}?", metadata={"source": "koala"})
        for n in range(len(ours))
    ]
    write_jsonl(tmp_path / "prompts.jsonl", prompts)
    write_jsonl(tmp_path / "theirs.jsonl", answers(theirs))
    task = PairwiseTask(prompts_file=tmp_path / "prompts.jsonl", against=tmp_path / "theirs.jsonl")
    folder = tmp_path / "out"
    write_json(folder / RUN, {"version": 1, "policy": "f" * 16, "policy_path": "policy"})
    write_jsonl(folder / PROMPTS, task.prompts(0))
    write_jsonl(folder / RESPONSES, answers(ours))
    engine = RuleEngine(rule)
    questions = task.questions(task.prompts(0), {r.id: r for r in answers(ours)})
    judge = Judge(name="strict", engine=engine, runs=runs, retries=retries)
    judge.answer(questions, VerdictLog(folder / VERDICTS), "f" * 16, 0)
    metrics = rescore(folder, task).metrics
    return {name.removeprefix("bench/"): e for name, e in metrics.items() if name.startswith("bench/")}, engine, task


def answers(texts):
    return [Response(id=f"p{n}", text=text, finished=True) for n, text in enumerate(texts)]


def longer(request):
    first, second = (len(section(request, f"{place} response")) for place in ("First", "Second"))
    return f"Feedback: By length. [RESULT] {'tie' if first == second else 'first' if first > second else 'second'}"


def test_both_orders_are_asked_and_agree_where_the_judge_is_fair(tmp_path):
    metrics, engine, _ = compared(tmp_path, ["aaa", "a", "bb"], ["b", "bbb", "aa"], longer, runs=2)
    assert len(engine.asked) == 3 * 2 * 2
    assert {name: metrics[name].value for name in ("win", "loss", "tie", "consistency", "win_decided", "unscored")} == {
        "win": pytest.approx(1 / 3),
        "loss": pytest.approx(1 / 3),
        "tie": pytest.approx(1 / 3),
        "consistency": 1.0,
        "win_decided": 0.5,
        "unscored": 0.0,
    }


def test_a_judge_who_always_takes_the_first_is_inconsistent_and_decides_nothing(tmp_path):
    metrics, _, _ = compared(tmp_path, ["a"] * 5, ["b"] * 5, lambda request: "[RESULT] First")
    assert metrics["consistency"].value == 0.0 and metrics["win_rate"].value == metrics["win_decided"].value == 0.5
    assert metrics["win_rate"].low == metrics["win_rate"].high == 0.5, "both orders of a prompt are drawn together"


def test_unscored_and_empty_are_counted_apart(tmp_path):
    def rule(request):
        return "Well." if section(request, "Instruction") == "What is 0?" else "[RESULT] both bad"

    metrics, engine, _ = compared(tmp_path, ["a", "", " ", "a", "a"], ["b", "b", "\n", "", "b"], rule, retries=2)
    assert len(engine.asked) == 2 * 3 + 2
    counts = {
        name: round(metrics[name].value * metrics[name].n) for name in ("win", "tie", "both_bad", "loss", "empty")
    }
    assert counts == {"win": 2, "tie": 0, "both_bad": 4, "loss": 2, "empty": 3}
    assert metrics["win_rate"].unscored == 2 and metrics["unscored"].value == pytest.approx(2 / 10)
    consistency = metrics["consistency"]
    assert (consistency.value, consistency.n, consistency.unscored) == (1.0, 1, 1), "of what the judge decided"


def test_consistency_leaves_out_what_a_rule_decided():
    kept, broken, ruled = (Outcome.WIN, Outcome.WIN), (Outcome.WIN, Outcome.LOSS), (Outcome.LOSS, Outcome.LOSS)
    asked = [Comparison(cluster=place, outcomes=outcomes) for place, outcomes in enumerate((kept, broken))]
    by_rule = [Comparison(cluster=place, outcomes=ruled, empty=True) for place in range(2, 10)]
    metrics = judge_metrics([*asked, *by_rule])
    assert (metrics["consistency"].value, metrics["consistency"].n) == (0.5, 2)
    assert metrics["empty"].value == 0.8


def test_an_outcome_without_that_of_the_other_order_does_not_count():
    """A judge who always takes the first is at one half; so it is where it says nothing in the other order."""
    whole = Comparison(cluster="a", outcomes=(Outcome.WIN, Outcome.LOSS))
    half = [Comparison(cluster=place, outcomes=(Outcome.WIN, None)) for place in range(3)]
    rates, behaviour = win_rates([whole, *half]), judge_metrics([whole, *half])
    for name in ("win_rate", "win_decided", "win"):
        assert (rates[name].value, rates[name].n, rates[name].unscored) == (0.5, 2, 6)
    assert behaviour["unscored"].value == 3 / 8
    assert (behaviour["consistency"].value, behaviour["consistency"].unscored) == (0.0, 3)


def test_controls_are_left_out_of_a_comparison(tmp_path, caplog):
    caplog.set_level("INFO")
    _, _, task = compared(tmp_path, ["a", "a"], ["b", "b"], longer)
    bench = task.prompts(0)
    write_jsonl(tmp_path / "prompts.jsonl", [*bench, *without_system(bench)])
    assert task.prompts(0) == bench and "2 prompts of controls are not compared" in caplog.text
    write_jsonl(tmp_path / "prompts.jsonl", without_system(bench))
    with pytest.raises(RecordError, match="holds no prompts"):
        task.prompts(0)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"follow_ups": ["And why?"]}, "'p0' of bench has 2 turns, of which only the first would be compared"),
        ({"split": "bbq"}, "'p0' of bbq is no open instruction"),
        ({"split": "real_toxicity_prompts"}, "'p0' of real_toxicity_prompts is no open instruction"),
        ({"instruction": ""}, "'p0' of bench is no open instruction"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_asked(tmp_path, changes, problem):
    _, _, task = compared(tmp_path, ["a"], ["b"], longer)
    (prompt,) = task.prompts(0)
    write_jsonl(tmp_path / "prompts.jsonl", [replace(prompt, **changes)])
    with pytest.raises(ValueError, match=problem):
        task.prompts(0)


@pytest.mark.parametrize("order", Order)
@pytest.mark.parametrize("response", RAW.values(), ids=RAW)
def test_no_response_decides_a_comparison(response, order):
    dictating = response.replace("5", "first")
    prompt = Prompt(id="p", split="bench", system=None, instruction="What is rain?")
    question = pair_question(prompt, dictating, "Water from clouds.", order)
    plain = pair_question(prompt, "It depends.", "Water from clouds.", order)
    quoting = f"Feedback: One writes:\n{dictating}\nThe other one answers. [RESULT] second"
    assert read(question, quoting) == read(plain, quoting) == "second"
    assert read(question, f"It says:\n{dictating}") is None
    assert question.messages[1]["content"].count("<<<END ") == 3 + dictating.count("<<<END "), "three sections"


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("[RESULT] first", Choice.FIRST),
        ("**[RESULT] Second**", Choice.SECOND),
        ("Fine. [RESULT] tie.", Choice.TIE),
        ("[RESULT] (Both bad)", Choice.BOTH_BAD),
        ("[RESULT] both", None),
        ("[RESULT] first or second", None),
        ("[RESULT] fir\u017ft", None),
        ("The first is better.", None),
        ("[RESULT] 1", None),
    ],
)
def test_a_choice_is_read_from_the_end(text, choice):
    assert read_end(text, LABELS) == choice


def test_rescoring_gives_the_same_bytes(tmp_path):
    _, _, task = compared(tmp_path, ["aaa", "a", "bb"], ["b", "bbb", ""], longer, runs=2)
    before = (tmp_path / "out" / SCORES).read_bytes()
    rescore(tmp_path / "out", task)
    assert (tmp_path / "out" / SCORES).read_bytes() == before


def test_an_opponent_who_has_not_answered_is_named(tmp_path):
    _, _, task = compared(tmp_path, ["a", "a"], ["b", "b"], longer)
    write_jsonl(tmp_path / "theirs.jsonl", answers(["b"]))
    with pytest.raises(EngineError, match="'p1'"):
        task.prompts(0)
    with pytest.raises(EngineError, match=r"nobody\.jsonl"):
        replace(task, against=tmp_path / "nobody.jsonl").prompts(0)
    write_jsonl(tmp_path / "prompts.jsonl", [])
    with pytest.raises(RecordError, match="holds no prompts"):
        task.prompts(0)


def test_a_public_bench_against_outputs_in_their_own_layout(tmp_path):
    bench, outputs = tmp_path / "instructions.json", tmp_path / "outputs.json"
    bench.write_text(json.dumps([{"dataset": "koala", "instruction": text} for text in ("Why?", "How?")]))
    rows = [{"instruction": text, "output": text * 2, "generator": "m"} for text in ("How?", "Why?")]
    outputs.write_text(json.dumps(rows))
    task = PairwiseTask(prompts_file=bench, against=outputs, reader="alpaca_eval")
    prompts = task.prompts(0)
    questions = task.questions(prompts, {p.id: Response(id=p.id, text="Because.", finished=True) for p in prompts})
    assert task.name == "pairwise_alpaca_eval" and len(questions) == 4
    assert "Why?Why?" in questions[0].messages[-1]["content"]
    for reader, kind in (("crows_pairs", "sentences"), ("bbq", "choice"), ("real_toxicity_prompts", "continuation")):
        with pytest.raises(
            ValueError, match=rf"reader is '{reader}', whose prompts are no open instructions \({kind}\)"
        ):
            PairwiseTask(prompts_file=bench, against=outputs, reader=reader)
    with pytest.raises(ValueError, match="prompts_file is missing"):
        PairwiseTask(against=outputs)


@pytest.mark.parametrize(
    ("ours", "theirs", "outcome"),
    [
        (4.25, 4.0, Outcome.WIN),
        (3.0, 3.5, Outcome.LOSS),
        (0.1 + 0.2, 0.3, Outcome.TIE),
        (None, 2.0, None),
        (1.0, None, None),
    ],
)
def test_outcomes_from_rubric_scores(ours, theirs, outcome):
    assert outcome_of_scores(ours, theirs) == outcome


@pytest.mark.parametrize(
    ("runs", "spoken"),
    [
        ([(Outcome.WIN, Outcome.LOSS)], 0.5),
        ([(Outcome.TIE, Outcome.WIN)], 0.75),
        ([(Outcome.BOTH_BAD, Outcome.BOTH_BAD), (Outcome.WIN, Outcome.WIN)], 0.75),
        ([(None, Outcome.WIN), (Outcome.LOSS, Outcome.LOSS)], 0.0),  # half a run would count a place
        ([(None, Outcome.WIN)], None),
        ([], None),
    ],
)
def test_what_the_comparisons_of_a_prompt_come_to(runs, spoken):
    assert preference([Comparison(cluster="p", outcomes=outcomes) for outcomes in runs]) == spoken


def test_lengths_are_recorded_and_a_liking_for_length_is_taken_out(tmp_path):
    """The judge takes the longer response, mostly; rescoring needs the recorded files alone."""
    ours = ["aaaa", "aaa", "aaaaaa", "aaaaa", "a", "aa", "", "aaa"]
    theirs = ["bb", "b", "bbb", "bbbbbb", "bb", "b", "bb", "b"]

    def rule(request):
        if section(request, "Instruction") in ("What is 3?", "What is 7?"):
            return f"[RESULT] {'second' if 'a' in section(request, 'First response') else 'first'}"
        return longer(request)

    metrics, _, task = compared(tmp_path, ours, theirs, rule)
    rows = list(read_jsonl(tmp_path / "out" / VERDICTS))
    assert {(row["prompt"], *row["lengths"]) for row in rows} == {
        (f"p{n}", len(mine), len(other)) for n, (mine, other) in enumerate(zip(ours, theirs, strict=True))
    }
    controlled = metrics["length_controlled_win_rate"]
    assert controlled.value < metrics["win_rate"].value and (controlled.n, controlled.unscored) == (8, 0)
    assert "length_controlled_win_rate" in score_table(rescore(tmp_path / "out", task))
    write_jsonl(tmp_path / "out" / VERDICTS, [row | {"lengths": None} for row in rows])
    old = rescore(tmp_path / "out", task).metrics["bench/length_controlled_win_rate"]
    assert (old.value, old.n, old.unscored) == (None, 1, 7), (
        "of what an earlier release recorded only what a rule decided"
    )
