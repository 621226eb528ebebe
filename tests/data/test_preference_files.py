"""The source: what is held out, ids, caps, names of columns, and how bad rows end."""

import json
import logging
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multifaceted.config import ConfigError, build
from multifaceted.data.bad_rows import BadRows, DataError, OnBadRow
from multifaceted.data.dataset import Data
from multifaceted.data.mix import Mix
from multifaceted.data.preference_files import PreferenceFiles
from multifaceted.data.source import check_examples
from multifaceted.data.tokenize import Overlong
from multifaceted.model.tokenizer import train_tokenizer
from multifaceted.template import set_template
from tests.data.encoding import encode
from tests.data.shapes import write

ROW = {"system": "You value brevity.", "prompt": "What is rain?", "chosen": "Water.", "rejected": "Tears of gods."}
ROWS = [ROW | {"prompt": f"What is rain number {i}?"} for i in range(100)]

HELD_OUT = ["a:14", "a:17", "a:23", "a:28", "a:46", "a:55", "a:63"]


def source(path, **settings):
    return PreferenceFiles(**{"train_file": path, "validation_share": 0.2} | settings)


def sides(of):
    bad = BadRows(policy=OnBadRow.DROP)
    return list(of.train(0, bad)), list(of.validation(0, bad)), bad


@given(order=st.randoms(use_true_random=False), share=st.sampled_from([0.05, 0.2, 0.5]))
def test_the_split_is_a_partition_that_no_order_changes(tmp_path_factory, order, share):
    rows = [*ROWS, *(row | {"system": "You value poetry.", "chosen": "Wet."} for row in ROWS[::2])]
    plain = sides(source(write(tmp_path_factory.mktemp("plain") / "a.jsonl", rows), validation_share=share))
    mixed = list(rows)
    order.shuffle(mixed)
    shuffled = sides(source(write(tmp_path_factory.mktemp("mixed") / "b.jsonl", mixed), validation_share=share))

    def content(examples):
        return sorted((example.turns[0].content, example.chosen) for example in examples)

    train, held_out = map(content, plain[:2])
    assert [train, held_out] == list(map(content, shuffled[:2]))
    assert len(train) + len(held_out) == len(rows)
    assert not {prompt for prompt, _ in train} & {prompt for prompt, _ in held_out}
    assert abs(len(held_out) / len(rows) - share) < 0.15


def test_the_split_is_that_of_every_release(tmp_path):
    """A policy of one release must not be validated by another on what it was trained on."""
    _, held_out, _ = sides(source(write(tmp_path / "a.jsonl", ROWS), validation_share=0.05))
    assert [example.id for example in held_out] == HELD_OUT


def test_a_validation_file_is_read_whole(tmp_path):
    first, second = write(tmp_path / "a.json", ROWS[:60]), write(tmp_path / "b.parquet", ROWS[60:])
    train, held_out, _ = sides(source(first, validation_file=second))
    assert (len(train), len(held_out)) == (60, 40)


def test_several_files_of_one_name(tmp_path):
    for name in "helpful", "harmless":
        (tmp_path / name).mkdir()
    files = [
        write(tmp_path / "helpful" / "test.jsonl", ROWS[:50]),
        write(tmp_path / "harmless" / "test.jsonl", ROWS[50:]),
    ]
    train, held_out, _ = sides(source(files))
    ids = {example.id for example in [*train, *held_out]}
    assert len(ids) == 100 and f"{files[1]}:1" in ids, "where stems do not tell files apart, paths do"


def test_equal_ids_name_both_lines(tmp_path):
    path = write(tmp_path / "a.jsonl", [ROW | {"id": 7}, ROW | {"id": 8}, ROW | {"id": "7"}])
    with pytest.raises(DataError, match=r"a.jsonl, line 3: id '7' is also that of .*a.jsonl, line 1; make ids unique"):
        list(source(path).train(0, BadRows()))
    assert sides(source(path, validation_file=path))[2].counts == {"duplicate_id": 2}, "once in each reading"
    assert len(list(source(path, validation_file=path, columns={"id": None}).train(0, BadRows()))) == 3


