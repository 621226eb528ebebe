"""The report's numbers are those of the data, and its rows add up or it says what is lost."""

import json
import re
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multifaceted.data.bad_rows import OnBadRow
from multifaceted.data.blend import Blend
from multifaceted.data.dataset import Data
from multifaceted.data.mix import Mix
from multifaceted.data.overlap.clean import Overlap
from multifaceted.data.preference_files import PreferenceFiles
from multifaceted.data.report import account, boundaries, contents, draw, histograms, lengths_of, overlaps, summaries
from multifaceted.data.source import MiniCollection
from multifaceted.model.tokenizer import train_tokenizer
from multifaceted.records import Example, StatedPreference, Turn
from multifaceted.tables import report_tables
from multifaceted.trees import TokenTree
from tests.data.benches.fixtures import multifaceted_bench
from tests.data.shapes import FORMATS, write

TOKENIZER = train_tokenizer(["Why does it rain? Because the clouds are full."] * 3, 300)
GOOD = [{"prompt": f"Why {i}?", "chosen": "Because it rains.", "rejected": "No."} for i in range(40)]
BAD = [
    {"prompt": "Why?", "chosen": "", "rejected": "No."},
    {"prompt": "Why?", "chosen": "Same.", "rejected": "Same."},
    {"prompt": "Why?", "rejected": "No."},
    {"prompt": "Why?", "chosen": "Yes.", "rejected": None},
    {"prompt": "Why?", "chosen": "Yes.</s>", "rejected": "No."},
    {"prompt": "Why?", "chosen": "word " * 80, "rejected": "No."},
    {"prompt": "why " * 80, "chosen": "Yes.", "rejected": "No."},
]


def accounted(source, mix=None, max_length=60, **settings):
    data = Data(source=source, max_length=max_length, on_bad_row=OnBadRow.DROP, **settings)
    mix = mix or Mix()
    train, validation = data.examples(mix, 0, needs_rejected=True)
    encoded, held_out = (
        data.encode(part, mix, 0, TOKENIZER, with_rejected=True, max_tokens=2 * max_length)
        for part in (train, validation)
    )
    rows = account(train, encoded, validation, held_out, joins_rows=source.joins_rows)
    return rows, encoded, held_out


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("own_validation", [False, True])
def test_every_row_is_an_example_or_counted(tmp_path, name, own_validation):
    path = write(tmp_path / name, GOOD + BAD)
    validation = write(tmp_path / f"other_{name}", [row | {"prompt": "How?"} for row in GOOD[:3]] + BAD[:2])
    source = PreferenceFiles(
        train_file=path, validation_file=validation if own_validation else None, validation_share=0.2
    )
    rows, encoded, held_out = accounted(source)
    assert rows["rows"] == len(GOOD + BAD) + 5 * own_validation and rows["lost"] == 0
    assert (rows["examples"], rows["validation_examples"]) == (len(encoded.trees), len(held_out.trees))
    dropped = Counter()
    for name, number in rows.items():
        part, _, reason = name.partition("/")
        dropped[reason] += number * part.endswith("dropped")
    assert dropped.keys() >= {"empty_response", "equal_responses", "missing_column", "no_rejected", "special_token"}
    assert dropped["path_too_long"] == dropped["prompt_too_long"] == 1
    assert boundaries(encoded, held_out) == {"boundary_inside_token": 0, "special_token": 1}


def test_a_line_that_is_not_json_is_a_row(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join([*map(json.dumps, GOOD), "{", "", "[1"]))
    rows, *_ = accounted(PreferenceFiles(train_file=path, validation_share=0.2))
    assert (rows["rows"], rows["dropped/not_json"], rows["lost"]) == (42, 2, 0)


@dataclass(kw_only=True, slots=True)
class Uneven(PreferenceFiles):
    """A source that makes two examples of some rows, and loses others."""

    losing: bool = False

    def examples_of(self, row, label):
        (example,) = PreferenceFiles.examples_of(self, row, label)
        if self.losing and row.number in (3, 5):
            return
        yield example
        if row.number % 4 == 0:
            example.id += "b"
            yield example


