"""Token trees are kept by content: the same in any number of processes, never stale, and had again after any fault."""

import copy
import os
import time
from collections import Counter
from dataclasses import replace

import pytest

import multifaceted.data.encode
from multifaceted.data.bad_rows import BadRows, DataError, OnBadRow
from multifaceted.data.encode import COUNTS, TREES, encode
from multifaceted.data.tokenize import Overlong
from multifaceted.model.tokenizer import train_tokenizer
from multifaceted.records import Example, Turn
from multifaceted.template import set_template
from tests.data.test_stored import plain

LONG = "word " * 40
EXAMPLES = [
    Example(
        id=str(i),
        system="You value rain.",
        turns=[Turn(role="user", content=f"Why {i}?")],
        chosen=LONG if i % 5 == 0 else "Because it rains.",
        rejected=["Go away </s>" if i == 7 else "Go away."],
        contrast=["style"],
        margin=0.5,
    )
    for i in range(20)
]


@pytest.fixture(scope="module")
def tokenizer():
    words = train_tokenizer(["You value rain. Why? Because it rains. Go away. word"] * 3, 300)
    set_template(words, "janus")
    return words


def encoded(examples, tokenizer, **settings):
    bad = BadRows(policy=settings.pop("policy", OnBadRow.DROP))
    basis = {"max_length": 60, "overlong": Overlong.DROP, "with_rejected": True}
    result = encode(examples, tokenizer, bad=bad, **basis | settings)
    return [plain(tree) for tree in result.trees], result.dropped, result.cut, bad.counts, bad.samples


@pytest.fixture(scope="module")
def expected(tokenizer):
    return encoded(EXAMPLES, tokenizer)


@pytest.fixture
def counted(monkeypatch):
    """How often examples were tokenized."""
    calls = Counter()
    real = multifaceted.data.encode.tokenize

    def counting(*args, **kwargs):
        calls["calls"] += 1
        return real(*args, **kwargs)

    monkeypatch.setattr(multifaceted.data.encode, "tokenize", counting)
    return calls


def test_what_is_kept_is_what_was_computed(expected, tokenizer, tmp_path, counted):
    trees, dropped, _, bad, samples = expected
    assert len(trees) == 15 and dropped == {"path_too_long": 4} and bad == {"special_token": 1}
    assert "'7'" in samples["special_token"]
    assert encoded(EXAMPLES, tokenizer, cache=tmp_path) == expected
    assert counted["calls"] == 1
    assert encoded(EXAMPLES, tokenizer, cache=tmp_path) == expected
    assert counted["calls"] == 1