def test_ids_of_validation_must_not_be_those_of_training(tmp_path):
    rows = [row | {"id": place} for place, row in enumerate(ROWS)]
    files = [write(tmp_path / name, part) for name, part in (("a.jsonl", rows[:60]), ("b.jsonl", rows[59:]))]
    data = Data(source=source(files[0], validation_file=files[1]), max_length=99)
    with pytest.raises(DataError, match="example '59': this id occurs twice in training and validation"):
        data.examples(Mix(), 0, needs_rejected=True)


def test_max_examples_counts_good_rows(tmp_path):
    rows = [ROW | {"chosen": ""}, *ROWS[:9]]
    path = write(tmp_path / "a.jsonl", rows)
    train, _, bad = sides(source(path, validation_file=path, max_examples=3))
    assert [example.id for example in train] == ["a:2", "a:3", "a:4"] and bad.counts == {"empty_response": 2}


def test_nothing_held_out_says_what_to_do(tmp_path):
    path = write(tmp_path / "a.jsonl", [ROW])
    with pytest.raises(DataError, match=r"none of 1 rows is held out at data.source.validation_share=1e-09; raise it"):
        list(source(path, validation_share=1e-9).validation(0, BadRows()))


def test_a_misspelt_column_is_refused(tmp_path):
    path = write(tmp_path / "a.jsonl", ROWS)
    with pytest.raises(
        DataError, match=r"data.source.columns.system='sytem' is a column of no row .* found chosen, prompt"
    ):
        list(source(path, columns={"system": "sytem"}).train(0, BadRows()))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"validation_share": 0.0}, "validation_share is 0.0; it must be between 0 and 1"),
        ({"max_examples": 0}, "max_examples is 0; it must be at least 1"),
        ({"columns": {"promt": "question"}}, "columns has 'promt', which is not ours; ours are id, system, prompt"),
        ({"columns": {"prompt": 3}}, "columns"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        build({"train_file": "a", **settings}, PreferenceFiles)


def test_one_file_or_several():
    assert build({"train_file": "a"}, PreferenceFiles).train_file.name == "a"
    assert [path.name for path in build({"train_file": ["a", "b"]}, PreferenceFiles).train_file] == ["a", "b"]


def test_bad_rows_stop_the_run_or_are_left_out_counted_and_said(tmp_path, caplog):
    path = write(tmp_path / "a.jsonl", [ROW | {"chosen": ""}, ROW | {"rejected": ""}, *ROWS])
    with pytest.raises(DataError, match=r"a.jsonl, line 1: chosen is empty \(or leave out .* data.on_bad_row=drop\)"):
        list(source(path).train(0, BadRows()))
    bad = BadRows(policy=OnBadRow.DROP)
    list(source(path).train(0, bad))
    with caplog.at_level(logging.WARNING):
        bad.report("training")
    assert caplog.messages == [f"training rows left out as empty_response: 2, first {path}, line 1: chosen is empty"]


def test_when_no_row_is_good_the_first_bad_one_is_shown(tmp_path):
    bad = BadRows(policy=OnBadRow.DROP)
    examples = list(source(write(tmp_path / "a.jsonl", [{"question": "What?"}])).train(0, bad))
    with pytest.raises(
        DataError, match=r"no examples; left out: {'missing_column': 1}, first .*a.jsonl, line 1: no chosen"
    ):
        list(check_examples(examples, bad, needs_rejected=False))


def test_ten_megabytes_of_text_are_overlong_at_once(tmp_path):
    """Whether in words or in one; tokenized whole, they take a minute and gigabytes."""
    words, word = "What is rain? " * 700_000, "a" * 10**7
    rows = [ROWS[0], ROW | {"prompt": words}, ROW | {"chosen": word}, ROW | {"rejected": words}]
    path = write(tmp_path / "a.jsonl", rows)
    read = source(path, validation_file=path).train(0, BadRows())
    examples = list(check_examples(read, BadRows(), needs_rejected=True))
    tokenizer = train_tokenizer(["You value brevity. What is rain? Water."] * 9, 300)
    set_template(tokenizer, "janus")
    settings = {"max_length": 200, "with_rejected": True, "bad": BadRows()}
    dropped = encode(examples, tokenizer, overlong=Overlong.DROP, **settings)
    assert dropped.dropped == {"prompt_too_long": 1, "path_too_long": 2} and len(dropped.trees) == 1
    cut = encode(examples, tokenizer, overlong=Overlong.CUT, **settings)
    assert cut.cut == {"response_cut": 2} and max(map(len, cut.trees[1].branches)) + len(cut.trees[1].prompt) == 200


def test_files_train_and_what_was_left_out_is_in_the_summary(trained, tmp_path):
    rows = [*ROWS[:20], ROW | {"chosen": ""}, ROW | {"prompt": "Is </s> rain?"}]
    random.Random(0).shuffle(rows)
    path = write(tmp_path / "a.jsonl", rows)
    held_out = write(tmp_path / "b.jsonl", [*ROWS[20:25], ROW | {"rejected": "Water."}])
    files = [f"data.source.train_file={path}", f"data.source.validation_file={held_out}", "data.max_length=200"]
    outcome = trained("orpo", "data=preference_files", *files, "data.on_bad_row=drop", "max_steps=1", without=["data."])
    summary = {key: value for key, value in outcome.summary.items() if "dropped" in key}
    assert outcome.summary["examples"] == 20
    assert summary == {"dropped/empty_response": 1, "dropped/special_token": 1, "validation_dropped/equal_responses": 1}
    assert json.loads((outcome.folder / "summary.json").read_text())["dropped/special_token"] == 1


def test_rows_of_a_folder_are_called_by_what_is_named_not_by_where_it_lies(tmp_path):
    ids = []
    for place in ("here", "there"):
        (tmp_path / place / "set" / "data").mkdir(parents=True)
        write(tmp_path / place / "set" / "data" / "train.jsonl", ROWS[:20])
        train, _, _ = sides(source(tmp_path / place / "set"))
        ids.append([example.id for example in train])
    assert ids[0] == ids[1] and ids[0][0].startswith("data/train:")


def test_a_row_without_a_pair_does_not_count_as_a_wrong_one(trained, tmp_path):
    train = write(tmp_path / "train.jsonl", ROWS[:4])
    pair, single = ROWS[5], {key: value for key, value in ROWS[6].items() if key != "rejected"}
    margins = []
    for name, rows in (("pair", [pair]), ("both", [pair, single])):
        held_out = write(tmp_path / f"{name}.jsonl", rows)
        files = [f"data.source.train_file={train}", f"data.source.validation_file={held_out}", "data.max_length=200"]
        settings = ["data=preference_files", *files, "max_steps=1"]
        outcome = trained("sft", *settings, folder=tmp_path / name, without=["data."])
        margins.append(outcome.summary["val/margin"])
    assert margins[0] == pytest.approx(margins[1], abs=1e-6) and abs(margins[0]) > 1e-4


def test_a_column_that_is_nearly_one_of_ours_is_said(tmp_path, caplog):
    rows = [{"sytem": "You value rain.", "note": "a"} | {k: v for k, v in row.items() if k != "system"} for row in ROWS]
    path = write(tmp_path / "a.jsonl", rows)
    list(source(path).train(0, BadRows()))
    assert caplog.messages == ["the column sytem is not read; if it is system, say data.source.columns={system: sytem}"]
    caplog.clear()
    list(source(path, columns={"system": "sytem"}).train(0, BadRows()))
    assert not caplog.messages