@pytest.mark.parametrize("losing", [False, True])
def test_a_row_that_is_lost_is_said(tmp_path, losing):
    source = Uneven(train_file=write(tmp_path / "rows.jsonl", GOOD), validation_share=0.2, losing=losing)
    rows, *_ = accounted(source)
    assert rows["rows"] == 40 and rows["further_examples_of_a_row"] == 10 and rows["lost"] == 2 * losing
    shown = report_tables(report_of(rows))
    assert ("2 LOST WITHOUT BEING COUNTED" if losing else "50 = ") in shown
    assert ("no row is lost" in shown) != losing


def report_of(rows, **sections):
    lengths = lengths_of([TokenTree(id="1", prompt=[1, 2], branches=[[3], [4, 5]], source="a")])
    return {"version": 1, "rows": rows, **sections, "lengths": summaries(lengths), "histogram": histograms(lengths)}


def test_choices_are_counted_too(tmp_path):
    files = {}
    for name in ("a", "b"):
        path = write(tmp_path / f"{name}.jsonl", [row | {"prompt": f"{name} {i // 2}"} for i, row in enumerate(GOOD)])
        files[name] = PreferenceFiles(train_file=path, validation_share=0.2)
    blend = Blend(sources=files, weights={"a": 2, "b": 1}, num_examples=15)
    rows, *_ = accounted(blend, per_instruction=1)
    assert (
        rows["lost"] == 0
        and rows["rows"] == 80
        and rows["dropped/not_drawn"] > 0
        and rows["dropped/per_instruction"] > 0
    )
    mini = MiniCollection(num_examples=20, num_validation=4)
    rows, *_ = accounted(mini, Mix(views={"style": 1, "none": 1}), max_length=230)
    assert rows["dropped/path_too_long"] > 0
    assert rows["rows"] == 24 and rows["lost"] == 0


@dataclass(kw_only=True, slots=True)
class Joining(PreferenceFiles):
    @property
    def joins_rows(self):
        return True


def test_what_cannot_be_told_is_not_claimed(tmp_path):
    source = Joining(train_file=write(tmp_path / "rows.jsonl", GOOD), validation_share=0.2)
    rows, *_ = accounted(Blend(sources={"a": source}, weights={"a": 1}, num_examples=10))
    assert rows["lost"] is None
    assert "what was lost cannot be told" in report_tables(report_of(rows))


def test_overlaps_are_sections_of_the_report(tmp_path):
    asked = "Why does it rain so much more in the north than in the south of the country?"
    system = "You value short answers that leave out what everybody knows."

    def bench(name, *rows):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    prompts = {
        "koala": bench("koala", {"id": "a", "prompt": asked.upper()}, {"id": "b", "prompt": "Something else."}),
        "multifaceted_bench": bench("bench", multifaceted_bench(0) | {"system": system}),
    }
    stated = [
        StatedPreference(dimension="style", subdimension="", preference=text, description=text)
        for text in ("brief and dry", "brief and warm")
    ]
    turns = [Turn(role="user", content=asked)]
    rows = [Example(id=p.preference, system=system, turns=turns, chosen=p.preference, preferences=[p]) for p in stated]
    rows.append(replace(rows[0], id="twin"))
    found = overlaps(rows, Overlap(benches=prompts, by=["instruction"]))
    assert found["duplicates"] == {"duplicate": 0, "near_duplicate": 0}, "what a bench asks is no duplicate beside"
    assert found["benches"] == {
        "koala/prompts_found": "1 of 2",
        "multifaceted_bench/prompts_found": "0 of 1",
        "koala/instruction/exact": 3,
    }
    scores = found["rouge_l"]
    assert scores["system_messages/multifaceted_bench/mean"] == 1
    assert scores["preferences_of_an_instruction/style"] == round((2 / 3 + 2 / 3 + 1) / 3, 4)
    alone = overlaps(rows, Overlap())
    assert alone["duplicates"] == {"duplicate": 1, "near_duplicate": 0} and not alone["benches"]
    rows, *_ = accounted(MiniCollection(num_examples=4, num_validation=2), max_length=900)
    assert "rouge_l" in report_tables(report_of(rows, **alone))


