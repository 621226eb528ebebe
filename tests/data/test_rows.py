"""Rows to examples: one conversation reads alike in every shape, and what does not fit is refused by reason."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multifaceted.data.bad_rows import BadRowError, BadRows, OnBadRow
from multifaceted.data.preference_files import PreferenceFiles
from multifaceted.data.rows import example_of
from multifaceted.data.source import check_example
from multifaceted.records import Example, StatedPreference, Turn
from tests.data.shapes import FORMATS, SHAPES, write

PREFERENCE = {"dimension": "style", "subdimension": "Clarity", "preference": "brief", "description": "Short."}
ROW = {"prompt": "What is rain?", "chosen": "Water.", "rejected": "Tears of gods."}
USER, WATER, TEARS = (
    {"role": role, "content": content}
    for role, content in (("user", "What is rain?"), ("assistant", "Water."), ("assistant", "Tears of gods."))
)


def read(row, **columns):
    example = example_of(row, columns, name="rows:1", source="rows")
    check_example(example)
    return example


texts = (
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
    .map(str.strip)
    .filter(lambda text: text and "Human:" not in text and "Assistant:" not in text)
)


@given(
    system=st.none() | texts,
    asked=st.lists(texts, min_size=1, max_size=5).filter(lambda turns: len(turns) % 2),
    answers=st.lists(texts, min_size=2, max_size=2, unique=True),
)
def test_a_conversation_reads_alike_in_every_shape(system, asked, answers):
    chosen, rejected = answers
    turns = [Turn(role=("user", "assistant")[i % 2], content=text) for i, text in enumerate(asked)]
    expected = Example(
        id="rows:1", system=system, turns=turns, chosen=chosen, rejected=[rejected], source="rows"
    )  # fmt: skip
    for name, shape in SHAPES.items():
        row = shape(system, asked, chosen, rejected)
        assert read(json.loads(json.dumps(row))) == expected, name


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_in_every_format(tmp_path, name, shape):
    prompts = ["What is rain?"], ["Hi.", "Hello.", "What is snow?"]
    path = write(tmp_path / name, [SHAPES[shape]("Be brief.", prompt, "Water.", "Tears.") for prompt in prompts])
    pair, longer = PreferenceFiles(train_file=path, validation_file=path).train(0, BadRows())
    assert [turn.content for turn in longer.turns] == ["Hi.", "Hello.", "What is snow?"]
    assert pair.id == "rows:1" and pair.system == longer.system == "Be brief." and pair.rejected == ["Tears."]


def test_what_a_row_may_say_besides():
    row = ROW | {"id": 7, "preference_set": [PREFERENCE], "contrast": ["style"], "main_source": "nectar", "margin": 2}
    example = read(row)
    assert example.id == "7" and example.preferences == [StatedPreference(**PREFERENCE)]
    assert example.contrast == ["style"] and example.source == "nectar" and example.margin == 2.0
    assert read(dict.fromkeys(row) | ROW) == read(ROW), "null is the same as absent"


@pytest.mark.parametrize("rejected", [["Tears.", "Luck."], [[USER, TEARS], [USER, TEARS | {"content": "Luck."}]]])
def test_groups(rejected):
    chosen = "Water." if rejected[0] == "Tears." else [USER, WATER]
    assert len(read(ROW | {"chosen": chosen, "rejected": rejected}).rejected) == 2


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "What is rain?", "output": "Water.", "system": "Be brief.", "preference_set": [PREFERENCE]},
        {"chosen": [{"role": "system", "content": "Be brief."}, USER, WATER]},
        {
            "conversations": [
                {"from": "system", "value": "Be brief."},
                {"from": "human", "value": "What is rain?"},
                {"from": "gpt", "value": "Water."},
            ]
        },
    ],
)
def test_rows_without_a_rejected_answer(row):
    example = read(row)
    assert example.system == "Be brief." and example.chosen == "Water." and example.rejected == []
    assert example.turns == [Turn(**USER)]


def test_columns_by_other_names():
    row = {"question": "What is rain?", "good": "Water.", "bad": "Tears of gods.", "prompt": 5}
    assert read(row, prompt="question", chosen="good", rejected="bad") == read(ROW)
    assert read(ROW | {"chosen": [USER, WATER], "rejected": [USER, TEARS], "prompt": "x"}, prompt=None) == read(ROW)


@pytest.mark.parametrize(
    ("row", "reason", "message"),
    [
        (["a", "list"], "wrong_type", "the row is ['a', 'list'], a list; expected an object"),
        ({}, "missing_column", "no chosen (or output), no prompt; found nothing"),
        ({"chosen": "x"}, "missing_column", "no prompt; found chosen. Name your columns: data.source.columns="),
        (ROW | {"chosen": 5}, "wrong_type", "chosen is 5, a int; expected a text or a list of messages"),
        (ROW | {"prompt": 5}, "wrong_type", "prompt is 5"),
        (ROW | {"system": 1.5}, "wrong_type", "system is 1.5, a float"),
        (ROW | {"rejected": [None]}, "wrong_type", "rejected is None"),
        (ROW | {"chosen": ["a", "b"]}, "wrong_type", "a message of chosen is 'a', a str"),
        (ROW | {"chosen": [WATER | {"content": None}]}, "wrong_type", "a message of chosen is None"),
        (ROW | {"preference_set": [{"dimension": "style"}]}, "wrong_type", "preference_set does not fit"),
        (ROW | {"contrast": "style"}, "wrong_type", "contrast is 'style'"),
        (ROW | {"margin": float("nan")}, "wrong_type", "margin is nan"),
        (ROW | {"id": [1]}, "wrong_type", "id is [1]"),
        (ROW | {"chosen": "x" * 10**6, "system": ["x" * 10**6]}, "wrong_type", "system is ['xxxxxxxxxxxx...x"),
        (ROW | {"chosen": [WATER | {"role": "tool"}]}, "unknown_role", "chosen has the role 'tool'; expected one of"),
        (ROW | {"chosen": [USER]}, "no_answer", "chosen does not end with a turn of the assistant"),
        (ROW | {"chosen": []}, "no_answer", "chosen does not end"),
        (ROW | {"chosen": [USER, WATER], "prompt": "x"}, "prompt_disagrees", "data.source.columns={prompt: null}"),
        (
            {"chosen": [{"role": "system", "content": "a"}, USER, WATER], "system": "b"},
            "system_disagrees",
            "data.source.columns={system: null}",
        ),
        (
            {"chosen": [USER, WATER], "rejected": [USER | {"content": "Snow?"}, TEARS]},
            "different_prompts",
            "answer different prompts",
        ),
        ({"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "c"}, "different_prompts", "different prompts"),
        ({"chosen": [USER, USER, WATER]}, "turns_not_alternating", "found ['user', 'user']"),
        ({"chosen": [WATER, WATER]}, "no_user_turn", "the last turn must be the user's"),
        (ROW | {"chosen": " \n"}, "empty_response", "chosen is empty"),
        (ROW | {"rejected": ""}, "empty_response", "rejected is empty"),
        (ROW | {"prompt": ""}, "empty_turn", "turns is empty"),
        (ROW | {"rejected": "Water."}, "equal_responses", "the same text"),
        (ROW | {"chosen": "cut \ud83d"}, "wrong_encoding", "chosen holds '\\ud83d', half of a character"),
    ],
)
def test_what_does_not_fit_is_refused_by_reason(row, reason, message):
    with pytest.raises(BadRowError) as refusal:
        read(row)
    assert refusal.value.reason == reason and message in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "num_read", "dropped"),
    [
        (
            "reward/hh_rlhf_helpful_base_test.jsonl.gz",
            2333,
            {"different_prompts": 9, "empty_response": 4, "turns_not_alternating": 6},
        ),
        ("train/dpo_en_demo.json.gz", 300, {}),
    ],
)
def test_real_files(shared, name, num_read, dropped):
    bad = BadRows(policy=OnBadRow.DROP)
    source = PreferenceFiles(train_file=shared(name))
    examples = list(source.train(0, bad))
    held_out = list(source.validation(0, BadRows()))
    assert len(examples) + len(held_out) == num_read and bad.counts == dropped
    assert 0.03 < len(held_out) / num_read < 0.1
    assert any(len(example.turns) > 1 for example in examples)


def test_a_real_row_of_the_multifaceted_collection(shared):
    rows = [json.loads(line) for line in shared("janus/multifaceted_examples.jsonl").read_text().splitlines()]
    (row,) = (row["row"] for row in rows if row["kind"] == "multifaceted_collection_sft")
    example = read(row, prompt="instruction")
    assert example.system.startswith("As the Stellar Communicator") and example.chosen.startswith("The statement")
    bench = next(row["row"] for row in rows if row["kind"] == "multifaceted_bench_initial_layout")
    names = {"prompt": "user_prompt", "system": "system_prompt", "output": "reference_answer"}
    assert len(read(bench, **names, preference_set="preference").preferences) == 4
