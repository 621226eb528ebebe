"""MT-Bench as a task: two turns are generated, judged one after the other, and scored as published."""

import gzip
import json
from collections import defaultdict
from pathlib import Path

import pytest

from multifaceted.evaluation.judge import Judge
from multifaceted.evaluation.mt_bench import MtBenchTask
from multifaceted.evaluation.protocols.mt_bench import TEMPLATES
from multifaceted.evaluation.run import rescore
from multifaceted.evaluation.verdict_log import VerdictLog
from multifaceted.inference.files import ResponseFile
from multifaceted.inference.requests import Reply, Request
from multifaceted.record_files import write_json, write_jsonl
from multifaceted.records import PROMPTS, RESPONSES, RUN, VERDICTS, Response, Scores
from multifaceted.tables import score_table
from tests.evaluation.engines import RuleEngine, read

ROWS = [
    {"question_id": 1, "category": "writing", "turns": ["Write.", "Rewrite."]},
    {"question_id": 2, "category": "math", "turns": ["Add.", "Subtract."], "reference": ["2", "0"]},
]


def write_questions(path, rows=ROWS):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def scored(tmp_path, task, responses, rule, **settings):
    folder, engine = tmp_path / "out", RuleEngine(rule)
    prompts = task.prompts(0)
    write_json(folder / RUN, {"version": 1, "policy": "f" * 16, "policy_path": "policy"})
    write_jsonl(folder / PROMPTS, prompts)
    write_jsonl(folder / RESPONSES, responses)
    judge = Judge(name="strict", engine=engine, runs=1, retries=0, **settings)
    questions = task.questions(prompts, {response.id: response for response in responses})
    judge.answer(questions, VerdictLog(folder / VERDICTS), "f" * 16, 0)
    return rescore(folder, task).metrics, engine.asked


def test_each_turn_is_scored_and_an_empty_answer_is_the_lowest(tmp_path):
    task = MtBenchTask(bench=write_questions(tmp_path / "question.jsonl"))
    responses = [
        Response(id="1", text="A text.", finished=True, follow_ups=["Another text."]),
        Response(id="2", text="2", finished=True, follow_ups=[" "]),
    ]
    scores = iter(["It will do. [RESULT] 7", "No score. [[9]]", "Feedback: It is right. [RESULT] 10"])
    metrics, asked = scored(tmp_path, task, responses, lambda request: next(scores))
    assert len(asked) == 3, "nobody is asked about an empty answer"
    told = [request.messages[-1]["content"] for request in asked]
    assert "Another text." not in told[0] and "A text." in told[1] and "Another text." in told[1]
    values = {name.removeprefix("mt_bench/"): (e.value, e.unscored) for name, e in metrics.items()}
    assert values["turn_1"] == (8.5, 0) and values["turn_2"] == (1.0, 1) and values["score/writing"] == (7.0, 1)
    shown = score_table(Scores(task="mt_bench", policy={}, metrics=metrics)).splitlines()
    assert shown[1].split() == ["split", "score", "turn_1", "turn_2", "unscored", "empty"]
    assert values["unscored"] == (0.25, 0) and values["empty"] == (0.25, 0)


FASTCHAT = {  # temperatures of FastChat's llm_judge
    **{"writing": 0.7, "roleplay": 0.7, "extraction": 0.0, "math": 0.0, "coding": 0.0, "reasoning": 0.0},
    **{"stem": 0.1, "humanities": 0.1, r"something else": 0.7},
}


def test_answers_are_drawn_as_in_fastchat(tmp_path):
    rows = [
        {"question_id": name, "category": name, "turns": ["One.", "Two."], "reference": ["1", "2"]} for name in FASTCHAT
    ]
    prompts = MtBenchTask(bench=write_questions(tmp_path / "question.jsonl", rows)).prompts(0)
    assert {prompt.id: prompt.sampling.temperature for prompt in prompts} == FASTCHAT
    others = {(p.sampling.top_p, p.sampling.repetition_penalty, p.sampling.max_tokens) for p in prompts}
    assert others == {(1.0, 1.0, 1024)}