few = st.sampled_from(["x", "y"])
examples = st.lists(
    st.builds(
        Example,
        id=few,
        system=st.none() | few,
        turns=st.lists(few.map(lambda text: Turn(role="user", content=text)), min_size=1, max_size=2),
        chosen=few,
        rejected=st.lists(few, max_size=1),
        source=few,
        preferences=st.sampled_from(
            [[], [StatedPreference(dimension="d", subdimension="s", preference="p", description="")]]
        ),
    ),
    max_size=30,
)


@given(rows=examples)
def test_contents_are_counted(rows):
    found = contents(iter(rows))
    assert found["sources"] == Counter(e.source for e in rows)
    prompts, systems = found["prompts"], {}
    for e in rows:
        systems.setdefault(str(e.turns), set()).add(e.system)
    assert prompts["instructions"] == len(systems)
    sizes = Counter(map(len, systems.values()))
    assert prompts["instructions/with_2_system_messages"] == sizes[2]
    assert sum(n for key, n in prompts.items() if "/" in key) == len(systems)
    assert prompts["without_system_message"] == sum(not e.system for e in rows)
    assert prompts["without_preference_set"] == sum(not e.preferences for e in rows)


sizes = st.integers(1, 300) | st.integers(1, 20_000)


@given(shapes=st.lists(st.tuples(sizes, st.lists(sizes, min_size=1, max_size=3)), min_size=1, max_size=20))
def test_lengths_and_histograms(shapes):
    trees = [
        TokenTree(id="", prompt=np.zeros(p), branches=[np.zeros(b) for b in branches], source="")
        for p, branches in shapes
    ]
    lengths = lengths_of(iter(trees))
    assert sorted(lengths["path"]) == sorted(p + b for p, branches in shapes for b in branches)
    assert ("rejected" in lengths) == any(len(branches) > 1 for _, branches in shapes)
    stated = summaries(lengths)["prompt"]
    assert stated["min"] <= stated["median"] <= stated["95 %"] <= stated["max"] == max(p for p, _ in shapes)
    histogram = histograms(lengths)
    edges = histogram.pop("edges")
    assert edges[0] == 0 and edges == sorted(set(edges)) and edges[-1] > max(lengths["path"]) and len(edges) <= 13
    for name, counts in histogram.items():
        assert len(counts) == len(edges) - 1 and sum(counts) == len(lengths[name])
        assert counts[0] == sum(value < edges[1] for value in lengths[name])


@pytest.mark.parametrize("limit", [3, 8192])
def test_a_figure_is_a_picture(tmp_path, limit):
    lengths = lengths_of([TokenTree(id="1", prompt=[1, 2], branches=[[3]], source="a")])
    draw(lengths, tmp_path / "new" / "lengths.png", limit=limit)
    assert (tmp_path / "new" / "lengths.png").read_bytes().startswith(b"\x89PNG")


def test_tables_show_every_section(tmp_path):
    rows = {"rows": 5, "further_examples_of_a_row": 0, "examples": 4, "validation_examples": 1, "lost": 0}
    sources = {f"source {i}": i for i in range(25)}
    shown = report_tables(report_of(rows, duplicates={"exact": 1}, benches={"mt_bench": 7}, sources=sources))
    assert "5 = 4 examples + 1 for validation: no row is lost" in shown
    assert "mt_bench  7" in shown and "and 5 more" in shown and "source 24" not in shown
    assert re.search(r"prompt +2 +2 +2 +2 +2\n", shown) and "#" * 14 in shown and shown.isascii()
