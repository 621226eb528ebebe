"""Prompts that benches share."""

import gzip
import json

from hypothesis import given
from hypothesis import strategies as st

from multifaceted.data.bad_rows import BadRows
from multifaceted.data.benches import read_bench
from multifaceted.data.benches.overlap import distinct, exact_overlaps
from tests.data.benches.test_benches import REAL

LICENSED = ("alpaca_eval", "koala", "mt_bench", "self_instruct")
PUBLISHED = {
    ("alpaca_eval", "koala"): 144,
    ("alpaca_eval", "mt_bench"): 2,
    ("alpaca_eval", "self_instruct"): 252,
    ("alpaca_eval", "vicuna"): 80,
    ("mt_bench", "vicuna"): 2,
}
"""Every pair that shares a prompt."""


def test_typography_does_not_hide_an_overlap():
    collections = {"a": ["What is rain?", "B", "b"], "b": ["what is\nRAIN?", "c"], "c": ["d"]}
    assert exact_overlaps(collections) == {("a", "b"): 1, ("a", "c"): 0, ("b", "c"): 0}
    assert distinct(collections["a"]) == {"what is rain?", "b"}


@given(st.lists(st.text()), st.lists(st.text()))
def test_an_overlap_has_no_direction_and_no_order(one, other):
    counted = exact_overlaps({"one": one, "other": other})["one", "other"]
    assert counted == exact_overlaps({"other": other[::-1], "one": one[::-1]})["other", "one"]
    assert counted == len(distinct(one)) + len(distinct(other)) - len(distinct([*one, *other]))


def test_overlaps_of_the_real_benches_are_all_found_and_none_invented(shared):
    names = (*LICENSED, "vicuna", "arena_hard")
    prompts = {name: [p.instruction for p in read_bench(name, shared(REAL[name][0]), BadRows())] for name in names}
    with gzip.open(shared("reward/dsp_test.json.gz")) as stream:
        prompts["dsp"] = [row["query"] for row in json.load(stream)]
    assert {pair: number for pair, number in exact_overlaps(prompts).items() if number} == PUBLISHED
    assert len(distinct(text for name in LICENSED for text in prompts[name])) == 919
