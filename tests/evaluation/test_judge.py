"""Asking a judge: runs, attempts, what is kept, and going on after a kill."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multifaceted.evaluation.judge import Judge, Question, at_the_end
from multifaceted.evaluation.rubrics import LABELS
from multifaceted.evaluation.verdict_end import read_end
from multifaceted.evaluation.verdict_log import VerdictLog, latest_verdicts, read_verdicts
from multifaceted.inference.requests import EngineError, RefusedError, Reply, request_seed
from multifaceted.inference.server import ServerEngine
from multifaceted.record_files import RecordError, read_jsonl
from multifaceted.records import RULE, Verdict
from tests.evaluation.engines import RuleEngine
from tests.inference.server import MockServer


def question(name, decided=None):
    messages = [{"role": "user", "content": f"Judge {name}."}]
    return Question(
        prompt=name,
        response=name,
        messages=messages,
        read=at_the_end(lambda text: read_end(text, LABELS)),
        rubric=0,
        decided=decided,
    )


QUESTIONS = [question(name) for name in "abc"]


def judge(path, rule, questions=QUESTIONS, *, most=None, order=1, **settings):
    engine = RuleEngine(rule, most, order=order)
    settings = {"runs": 3, "retries": 2} | settings
    log = VerdictLog(path)
    Judge(name="strict", engine=engine, **settings).answer(questions, log, "policy", seed=0)
    return engine, log.latest


def test_every_question_is_asked_once_a_run(tmp_path):
    engine, verdicts = judge(tmp_path / "v.jsonl", lambda request: f"[RESULT] {request.sample + 1}")
    assert [v.score for v in verdicts.values() if v.prompt == "a"] == [1, 2, 3]
    assert len(engine.asked) == 9 and all(v.attempt == 1 and v.judge == "strict" for v in verdicts.values())


def test_a_question_without_a_verdict_is_asked_again_as_another_sample(tmp_path):
    samples = []

    def rule(request):
        samples.append(request.sample)
        return "[RESULT] 3" if len(samples) == 3 else "I would rather not say."

    _, verdicts = judge(tmp_path / "v.jsonl", rule, QUESTIONS[:1], runs=1)
    (verdict,) = verdicts.values()
    assert (verdict.score, verdict.attempt, samples) == (3, 3, [0, 1000, 2000])
    texts = [row["text"] for row in read_jsonl(tmp_path / "v.jsonl")]
    assert texts == ["I would rather not say."] * 2 + ["[RESULT] 3"], "what was no verdict is kept too"


def test_a_question_that_never_gets_a_verdict_is_unscored(tmp_path):
    engine, verdicts = judge(
        tmp_path / "v.jsonl", lambda request: "No." if "b" in request.messages[0]["content"] else "[RESULT] 4"
    )
    assert [v.score for v in verdicts.values()] == [4] * 3 + [None] * 3 + [4] * 3
    assert all(v.attempt == 3 for v in verdicts.values() if v.prompt == "b") and len(engine.asked) == 6 + 9
    again, _ = judge(tmp_path / "v.jsonl", lambda request: "[RESULT] 1")
    assert again.asked == [], "and stays so"
    more, verdicts = judge(tmp_path / "v.jsonl", lambda request: "[RESULT] 1", retries=3)
    assert [request.sample for request in more.asked] == [3000, 3001, 3002]


def test_a_verdict_that_was_cut_is_none(tmp_path):
    _, verdicts = judge(tmp_path / "v.jsonl", lambda r: Reply(id=r.id, text="[RESULT] 4", finished=False), retries=0)
    assert {v.score for v in verdicts.values()} == {None}


@pytest.mark.parametrize("text", ["\ud83d", "\\\ud83d", "a\r\nb\u2028c\x85d\x00e", '"\\n'])
def test_whatever_a_judge_writes_is_kept(tmp_path, text):
    judge(tmp_path / "v.jsonl", lambda request: f"{text}\n[RESULT] 4", QUESTIONS[:1], runs=1)
    (verdict,) = read_verdicts(tmp_path / "v.jsonl")
    assert verdict.text == f"{text}\n[RESULT] 4" and verdict.score == 4


def test_what_a_rule_decides_is_not_asked(tmp_path):
    questions = [question("a"), question("b", decided=1)]
    engine, verdicts = judge(tmp_path / "v.jsonl", lambda request: "[RESULT] 4", questions)
    assert len(engine.asked) == 3
    decided = [v for v in verdicts.values() if v.prompt == "b"]
    assert all((v.score, v.judge, v.empty, v.attempt) == (1, RULE, True, 0) for v in decided) and len(decided) == 3
    judge(tmp_path / "v.jsonl", lambda request: "[RESULT] 4", questions)
    assert len(read_verdicts(tmp_path / "v.jsonl")) == 6, "nor written twice"


def test_what_a_rule_decides_is_empty_or_not_as_the_question_says(tmp_path):
    same, missing = question("a", decided=2), question("b", decided=1)
    asked = replace(question("c"), lengths=[3, 4])
    _, verdicts = judge(
        tmp_path / "v.jsonl", lambda r: "[RESULT] 4", [replace(same, empty=False), missing, asked], runs=1
    )
    found = {v.prompt: (v.judge, v.empty, v.lengths) for v in read_verdicts(tmp_path / "v.jsonl")}
    assert found == {"a": (RULE, False, None), "b": (RULE, True, None), "c": ("strict", False, [3, 4])}
    assert len(verdicts) == 3


@pytest.mark.parametrize("killed_at", range(10))
@pytest.mark.parametrize("order", [1, -1])
def test_a_killed_run_goes_on_and_asks_nothing_twice(tmp_path, killed_at, order):
    def rule(request):
        return "[RESULT] 2" if request.sample >= 1000 or "a" in request.messages[0]["content"][6:] else "Hm."

    whole, expected = judge(tmp_path / "whole.jsonl", rule)
    path = tmp_path / "v.jsonl"
    with pytest.raises(EngineError, match="cap"):
        judge(path, rule, most=killed_at, order=order)
    with path.open("a") as stream:
        stream.write('{"prompt": "a", "resp')
    rest, verdicts = judge(path, rule)
    assert verdicts == expected and killed_at + len(rest.asked) == len(whole.asked)
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_verdicts_of_other_questions_are_refused(tmp_path):
    path = tmp_path / "v.jsonl"
    judge(path, lambda request: "[RESULT] 4", [question("a")])
    other = Question(
        prompt="a", response="a", messages=[{"role": "user", "content": "?"}], read=lambda reply: None, rubric=0
    )
    with pytest.raises(RecordError, match="verdict of 'a' that answers another question"):
        judge(path, lambda request: "[RESULT] 4", [other])


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"version": 2}', "line 1: a verdict of version 2; this release reads version 1"),
        ("{}", "line 1: a verdict of version None"),
        ("[]", "line 1: a verdict of version None"),
        ('{"version": 1, "prompt": "a"}', r"line 1: not a verdict \("),
        ("{", "line 1: not JSON"),
    ],
)
def test_a_broken_log_is_refused_with_its_line(tmp_path, line, problem):
    (tmp_path / "v.jsonl").write_text(line + "\n")
    with pytest.raises(RecordError, match=problem):
        VerdictLog(tmp_path / "v.jsonl")


def test_an_engine_that_loses_a_request_is_named(tmp_path):
    class Forgetful(RuleEngine):
        def answer(self, requests, seed):
            yield from super().answer(requests[1:], seed)

    forgetful = Judge(name="strict", engine=Forgetful(lambda r: "[RESULT] 1"), runs=1, retries=0)
    log = VerdictLog(tmp_path / "v.jsonl")
    with pytest.raises(EngineError, match="strict left 1 requests without a"):
        forgetful.answer(QUESTIONS, log, "policy", 0)


class Refusing(RuleEngine):
    """Would not take what says so, and fails at what says that."""

    def answer(self, requests, seed):
        marked = {word: [r for r in requests if word in r.messages[0]["content"]] for word in ("refuse", "fail")}
        kept = [r for r in requests if r not in marked["refuse"] + marked["fail"]]
        yield from super().answer(kept, seed)
        if marked["refuse"] or marked["fail"]:
            raise RefusedError("some have no answer", {r.id: "a content filter" for r in marked["refuse"]})


def refusing(path, names):
    engine = Refusing(lambda r: "[RESULT] 3")
    log = VerdictLog(path)
    Judge(name="strict", engine=engine, runs=2, retries=3).answer(list(map(question, names)), log, "policy", seed=0)
    return engine, log.latest


def test_a_question_that_is_refused_is_unscored_and_not_asked_again(tmp_path, caplog):
    engine, verdicts = refusing(tmp_path / "v.jsonl", ["a", "refuse"])
    assert len(engine.asked) == 2 and [v.score for v in verdicts.values()] == [3, 3, None, None]
    assert [v.refused for v in verdicts.values()] == [None, None, "a content filter", "a content filter"]
    assert "strict refused 2 questions, which are unscored" in caplog.text
    again, _ = refusing(tmp_path / "v.jsonl", ["a", "refuse"])
    assert again.asked == []


def test_a_judge_that_refuses_everything_and_what_merely_failed_end_the_run(tmp_path):
    with pytest.raises(RefusedError):
        refusing(tmp_path / "v.jsonl", ["refuse"])
    assert read_verdicts(tmp_path / "v.jsonl") == [], "it may be a setting"
    with pytest.raises(RefusedError):
        refusing(tmp_path / "v.jsonl", ["a", "refuse", "fail"])
    assert len(read_verdicts(tmp_path / "v.jsonl")) == 4, "what merely failed is asked again by the same command"


def test_a_judge_without_verdicts_is_told_with_an_example(tmp_path, caplog):
    judge(tmp_path / "v.jsonl", lambda request: "I like them all.", runs=1, retries=1)
    assert "3 of 3 replies hold no verdict, and 3 questions are asked again; one of them ends: 'I like" in caplog.text
    assert "3 of 3 replies hold no verdict, and 0 questions are asked again" in caplog.text


def test_no_judge_is_called_what_records_call_a_rule(tmp_path):
    with pytest.raises(ValueError, match="name is 'rule'"):
        Judge(name="rule", engine=RuleEngine(str))


@pytest.mark.parametrize("settings", [{"runs": 0}, {"retries": -1}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match=r"runs is .* and retries is"):
        Judge(name="strict", engine=RuleEngine(str), **settings)


@given(st.permutations(range(6)))
def test_the_last_attempt_counts_whenever_it_arrived(order):
    verdicts = [
        Verdict(
            prompt="a", response="a", policy="p", judge="j", run=n % 2, score=n, text="", attempt=n // 2 + 1, asked=""
        )
        for n in range(6)
    ]
    latest = latest_verdicts([verdicts[place] for place in order])
    assert [v.score for v in latest.values()] == [4, 5]


def test_a_request_that_fails_is_named_for_people_and_keeps_its_seed(tmp_path):
    swapped = replace(question("a"), response="b", rubric=None, order="first")
    engine, _ = judge(tmp_path / "v.jsonl", lambda request: "[RESULT] 1", [question("a"), swapped], runs=2)
    assert [request.shown for request in engine.asked] == [
        "prompt a, rubric 0, run 0",
        "prompt a, rubric 0, run 1",
        "prompt a, response to b, order first, run 0",
        "prompt a, response to b, order first, run 1",
    ]
    assert engine.asked[0].id == '["a", "a", 0, "", 0]' and request_seed(0, engine.asked[0]) == 180748662801691
    with MockServer(refusal=(401, None, "no")) as server:
        asked = ServerEngine(model="m", ledger=tmp_path / "l.sqlite", base_url=server.address)
        with pytest.raises(EngineError, match="request 'prompt a, rubric 0, run 0' failed"):
            Judge(name="m", engine=asked, runs=1).answer(QUESTIONS[:1], VerdictLog(tmp_path / "w.jsonl"), "p", seed=0)