def test_parts_and_processes_change_nothing(expected, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(multifaceted.data.encode, "AT_ONCE", 3)
    assert encoded(EXAMPLES, tokenizer) == expected
    monkeypatch.setattr(multifaceted.data.encode, "PARALLEL", 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    assert encoded(EXAMPLES, tokenizer, cache=tmp_path) == expected
    with pytest.raises(DataError, match=r"example '7': .*special token '</s>'"):
        encoded(EXAMPLES, tokenizer, policy=OnBadRow.RAISE)


@pytest.mark.parametrize(
    "change", ["text", "id", "margin", "row", "template", "token", "max_length", "overlong", "rejected", "max_tokens"]
)
def test_a_change_is_a_miss(change, tokenizer, tmp_path, counted):
    encoded(EXAMPLES, tokenizer, cache=tmp_path)
    first, *rest = EXAMPLES
    other, examples, settings = tokenizer, EXAMPLES, {}
    if change in ("text", "id", "margin", "row"):
        changed = {"text": {"system": "You value sun."}, "id": {"id": "new"}, "margin": {"margin": 0.25}, "row": {}}
        examples = rest if change == "row" else [replace(first, **changed[change]), *rest]
    elif change in ("template", "token"):
        other = train_tokenizer([LONG], 300) if change == "token" else copy.deepcopy(tokenizer)
        set_template(other, "mistral" if change == "template" else "janus")
    else:
        settings = {
            "max_length": {"max_length": 59},
            "overlong": {"overlong": Overlong.CUT},
            "rejected": {"with_rejected": False},
            "max_tokens": {"max_tokens": 90},
        }[change]
    fresh = encoded(examples, other, **settings)
    before = counted["calls"]
    assert encoded(examples, other, cache=tmp_path, **settings) == fresh
    assert counted["calls"] == before + 1


@pytest.mark.parametrize("fault", ["cut", "other", "changed", "no counts", "too few"])
def test_a_damaged_cache_is_said_and_made_anew(fault, expected, tokenizer, tmp_path, caplog):
    encoded(EXAMPLES, tokenizer, cache=tmp_path)
    (folder,) = (tmp_path / "tokens").glob("[!.]*")
    trees, counts = folder / TREES, folder / COUNTS
    if fault == "cut":
        trees.write_bytes(trees.read_bytes()[:-100])
    elif fault == "other":
        trees.write_bytes(b"not Arrow")
    elif fault == "changed":
        content = bytearray(trees.read_bytes())
        content[len(content) // 2] ^= 1
        trees.write_bytes(content)
    elif fault == "no counts":
        counts.unlink()
    else:
        counts.write_text(counts.read_text().replace('"trees": 15', '"trees": 16'))
    assert encoded(EXAMPLES, tokenizer, cache=tmp_path) == expected
    assert "tokens are computed again" in caplog.text and str(folder) in caplog.text
    caplog.clear()
    assert encoded(EXAMPLES, tokenizer, cache=tmp_path) == expected and not caplog.text


def test_what_was_kept_beside_bad_rows_does_not_let_them_pass(expected, tokenizer, tmp_path, counted):
    assert encoded(EXAMPLES, tokenizer, cache=tmp_path) == expected
    with pytest.raises(DataError, match=r"example '7': .*special token '</s>'"):
        encoded(EXAMPLES, tokenizer, cache=tmp_path, policy=OnBadRow.RAISE)
    good = [example for example in EXAMPLES if example.id != "7"]
    fresh = encoded(good, tokenizer, cache=tmp_path)
    before = counted["calls"]
    assert encoded(good, tokenizer, cache=tmp_path, policy=OnBadRow.RAISE) == fresh
    assert counted["calls"] == before, "what has no bad rows serves either policy"


def test_a_cache_that_cannot_be_written_is_said(expected, tokenizer, tmp_path, caplog):
    (tmp_path / "tokens").write_text("a file where the folder goes")
    assert encoded(EXAMPLES, tokenizer, cache=tmp_path) == expected
    assert "tokens are not kept" in caplog.text


def _end(*_):
    os._exit(9)


def test_a_process_that_is_killed_leaves_its_work_to_the_others(expected, tokenizer, monkeypatch, caplog):
    monkeypatch.setattr(multifaceted.data.encode, "AT_ONCE", 3)
    monkeypatch.setattr(multifaceted.data.encode, "PARALLEL", 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(multifaceted.data.encode, "_begin", _end)
    assert encoded(EXAMPLES, tokenizer) == expected
    assert "this one does the rest alone" in caplog.text


def test_what_a_killed_job_left_is_removed(tokenizer, tmp_path):
    encoded(EXAMPLES, tokenizer, cache=tmp_path)
    (folder,) = (path for path in (tmp_path / "tokens").iterdir() if path.is_dir())
    (folder / COUNTS).unlink()
    left, at_work = (folder.with_name(f".{folder.name}.{name}") for name in ("left", "at_work"))
    for path, age in ((left, 7200), (at_work, 0)):
        path.mkdir()
        (path / TREES).write_bytes(b"half")
        for touched in (path / TREES, path):
            os.utime(touched, (time.time() - age,) * 2)
    empty = folder.with_name(f".{folder.name}.empty")
    empty.mkdir()
    os.utime(empty, (time.time() - 7200,) * 2)
    encoded(EXAMPLES, tokenizer, cache=tmp_path)
    assert at_work.exists() and not left.exists() and not empty.exists()


def test_a_template_that_tells_the_date_is_a_miss_the_day_after(tokenizer, tmp_path, counted, monkeypatch):
    for today in ("01", "01", "02"):  # a template's clock cannot be set
        monkeypatch.setattr(multifaceted.data.encode, "render_answered", lambda *_, day=today: [day])
        encoded(EXAMPLES, tokenizer, cache=tmp_path)
    assert counted["calls"] == 2


def test_a_text_that_begins_with_nothing_but_blanks_is_counted(tokenizer):
    blank = replace(EXAMPLES[1], id="blank", turns=[Turn(role="user", content=" " * 4000 + "What is rain?")])
    _, _, _, bad, _ = encoded([*EXAMPLES[1:3], blank], tokenizer)
    assert bad == {"blank_beginning": 1}


def test_nothing_left_keeps_nothing(tokenizer, tmp_path):
    with pytest.raises(DataError, match=r"no example is left of 1: .*path_too_long"):
        encoded(EXAMPLES[:1], tokenizer, cache=tmp_path)
    assert not list((tmp_path / "tokens").glob("[!.]*"))
