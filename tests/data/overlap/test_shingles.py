"""Shingles, and how alike two sets of them are."""

import pytest
from hypothesis import given

from multifaceted.data.overlap.normalise import normalise
from multifaceted.data.overlap.shingles import jaccard, shingles
from tests.data.overlap.texts import ANYTHING


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("What is rain, in a word?", {"what is rain", "is rain in", "rain in a", "in a word"}),
        ("a b a b a", {"a b a", "b a b"}),
        ("Hello there!", {"hello there"}),
        ("?!", {"?!"}),
        (" \n", set()),
        ("雨とは何", {"雨 と は", "と は 何"}),
        ("rain 雨 wet", {"rain 雨 wet"}),
    ],
)
def test_runs_of_three_words(text, expected):
    assert shingles(text) == expected


@given(ANYTHING)
def test_neither_case_nor_white_space_nor_the_ends_matter(text):
    assert shingles(f"\n{text}\t".replace(" ", "  ")) == shingles(normalise(text)) == shingles(text)
    assert bool(shingles(text)) == bool(text.split())


@given(ANYTHING, ANYTHING)
def test_similarity_is_that_of_sets_and_symmetric(one, other):
    a, b = shingles(one), shingles(other)
    expected = sum(x in b for x in a) / len(a | b) if a | b else 1
    assert jaccard(a, b) == jaccard(b, a) == expected
    assert jaccard(a, a) == 1
