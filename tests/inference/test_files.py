"""Responses made elsewhere: every layout, and every way in which a file does not fit its prompts."""

import gzip
import json
import logging

import pytest

from multifaceted.data.benches import read_bench
from multifaceted.data.source import BadRows
from multifaceted.inference.files import ResponseFile, read_answers
from multifaceted.inference.requests import EngineError, Request


def user(text):
    return {"role": "user", "content": text}


def asked(*ids, instruction="Instruction {}"):
    return [Request(id=name, messages=[user(instruction.format(name))]) for name in ids]


def answers(path, requests):
    return {reply.id: reply.text for reply in ResponseFile(path=path).answer(requests, seed=0)}


ROWS = {
    "ours": [{"id": "1", "text": "one", "finished": True}, {"id": "2", "text": ""}],
    "alpaca_eval": [
        {"dataset": "koala", "instruction": "Instruction 2 ", "output": "", "generator": "g"},
        {"dataset": "koala", "instruction": "Instruction 1", "output": "one", "generator": "g"},
    ],
    "mt_bench": [
        {"question_id": 1, "model_id": "m", "choices": [{"index": 0, "turns": ["one", "and more"]}]},
        {"question_id": 2, "model_id": "m", "choices": [{"index": 0, "turns": ["", ""]}]},
    ],
    "arena_2024": [
        {"question_id": "1", "choices": [{"index": 0, "turns": [{"content": "one", "token_len": 1}]}]},
        {"question_id": "2", "choices": [{"index": 0, "turns": [{"content": "", "token_len": 0}]}]},
    ],
    "arena_2025": [
        {"uid": "1", "model": "m", "messages": [user("?"), {"role": "assistant", "content": {"answer": "one"}}]},
        {"uid": "2", "model": "m", "messages": [user("?"), {"role": "assistant", "content": ""}]},
    ],
}


@pytest.mark.parametrize("layout", ROWS)
@pytest.mark.parametrize("form", ["lines", "list", "zipped"])
def test_every_layout_gives_the_responses(tmp_path, layout, form):
    lines = "".join(json.dumps(row) + "\n" for row in ROWS[layout])
    content = (json.dumps(ROWS[layout]) if form == "list" else lines).encode()
    path = tmp_path / "responses"
    path.write_bytes(gzip.compress(content) if form == "zipped" else content)
    assert answers(path, asked("2", "1")) == {"1": "one", "2": ""}


@pytest.mark.parametrize("names", [("0", "1"), ("some-hash", "another-hash")])
def test_janus_responses_go_by_id_or_by_place(tmp_path, names):
    path = tmp_path / "m_responses.json"
    path.write_text(json.dumps({"1": {"response": None, "reward": 0.1}, "0": {"response": "zero"}}))
    first, second = names
    assert answers(path, asked(first, second)) == {first: "zero", second: ""}
    path.write_text(json.dumps({"a": {"response": "A"}, "b": {"response": "B"}}))
    assert answers(path, asked("b", "a")) == {"a": "A", "b": "B"}


@pytest.mark.parametrize("numbers", [range(2), range(5, 7)])
@pytest.mark.parametrize("column", ["text", "response"])
def test_rows_with_ids_never_go_by_place(tmp_path, numbers, column):
    path = tmp_path / "r.jsonl"
    path.write_text("\n".join(json.dumps({"id": number, column: f"to {number}"}) for number in numbers))
    with pytest.raises(EngineError, match="lacks 2 of 2 responses: to 'x', 'y'"):
        answers(path, asked("x", "y"))
    first, second = map(str, numbers)
    assert answers(path, asked(second, first)) == {first: f"to {first}", second: f"to {second}"}


@pytest.mark.parametrize("keys", [("1", "2"), ("0", "2"), ("00", "1")])
def test_keys_of_janus_are_places_only_where_they_count_from_0(tmp_path, keys):
    path = tmp_path / "m_responses.json"
    path.write_text(json.dumps({key: {"response": "r"} for key in keys}))
    with pytest.raises(EngineError, match="lacks 2 of 2 responses: to 'x', 'y'"):
        answers(path, asked("x", "y"))


def test_a_file_by_place_must_be_of_the_whole_bench(tmp_path):
    path = tmp_path / "m_responses.json"
    path.write_text(json.dumps({str(place): {"response": "r"} for place in range(10)}))
    with pytest.raises(EngineError, match=r"holds 7 responses to what is not asked.*asked as a whole"):
        answers(path, asked("x", "y", "z"))
    with pytest.raises(EngineError, match="lacks 1 of 11 responses: to 'k'"):
        answers(path, asked(*"abcdefghijk"))


