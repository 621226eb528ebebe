"""Token trees are kept by content: the same in any number of processes, never stale, and had again after any fault."""

import copy
import io
import logging
import multiprocessing
import os
import resource
import signal
from collections import Counter
from dataclasses import replace
from functools import partial

import pyarrow as pa
import pytest

import multifaceted.data.dataset
import multifaceted.data.encode
import multifaceted.data.token_map
from multifaceted.data.bad_rows import BadRows, DataError, OnBadRow
from multifaceted.data.dataset import Data
from multifaceted.data.examples import store_examples
from multifaceted.data.mix import Mix, Views
from multifaceted.data.source import DataSource
from multifaceted.data.tokenize import Limits, Overlong
from multifaceted.model.tokenizer import train_tokenizer
from multifaceted.records import Example, Turn
from multifaceted.template import set_template
from tests.data.encoding import encode
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
    real = multifaceted.data.token_map.tokenize

    def counting(examples, *args, **kwargs):
        calls["calls"] += 1
        calls["examples"] += len(examples)
        return real(examples, *args, **kwargs)

    monkeypatch.setattr(multifaceted.data.token_map, "tokenize", counting)
    return calls


def test_what_is_kept_is_what_was_computed(expected, tokenizer, tmp_path, counted):
    trees, dropped, _, bad, samples = expected
    assert len(trees) == 15 and dropped == {"path_too_long": 4} and bad == {"special_token": 1}
    assert "'7'" in samples["special_token"]
    assert encoded(EXAMPLES, tokenizer, cache=tmp_path) == expected
    assert counted["calls"] == 1
    assert encoded(EXAMPLES, tokenizer, cache=tmp_path) == expected
    assert counted["calls"] == 1


@pytest.fixture
def two_processes(monkeypatch, tmp_path):
    """Tokenize a few examples at a time, in two processes, from a file."""
    monkeypatch.setattr(multifaceted.data.token_map, "BATCH", 3)
    monkeypatch.setattr(multifaceted.data.token_map, "PARALLEL", 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr("tests.data.encoding.store_examples", partial(store_examples, cache=tmp_path, in_memory=0))


def test_parts_and_processes_change_nothing(expected, tokenizer, tmp_path, two_processes):
    environment, variables = os.environ, dict(os.environ)
    assert encoded(EXAMPLES, tokenizer) == expected
    assert encoded(EXAMPLES, tokenizer, cache=tmp_path) == expected
    assert os.environ is environment and dict(os.environ) == variables
    assert len(list((tmp_path / "datasets").glob("cache-*_of_00002.arrow"))) == 2
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


@pytest.mark.parametrize("fault", ["cut", "other", "fewer rows"])
def test_a_damaged_cache_is_said_and_made_anew(fault, expected, tokenizer, tmp_path, caplog):
    encoded(EXAMPLES, tokenizer, cache=tmp_path)
    (path,) = (tmp_path / "datasets").glob("cache-*.arrow")
    if fault == "cut":
        path.write_bytes(path.read_bytes()[:-500])
    elif fault == "other":
        path.write_bytes(b"not Arrow")
    else:
        with pa.OSFile(str(path), "rb") as file:
            table = pa.ipc.open_stream(file).read_all()
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table.slice(0, 7))
    assert encoded(EXAMPLES, tokenizer, cache=tmp_path) == expected
    assert "tokens are computed again" in caplog.text and str(path) in caplog.text
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
    (tmp_path / "datasets").write_text("a file where the folder goes")
    assert encoded(EXAMPLES, tokenizer, cache=tmp_path) == expected
    assert "tokens are not kept" in caplog.text


def test_a_process_that_is_killed_leaves_its_work_to_this_one(
    expected, tokenizer, tmp_path, monkeypatch, caplog, two_processes
):
    real, own = multifaceted.data.token_map.tokenize, os.getpid()

    def killed(*args, **kwargs):
        if os.getpid() != own:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)

    monkeypatch.setattr(multifaceted.data.token_map, "tokenize", killed)
    assert encoded(EXAMPLES, tokenizer, cache=tmp_path) == expected
    assert "this one does the rest alone" in caplog.text


class Words(DataSource):
    """System messages that are as long as an example's number."""

    default_message = "Help."

    def system_message(self, example, preferences):
        return "word " * (6 * int(example.id))


