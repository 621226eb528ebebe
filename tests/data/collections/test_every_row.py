"""No row of any collection is lost without a count, whatever is wrong with it; and every reader runs to tokens."""

import re
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from multifaceted.data.bad_rows import BadRowError, BadRows, OnBadRow
from multifaceted.data.dataset import Data
from multifaceted.data.mix import Mix
from multifaceted.data.source import texts_of
from multifaceted.model.tokenizer import train_tokenizer
from tests.data.collections.sets import (
    SETS,
    THREE,
    binarized,
    domains,
    flat,
    pair,
    rated,
    scored,
    sft,
    transcript,
    tree,
    webgpt,
)
from tests.data.shapes import write

DEFECTS = st.sampled_from([..., None, 5, "", " \n", "\ud83d", [], {}, [5], {"content": 5}, True, float("nan")])
"""What stands in a column instead of what should; `...`: the column is missing."""


@dataclass(kw_only=True, slots=True)
class Ledger(BadRows):
    """Writes down which rows were counted."""

    policy: OnBadRow = OnBadRow.DROP
    counted: Counter[int] = field(default_factory=Counter)

    @contextmanager
    def row(self, where):
        with BadRows.row(self, where):
            try:
                yield
            except BadRowError:
                self.counted[int(re.search(r"(?:line|row) (\d+)$", where)[1]) - 1] += 1
                raise


SYSTEMS = ("poetry", "science", "law")
few, ranks = st.integers(0, 2), st.sampled_from([None, 0, 1, 2])
score = st.sampled_from([None, 1.0, 2.0, 3.0])
role = st.sampled_from(["prompter", "assistant"])


def message_row(n, parent, who, rank, in_tree, **other):
    return flat(n, None if parent is None or n == 0 else parent % n, who, rank, tree=in_tree, **other)


ONE = {
    "multifaceted": lambda n: st.builds(sft, st.just(n), few, st.sampled_from(SYSTEMS)),
    "multifaceted groups": lambda n: st.builds(sft, st.just(n), few, st.sampled_from(SYSTEMS)),
    "multifaceted dpo": lambda n: st.builds(pair, st.just(n), few, st.sampled_from(SYSTEMS), st.just("No.")),
    "multifaceted rm": lambda n: st.builds(pair, st.just(n), few, st.just("law"), st.just("No."), st.just("rm")),
    "hh_rlhf": lambda n: st.builds(
        lambda asked, other: {"chosen": transcript(*asked, f"<{n}> Yes."), "rejected": transcript(*other, "No.")},
        st.lists(st.sampled_from(["Why?", ""]), min_size=1, max_size=3),
        st.lists(st.sampled_from(["Why?"]), min_size=1, max_size=3),
    ),
    "oasst1 flat": lambda n: st.builds(
        message_row, st.just(n), st.none() | st.integers(0, 9), role, ranks, st.sampled_from("ab"),
        deleted=st.sampled_from([False] * 5 + [True]), review_result=st.sampled_from([None, True, True, True, False]),
    ),
    "oasst1 trees": lambda n: st.lists(ranks, max_size=4).map(lambda found: tree(n, *found)),
    "webgpt": lambda n: st.sampled_from([(0.5, -0.5), (0.0, 0.0), (-1, 1)]).map(lambda found: webgpt(n, found)),
    "helpsteer": lambda n: st.builds(rated, st.just(n), few, st.integers(0, 2)),
    "ultrafeedback": lambda n: st.lists(score, max_size=4).map(lambda found: scored(n, *found)),
    "ultrafeedback binarized": lambda n: st.builds(binarized, st.just(n), score, score),
    "dsp": lambda n: st.sampled_from([{}, {"law": "x"}, {"normal": ""}, {"normal": f"<{n}> As in academy."}]).map(
        lambda other: domains(n, **other)
    ),
}  # fmt: skip


ONE |= {f"{name} joined": ONE[name] for name in ("multifaceted dpo", "multifaceted rm")}


@st.composite
def files(draw, name):
    rows = [draw(ONE[name](n)) for n in range(draw(st.integers(1, 10)))]
    for n in draw(st.lists(st.sampled_from(range(len(rows))), max_size=3)):
        if isinstance(rows[n], dict) and rows[n] and draw(st.booleans()):
            column, defect = draw(st.sampled_from(sorted(rows[n]))), draw(DEFECTS)
            rows[n] = {key: value for key, value in rows[n].items() if key != column or defect is not ...}
            if defect is not ...:
                rows[n][column] = defect
        elif draw(st.booleans()):
            rows[n] = draw(st.sampled_from([5, "row", None, {}]))
    return rows


def told(examples):
    """The numbers of the rows whose texts are in the examples."""
    return {int(n) for text in texts_of(examples) for n in re.findall(r"<(\d+)>", text)}


@pytest.mark.parametrize("name", ONE)
@given(data=st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_every_row_is_trained_on_or_counted_once(tmp_path_factory, name, data):
    rows = data.draw(files(name))
    folder = tmp_path_factory.mktemp("rows")
    path = write(folder / "rows.jsonl", rows)
    published, ledger = SETS[name.removesuffix(" joined")], Ledger()
    joined = {"join": write(folder / "sft.jsonl", THREE)} if name.endswith("joined") else {}
    source = published.source(train_file=path, validation_file=path, **published.settings, **joined)
    used = told(source.train(0, ledger))
    assert not used & {*ledger.counted}, "a row in an example is not among those left out"
    assert used | {*ledger.counted} == {*range(len(rows))}, "and every other row is"
    assert ledger.counted.total() == ledger.counts.total() == len(ledger.counted), "once"


@pytest.mark.parametrize("name", SETS)
def test_rows_left_out_by_design_stop_no_run(tmp_path, name):
    """Ties and the like are counted even where a bad row is an error."""
    published = SETS[name]
    path = write(tmp_path / "rows.jsonl", published.rows)
    ledger = Ledger(policy=OnBadRow.RAISE)
    examples = list(published.source(train_file=path, validation_file=path, **published.settings).train(0, ledger))
    assert len(told(examples)) + len(ledger.counted) == len(published.rows) and examples


@pytest.mark.parametrize("file", ["rows.jsonl", "rows.parquet", "rows.json.gz"])
@pytest.mark.parametrize("name", SETS)
def test_every_reader_runs_to_tokens(tmp_path, name, file):
    published = SETS[name]
    path = write(tmp_path / file, published.rows)
    held_out = write(tmp_path / f"held_out_{file}", published.rows)
    source = published.source(train_file=path, validation_file=held_out, **published.settings)
    data, mix = Data(source=source, max_length=400), Mix()
    parts = data.examples(mix, 0, needs_rejected=published.has_pairs)
    examples = [example for part in parts for example in part.examples]
    tokenizer = train_tokenizer(texts_of(examples), 300)
    encoded = [data.encode(part, mix, 0, tokenizer, with_rejected=published.has_pairs) for part in parts]
    branches = [len(tree.branches) for part in encoded for tree in part.trees]
    assert branches == [1 + len(example.rejected) for example in examples]
    assert told(parts[0].examples) == told(parts[1].examples) and len(branches) >= len(published.rows) // 2