def test_the_second_turn_is_asked_with_the_first_answer(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS["mt_bench"])))
    later = Request(id="1", messages=[user("?"), {"role": "assistant", "content": "one"}, user("??")])
    (reply,) = ResponseFile(path=path).answer([later], seed=0)
    assert reply.text == "and more" and reply.finished
    third = Request(id="1", messages=[*later.messages, {"role": "assistant", "content": "and more"}, user("???")])
    with pytest.raises(EngineError, match="'1' has 2 turns; turn 3 is asked"):
        answers(path, [third])


def test_missing_extra_and_doubled_ids_are_named(tmp_path, caplog):
    path = tmp_path / "r.jsonl"
    path.write_text("\n".join(json.dumps({"id": name, "text": name}) for name in "abcd"))
    with pytest.raises(EngineError, match="lacks 2 of 3 responses: to 'e', 'f'; was it made with the same bench"):
        answers(path, asked("a", "e", "f"))
    with caplog.at_level(logging.WARNING, logger="multifaceted"):
        assert answers(path, asked("a", "b")) == {"a": "a", "b": "b"}
    assert "holds 2 responses to what is not asked: 'c', 'd'" in caplog.text
    path.write_text("\n".join(json.dumps({"id": name, "text": name}) for name in "aab"))
    with pytest.raises(EngineError, match="more than one response to 'a'"):
        answers(path, asked("a", "b"))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"id": "a", "text": "A"}\n{broken', "line 2: not JSON"),
        ('[{"id": "a", "answer": "A"}]', "row 1: a layout that is not known .*'id', 'answer'.*question_id"),
        ('[{"id": "a", "text": "A"}, 3]', "row 2: a layout that is not known .*int"),
        ('[{"id": "a", "text": 3}]', "row 1: TypeError: 3 is not a text"),
        ('[{"question_id": 1, "choices": []}]', "row 1: IndexError"),
        ('[{"instruction": null, "output": ""}]', "row 1: AttributeError"),
        ("", "lacks 1 of 1"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(tmp_path, content, says):
    path = tmp_path / "r.json"
    path.write_text(content)
    with pytest.raises(EngineError, match=says):
        answers(path, asked("a"))


def test_answers_are_those_of_the_first_choice(tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_text(json.dumps({"question_id": 81, "choices": [{"turns": ["a", "b"]}, {"turns": ["c"]}]}))
    assert read_answers(path)["81"].turns == ["a", "b"]


@pytest.mark.parametrize("layout", ROWS)
def test_half_characters_are_replaced(tmp_path, layout):
    path = tmp_path / "r.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS[layout]).replace('"one"', '"one \\ud83d"'))
    texts = answers(path, asked("1", "2"))
    assert texts == {"1": "one \ufffd", "2": ""}


def test_a_file_that_is_not_there_or_damaged_is_refused(tmp_path):
    with pytest.raises(EngineError, match="cannot be read"):
        answers(tmp_path / "nothing.json", asked("a"))
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"[]" * 99)[:-9])
    with pytest.raises(EngineError, match="cannot be read"):
        answers(tmp_path / "cut.gz", asked("a"))


REAL = [
    ("alpaca_eval", "bench_sources/alpaca_eval_instructions.jsonl", "alpaca_eval2/model_outputs", 805),
    ("mt_bench", "bench_sources/mt_bench_questions.jsonl", "mt_bench/model_answer", 80),
    ("arena_hard", "arena_hard/question.jsonl", "arena_hard/model_answer", 500),
]


@pytest.mark.parametrize(("bench", "questions", "folder", "number"), REAL, ids=[name for name, *_ in REAL])
def test_real_files_answer_every_prompt_of_their_bench(shared, bench, questions, folder, number):
    prompts = read_bench(bench, shared(questions), BadRows())
    requests = [Request(id=prompt.id, messages=prompt.messages()) for prompt in prompts]
    found = {path.name: answers(path, requests) for path in sorted(shared(folder).iterdir())}
    assert len(found) >= 2 and all(len(texts) == number for texts in found.values())
    assert all(sum(map(len, texts.values())) / number > 300 for texts in found.values())
    if bench == "arena_hard":
        assert found["gpt-4-0314.jsonl.gz"] == found["gpt-4-0314.new_layout.jsonl.gz"], "one model in both layouts"
    if bench == "alpaca_eval":
        lengths = sum(map(len, found["gpt4_1106_preview.json.gz"].values())) // number
        assert lengths == 2049, "as the leaderboard has it"
    if bench == "mt_bench":
        later = [
            Request(id=r.id, messages=[*r.messages, {"role": "assistant", "content": "?"}, user("?")]) for r in requests
        ]
        path = next(shared(folder).iterdir())
        second = answers(path, later)
        assert len(second) == 80 and second != answers(path, requests)
