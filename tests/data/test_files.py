"""Rows from a file, on a fixture written here, and what is refused."""

import json

import pytest

from multifaceted.data.files import JsonlExamples, read_examples
from multifaceted.data.source import DataError, check_examples
from multifaceted.records import RecordError

PREFERENCE = {"dimension": "style", "subdimension": "Clarity", "preference": "brief", "description": "Short."}
ROW = {"system": "You value brevity.", "prompt": "What is rain?", "chosen": "Water.", "rejected": "Tears of gods."}


def written(tmp_path, *rows):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_rows_become_examples(tmp_path):
    group = ROW | {"rejected": ["Tears.", "Luck."], "id": "g", "preference_set": [PREFERENCE], "main_source": "nectar"}
    pair, three = read_examples(written(tmp_path, ROW, group))
    assert pair.rejected == ["Tears of gods."] and pair.source == "rows" and pair.turns[0].content == "What is rain?"
    assert three.id == "g" and len(three.rejected) == 2 and three.preferences[0].subdimension == "Clarity"
    assert three.source == "nectar"
    check_examples([pair, three], needs_rejected=True)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "What?", "rejected": "x"}, r"line 2: column chosen is missing; found prompt, rejected"),
        ({}, "column prompt, chosen is missing; found nothing"),
        (["a", "list"], "expected an object .* found list"),
        (ROW | {"preference_set": [{"dimension": "style"}]}, "preference_set does not fit"),
    ],
)
def test_a_row_that_does_not_fit_is_refused_with_file_and_line(tmp_path, row, message):
    with pytest.raises(DataError, match=message):
        read_examples(written(tmp_path, ROW, row))


@pytest.mark.parametrize(
    ("change", "message"),
    [({"chosen": 5}, "chosen is 5, a int"), ({"chosen": ""}, "chosen is empty"), ({"rejected": "Water."}, "same text")],
)
def test_values_are_checked_before_training(tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        check_examples(read_examples(written(tmp_path, ROW | change)), needs_rejected=True)


def test_files_train(trained, tmp_path):
    rows = [ROW | {"prompt": f"What is rain number {i}?", "id": str(i)} for i in range(6)]
    path = written(tmp_path, *rows)
    files = [f"data.source.train_file={path}", f"data.source.validation_file={path}", "data.max_length=200"]
    outcome = trained("orpo", "data=jsonl", *files, "max_steps=1", without=["data."])
    assert outcome.summary["examples"] == 6


def test_a_file_that_does_not_exist_or_is_not_json(tmp_path):
    with pytest.raises(RecordError, match="does not exist"):
        JsonlExamples(train_file=tmp_path / "a", validation_file=tmp_path / "b").train(0)
    (tmp_path / "broken.jsonl").write_text('{"prompt": "a", "chosen": "b"}\n{oops\n')
    with pytest.raises(RecordError, match="line 2: not JSON"):
        read_examples(tmp_path / "broken.jsonl")
