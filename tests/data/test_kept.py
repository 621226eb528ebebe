"""Examples that lack something are counted where they are trained on, and only there."""

import pytest

from multifaceted.data.bad_rows import BadRows
from multifaceted.data.blend import Blend
from multifaceted.data.collections.multifaceted import Multifaceted
from multifaceted.data.dataset import Data, counts
from multifaceted.data.mix import Mix
from multifaceted.data.overlap.clean import Overlap
from multifaceted.data.preference_files import PreferenceFiles
from multifaceted.data.source import texts_of
from multifaceted.model.tokenizer import train_tokenizer
from tests.data.collections.sets import THREE, pair
from tests.data.shapes import write

PAIRS = [pair(3 * i, i, "poetry", THREE[3 * i + 1]["output"]) for i in range(4)]
ALONE = [pair(90 + i, 90 + i, "poetry", f"No, {i}.") for i in range(6)]


@pytest.fixture
def source(tmp_path):
    """Four pairs that the SFT split knows, and six that it does not."""
    return Multifaceted(
        train_file=write(tmp_path / "pairs.jsonl", [*PAIRS, *ALONE]),
        validation_file=write(tmp_path / "held_out.jsonl", [pair(50, 50, "law", "No."), *PAIRS[:1]]),
        join=write(tmp_path / "sft.jsonl", THREE),
    )


def summaries(data):
    """What became of the examples of each part, and of training the ids."""
    parts = data.examples(Mix(), 0, needs_rejected=True)
    tokenizer = train_tokenizer(texts_of(parts[0].examples), 300)
    train, validation = (data.encode(part, Mix(), 0, tokenizer, with_rejected=True) for part in parts)
    return counts(train), counts(validation), [tree.id for tree in train.trees]


def test_a_pair_that_is_too_long_is_counted_once(tmp_path, source):
    long = pair(90, 90, "poetry", "No. " * 500)
    write(tmp_path / "pairs.jsonl", [*PAIRS, *ALONE[1:], long])
    train, validation, ids = summaries(Data(source=source, max_length=400))
    assert len(ids) == 9 and train["dropped/path_too_long"] == 1 and train["kept/join_no_prompt"] == 5
    assert validation["kept/join_no_prompt"] == 1


@pytest.mark.parametrize("nested", [False, True])
def test_a_blend_counts_what_it_draws(source, nested):
    if nested:
        source = Blend(sources={"inner": source}, weights={"inner": 1.0}, num_examples=9)
    blend = Blend(sources={"pairs": source}, weights={"pairs": 1.0}, num_examples=7)
    train, validation, ids = summaries(Data(source=blend, max_length=400))
    prefix = "pairs/inner/pairs:" if nested else "pairs/pairs:"
    numbers = [int(name.removeprefix(prefix)) for name in ids]
    assert len(ids) == 7 and train["kept/join_no_prompt"] == sum(number > len(PAIRS) for number in numbers) < 6
    assert validation["kept/join_no_prompt"] == 1


def test_an_overlap_that_is_thinned_out_is_no_overlap(tmp_path):
    rows = [{"system": f"Be {name}.", "prompt": "Rain?", "chosen": "Water.", "rejected": "Sun."} for name in "aab"]
    path = write(tmp_path / "pairs.jsonl", rows)
    held_out = write(tmp_path / "held_out.jsonl", [rows[0] | {"prompt": "Snow?"}])
    data = Data(source=PreferenceFiles(train_file=path, validation_file=held_out), max_length=200, overlap=Overlap())
    whole, _, _ = summaries(data)
    assert whole["kept/duplicate"] == 1
    data.per_instruction = 1
    thinned, _, _ = summaries(data)
    assert thinned["dropped/per_instruction"] == 2 and "kept/duplicate" not in thinned


def test_what_is_kept_is_said_with_its_number(caplog):
    bad, outer = BadRows(), BadRows()
    for number in (1, 2, 2):
        bad.keep("join_no_prompt", f"line {number}", str(number))
    outer.add(bad, named="a/")
    assert outer.kept == {"join_no_prompt": {"a/1", "a/2"}}
    outer.report("train")
    assert "rows kept as join_no_prompt: 2, first line 1" in caplog.text