def test_views_are_assigned_after_drops_and_tokenized_once(tokenizer, counted, tmp_path):
    few = [replace(example, chosen="It rains.", rejected=["Go."]) for example in EXAMPLES]
    rows = store_examples(few)
    mix = Mix(views={"all": 1, "none": 1, "default": 2})
    views = Views(mix=mix, source=Words(), seed=3)
    limits, bad = Limits(max_length=90), BadRows()
    result = multifaceted.data.encode.encode(
        rows, tokenizer, limits, with_rejected=True, bad=bad, views=views, cache=tmp_path
    )
    number = len(result.trees)
    assert 8 < number < 20 and result.dropped.total() == 20 - number and not bad.counts
    assert sum(abs(result.views[name] - share * number) < 1 for name, share in mix.view_shares.items()) == 3
    assert counted["examples"] < 20 + 20 / 2, "all once, and those whose view changed"
    names = dict(zip(result.trees.ids, views.assign(result.trees.ids), strict=True))
    for tree in result.trees:
        shown = views.show(few[int(tree.id)], views.names[names[tree.id]])
        alone = encode([shown], tokenizer, max_length=90, bad=BadRows()).trees[0]
        assert plain(alone) == plain(tree)
    assert set(result.trees.ids) == {
        example.id
        for example in few
        if all(not encode_drops(views.show(example, name), tokenizer) for name in views.names)
    }


def encode_drops(example, tokenizer):
    rows = multifaceted.data.token_map.tokenize([example], tokenizer, Limits(max_length=90), with_rejected=True)
    return rows[0].tree is None


def test_a_template_that_tells_the_date_is_a_miss_the_day_after(tokenizer, tmp_path, counted, monkeypatch):
    for today in ("01", "01", "02"):  # a template's clock cannot be set
        monkeypatch.setattr(multifaceted.data.token_map, "render_answered", lambda *_, day=today: [day])
        encoded(EXAMPLES, tokenizer, cache=tmp_path)
    assert counted["calls"] == 2


def test_a_text_that_begins_with_nothing_but_blanks_is_counted(tokenizer):
    blank = replace(EXAMPLES[1], id="blank", turns=[Turn(role="user", content=" " * 4000 + "What is rain?")])
    _, _, _, bad, _ = encoded([*EXAMPLES[1:3], blank], tokenizer)
    assert bad == {"blank_beginning": 1}


def test_nothing_left_keeps_nothing(tokenizer, tmp_path):
    with pytest.raises(DataError, match=r"no example is left of 1: .*path_too_long"):
        encoded(EXAMPLES[:1], tokenizer, cache=tmp_path)


def in_a_process(work, processes=1):
    """What `work` returns in each of several processes that run at once."""
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        return pool.map(work, range(processes))


def test_two_jobs_at_once_share_a_cache(expected, tokenizer, tmp_path):
    job = partial(_encoded_in_a_job, tokenizer, tmp_path)
    assert in_a_process(job, 2) == [expected] * 2 == [job(0)] * 2
    assert len(list((tmp_path / "datasets").glob("cache-*.arrow"))) == 1


def _encoded_in_a_job(tokenizer, cache, _):
    return encoded(EXAMPLES, tokenizer, cache=cache)


def test_a_full_disk_costs_no_row(tokenizer, tmp_path):
    """Where no file may grow beyond 20 kB: examples and tokens stay in memory."""
    number, trees, logged = in_a_process(partial(_with_small_files, tokenizer, tmp_path))[0]
    assert number == 300 and len(trees) == 300
    assert "examples are read into memory" in logged and "tokens are not kept" in logged


class Many(DataSource):
    def train(self, seed, bad, contrasts=None):
        return [replace(EXAMPLES[1], id=str(i), chosen=f"It rains {i}. " * 4) for i in range(300)]

    def validation(self, seed, bad):
        return [replace(EXAMPLES[1], id="held out")]


def _with_small_files(tokenizer, cache, _):
    stream = io.StringIO()
    logging.getLogger("multifaceted").addHandler(logging.StreamHandler(stream))
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    multifaceted.data.dataset.store_examples = partial(store_examples, in_memory=3)
    data = Data(source=Many(), max_length=200)
    train, _ = data.examples(Mix(), 0, needs_rejected=True, cache=cache)
    trees = data.encode(train, Mix(), 0, tokenizer, with_rejected=True, cache=cache).trees
    return len(train.examples), [plain(tree) for tree in trees], stream.getvalue()