def test_which_reading_applies_is_decided_by_whose_template_it_is(tmp_path):
    """FastChat's is the first score of a text, quoted or not, cut or not; ours is what a whole text ends with."""
    bench, theirs = write_questions(tmp_path / "question.jsonl"), tmp_path / "judge_prompts.jsonl"
    rows = [
        {"name": name, "system_prompt": "Grade.", "prompt_template": " ".join(f"{{{place}}}" for place in places)}
        for name, places in TEMPLATES.values()
    ]
    theirs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    response = Response(id="1", text="Give it a [[10]].", finished=True, follow_ups=["b"])
    asked = {}
    for name, templates in (("ours", None), ("fastchat", theirs)):
        task = MtBenchTask(bench=bench, templates=templates)
        asked[name] = task.questions(task.prompts(0)[:1], {"1": response})[0]
    texts = ["It says [[10]]. Rating: [[2]]", "It says [[10]]. [RESULT] 2", "Bad. [2]"]
    assert [read(asked["fastchat"], text) for text in texts] == [10, 10, 2]
    assert [read(asked["ours"], text) for text in texts] == [None, 2, None]
    cut = Reply(id="r", text="It is bad. [RESULT] 2 [[3]]", finished=False)
    assert asked["fastchat"].read(cut) == 3 and asked["ours"].read(cut) is None


def test_questions_without_their_references_are_refused_before_anything_is_asked(tmp_path, caplog):
    caplog.set_level("INFO")
    rows = [ROWS[0], {name: value for name, value in ROWS[1].items() if name != "reference"}]
    task = MtBenchTask(bench=write_questions(tmp_path / "question.jsonl", rows))
    with pytest.raises(ValueError, match=r"the file of questions lacks .* '2'; name FastChat's .*task.references=..."):
        task.prompts(0)
    task.references = write_references(tmp_path / "references.jsonl", {2: ["2", "0"]})
    assert task.prompts(0)[1].metadata["references"] == ["2", "0"]
    assert "own reference answers" not in caplog.text


def write_references(path, turns):
    rows = [{"question_id": id_, "choices": [{"turns": texts}]} for id_, texts in turns.items()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_file_of_references_is_not_filled_in_from_the_questions(tmp_path):
    rows = [*ROWS, ROWS[1] | {"question_id": 3}, ROWS[1] | {"question_id": 4}]
    references = write_references(tmp_path / "references.jsonl", {2: ["2", "0"], 3: ["2"]})
    task = MtBenchTask(bench=write_questions(tmp_path / "question.jsonl", rows), references=references)
    with pytest.raises(ValueError, match=r"references\.jsonl lacks reference answers, one a turn, .*: '3', '4'; name"):
        task.prompts(0)


def test_whose_references_are_shown_is_said(tmp_path, caplog):
    caplog.set_level("INFO")
    MtBenchTask(bench=write_questions(tmp_path / "question.jsonl", ROWS[:1])).prompts(0)
    assert not caplog.messages, "nothing is judged beside references"
    MtBenchTask(bench=write_questions(tmp_path / "question.jsonl")).prompts(0)
    (line,) = caplog.messages
    assert "the questions' own reference answers; published scores use FastChat's reference_answer/gpt-4.jsonl" in line


def test_recorded_answers_and_judgements_give_the_published_average(shared, tmp_path):
    """The whole way of a run, with a judge that says what GPT-4 said."""
    files, model = shared("mt_bench"), "mamba_0_5_dpo_ep3"
    task = MtBenchTask(
        bench=shared("bench_sources/mt_bench_questions.jsonl"),
        references=files / "reference_answer_gpt-4.jsonl",
        templates=files / "judge_prompts.jsonl",
    )
    responses = _recorded_answers(files / "model_answer" / f"{model}.jsonl.gz", task)
    said = {}
    with gzip.open(files / "judgments" / "mamba_six_models.gpt-4_single.jsonl.gz", "rt") as stream:
        for row in map(json.loads, stream):
            if row["model"] == model:
                said[row["user_prompt"]] = row["judgment"]
    metrics, asked = scored(tmp_path, task, responses, lambda request: said[request.messages[-1]["content"]])
    assert len(asked) == 160, "every question to the judge is, byte for byte, one that was put to GPT-4"
    assert {name: metrics[f"mt_bench/{name}"].value for name in ("turn_1", "turn_2", "score")} == {
        "turn_1": 7.7375,
        "turn_2": 6.8875,
        "score": 7.3125,
    }


def _recorded_answers(path: Path, task):
    """As `run` asks an engine for them: a turn at a time."""
    prompts, texts = task.prompts(0), defaultdict(list)
    for _ in range(2):
        requests = [Request(id=prompt.id, messages=prompt.messages(texts[prompt.id])) for prompt in prompts]
        for reply in ResponseFile(path=path).answer(requests, seed=0):
            texts[reply.id].append(reply.text)
    return [Response(id=name, text=turns[0], finished=True, follow_ups=turns[1:]) for name, turns in texts.items()]
