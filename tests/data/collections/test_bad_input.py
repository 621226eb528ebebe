"""Files as people have them: cells of megabytes, several encodings in a file, ids twice, turns in an odd order."""

import json
import time

import pytest

from multifaceted.data.bad_rows import BadRows, DataError, OnBadRow
from multifaceted.data.collections.multifaceted import Multifaceted
from multifaceted.data.dataset import Data
from multifaceted.data.mix import Mix
from multifaceted.data.preference_files import PreferenceFiles
from multifaceted.model.tokenizer import train_tokenizer
from tests.data.collections.sets import SETS, THREE, message, transcript
from tests.data.shapes import write

USER, ANSWER = message("user", "Why rain?"), message("assistant", "It condenses.")
SYSTEM = message("system", "Be brief.")
LARGE = ["multifaceted groups", "multifaceted dpo", "hh_rlhf", "oasst1 flat", "helpsteer", "dsp"]


def longer(value, filling):
    """The same cell with more text in every answer, which is where the number of its row stands."""
    if isinstance(value, str):
        return value + filling if "<" in value and "<extra" not in value else value
    if isinstance(value, dict):
        return {key: longer(item, filling) for key, item in value.items()}
    return [longer(item, filling) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("filling", ["rain ", " \n\n"])
@pytest.mark.parametrize("name", LARGE)
def test_a_row_of_ten_megabytes_is_left_out_in_seconds(tmp_path, name, filling):
    published = SETS[name]
    rows = list(published.rows)
    rows[1] = longer(rows[1], filling * (10**7 // len(filling)) + ".")
    path, short = write(tmp_path / "rows.jsonl", rows), write(tmp_path / "short.jsonl", published.rows)
    source = published.source(train_file=path, validation_file=short, **published.settings)
    data, tokenizer = Data(source=source, max_length=400), train_tokenizer(["What is rain? It is water."] * 9, 300)
    begun = time.monotonic()
    part, _ = data.examples(Mix(), 0, needs_rejected=True)
    encoded = data.encode(part, Mix(), 0, tokenizer, with_rejected=True)
    assert time.monotonic() - begun < 20
    dropped = encoded.dropped["path_too_long"]
    assert dropped >= 1 and len(encoded.trees) + dropped == len(part.examples)


@pytest.mark.parametrize("shape", ["transcript", "messages", "helpsteer"])
def test_a_hundred_thousand_turns_take_no_quadratic_time(tmp_path, shape):
    texts = ["Why?"] * 100_001
    if shape == "transcript":
        row = {
            "prompt": transcript(*texts),
            "chosen": transcript(*texts, "Yes."),
            "rejected": transcript(*texts, "No."),
        }
    else:
        asked = [message(("user", "assistant")[i % 2], text) for i, text in enumerate(texts)]
        row = {"prompt": asked, "chosen": [*asked, message("assistant", "Yes.")], "rejected": "No."}
    rows, source = [row], PreferenceFiles
    if shape == "helpsteer":
        prompt = "".join(f"Why?\n<extra_id_1>{('Assistant', 'User')[i % 2]}\n" for i in range(100_000)) + "Why?"
        rows = [{"prompt": prompt, "response": str(n), "helpfulness": n} for n in range(2)]
        source = SETS["helpsteer"].source
    path = write(tmp_path / "rows.jsonl", rows)
    begun = time.monotonic()
    (example,) = source(train_file=path, validation_file=path).train(0, BadRows())
    assert len(example.turns) == 100_001 and time.monotonic() - begun < 20


def test_lines_in_several_encodings(tmp_path):
    rows = [{"prompt": f"Naïve {n}?", "chosen": "Oui.", "rejected": "Non."} for n in range(4)]
    encodings = ("utf-8", "latin-1", "utf-8-sig", "utf-16-le")
    lines = [json.dumps(row, ensure_ascii=False).encode(e) for row, e in zip(rows, encodings, strict=True)]
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n".join(lines))
    bad = BadRows(policy=OnBadRow.DROP)
    examples = list(PreferenceFiles(train_file=path, validation_file=path).train(0, bad))
    assert [e.turns[0].content for e in examples] == ["Naïve 0?", "Naïve 2?"]
    assert bad.counts.total() == 2 and bad.counts["wrong_encoding"] >= 1
    with pytest.raises(DataError, match="line 2: byte 0xef is not UTF-8; convert the file, for example with iconv"):
        list(PreferenceFiles(train_file=path, validation_file=path).train(0, BadRows()))


def test_an_id_twice_is_named_with_both_places(tmp_path):
    path = write(tmp_path / "a.jsonl", [row | {"id": n // 2} for n, row in enumerate(THREE[:4])])
    source = Multifaceted(train_file=path, validation_file=path)
    with pytest.raises(DataError, match=r"a.jsonl, line 2: id '0' is also that of .*a.jsonl, line 1; make ids unique"):
        list(source.train(0, BadRows()))
    bad = BadRows(policy=OnBadRow.DROP)
    assert len(list(source.train(0, bad))) == 2 and bad.counts == {"duplicate_id": 2}


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([USER, USER, ANSWER], "turns_not_alternating"),
        ([USER, ANSWER, ANSWER], "no_user_turn"),
        ([USER, ANSWER, SYSTEM, USER, ANSWER], "turns_not_alternating"),
        ([USER, SYSTEM, ANSWER], "no_user_turn"),
        ([SYSTEM, SYSTEM, USER, ANSWER], "turns_not_alternating"),
        ([ANSWER, USER, ANSWER], "turns_not_alternating"),
        ([SYSTEM, ANSWER, USER, ANSWER], "turns_not_alternating"),
        ([SYSTEM, ANSWER], "no_user_turn"),
        ([USER, ANSWER, USER], "no_answer"),
        ([USER, message("tool", "42"), ANSWER], "unknown_role"),
    ],
)
@pytest.mark.parametrize("source", [PreferenceFiles, Multifaceted])
def test_turns_in_an_odd_order_are_counted_by_reason(tmp_path, source, turns, reason):
    row = {"chosen": turns, "rejected": [*turns[:-1], message(turns[-1]["role"], "No.")]}
    path, bad = write(tmp_path / "rows.jsonl", [row]), BadRows(policy=OnBadRow.DROP)
    assert not list(source(train_file=path, validation_file=path).train(0, bad)) and bad.counts == {reason: 1}
