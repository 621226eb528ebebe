"""What of a collection stays."""

import json

import pytest

from multifaceted.config import ConfigError, build
from multifaceted.data.bad_rows import DataError
from multifaceted.data.dataset import Data
from multifaceted.data.mix import Mix
from multifaceted.data.overlap.clean import Overlap
from multifaceted.data.overlap.contamination import Field
from multifaceted.data.preference_files import PreferenceFiles
from tests.data.overlap.texts import edited, example, prompt, sentence

ASKED = sentence("asked")
BENCHES = {"one": [prompt("p", ASKED, sentence("system"))], "two": [prompt("p", ASKED)]}
ROWS = [
    example("leaked", ASKED),
    example("near the leaked one and not the bench", f"{ASKED} {sentence('more', 8)}"),
    example("plain", sentence("plain")),
    example("copy", sentence("plain").upper()),
    example("near copy", edited(sentence("plain"), {5})),
    example("leaked by its system message", sentence("other"), sentence("system")),
]


def test_contamination_comes_first_and_each_example_has_one_reason():
    found = Overlap(near=0.8).search(ROWS, BENCHES)
    assert found.counts == {"instruction_in_one": 2, "system_in_one": 1, "duplicate": 1, "near_duplicate": 1}
    assert {*range(len(ROWS))} - found.reasons.keys() == {2}
    assert found.samples["instruction_in_one"] == "example 'leaked': exact, like 'p' at 1.00"
    assert found.samples["duplicate"] == "example 'copy', like 'plain' at 1.00"
    assert found.samples.keys() >= found.counts.keys()


def test_a_near_duplicate_stays_where_its_twin_goes():
    rows = [example(str(ends), "Hi.", edited(sentence("system"), ends)) for ends in ({0}, {0, 39})]
    overlap = Overlap(near=0.92)
    assert overlap.search(rows, BENCHES).reasons == {0: "system_in_one"}
    assert overlap.search(rows, {}).reasons == {1: "near_duplicate"}


@pytest.mark.parametrize("drop", [False, True])
def test_a_run_counts_them_or_leaves_them_out(tmp_path, drop):
    bench = tmp_path / "koala.jsonl"
    bench.write_text(json.dumps({"id": "koala_0", "prompt": ASKED}) + "\n")
    rows = [{"prompt": e.turns[0].content, "chosen": "Water.", "rejected": "Tears."} for e in (*ROWS[:5], ROWS[2])]
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    held_out = tmp_path / "held_out.jsonl"
    held_out.write_text(json.dumps(rows[2]) + "\n")
    data = Data(
        source=PreferenceFiles(train_file=pairs, validation_file=held_out),
        max_length=64,
        overlap=Overlap(benches={"koala": bench}, drop=drop),
    )
    train, _ = data.examples(Mix(), 0, needs_rejected=True)
    expected = {"instruction_in_koala": 2, "duplicate": 2, "near_duplicate": 1}
    kept = train.kept({e.id for e in train.examples})
    assert (train.left_out, kept) == ((expected, {}) if drop else ({}, expected))
    assert [e.id for e in train.examples] == [f"pairs:{i}" for i in ([3] if drop else range(1, 7))]


def test_where_all_overlap_the_counts_are_named(tmp_path):
    bench = tmp_path / "koala.jsonl"
    bench.write_text(json.dumps({"id": "koala_0", "prompt": ASKED}) + "\n")
    rows = [{"prompt": f"{ASKED}{sign}", "chosen": "Water.", "rejected": "Tears."} for sign in ("", "!")]
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    held_out = tmp_path / "held_out.jsonl"
    held_out.write_text(json.dumps(rows[0] | {"prompt": "Else?"}) + "\n")
    data = Data(
        source=PreferenceFiles(train_file=pairs, validation_file=held_out),
        max_length=64,
        overlap=Overlap(benches={"koala": bench}, drop=True),
    )
    expected = r"none of 2 examples is left .*: {'instruction_in_koala': 2}; .*'koala_0'.*data.overlap.drop=false"
    with pytest.raises(DataError, match=expected):
        data.examples(Mix(), 0, needs_rejected=True)


def test_a_bench_that_is_not_there_is_named_before_anything_is_read(tmp_path):
    (tmp_path / "rows.jsonl").write_text("not JSON\n")
    data = Data(source=PreferenceFiles(train_file=tmp_path / "rows.jsonl"), max_length=64)
    data.overlap = Overlap(benches={"koala": None})
    with pytest.raises(DataError, match="koala"):
        data.examples(Mix(), 0, needs_rejected=True)
    with pytest.raises(DataError, match=r"no bench is called 'koal'; did you mean 'koala'\?"):
        Overlap(benches={"koal": None})


def test_exact_only_and_some_fields_only():
    found = Overlap(near=None, by=[Field.SYSTEM]).search(ROWS, BENCHES)
    assert found.reasons == {3: "duplicate", 5: "system_in_one"}


@pytest.mark.parametrize("near", [0, -0.1, 1.01])
def test_a_threshold_that_means_nothing_is_refused(near):
    with pytest.raises(ValueError, match=f"near is {near}; it must be above 0"):
        Overlap(near=near)


def test_it_is_built_from_yaml():
    node = {"near": None, "by": ["system"], "drop": True}
    assert build(node, Overlap) == Overlap(near=None, by=[Field.SYSTEM], drop=True)
    with pytest.raises(ConfigError, match="colour"):
        build(node | {"by": ["colour"]}, Overlap)
