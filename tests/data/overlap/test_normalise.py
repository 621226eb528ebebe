"""The form in which texts are compared."""

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multifaceted.data.overlap.normalise import normalise

SPELLINGS = {
    "What is rain?": [" what  IS\n\train? ", "Ｗｈａｔ is rain？", "What\u00a0is\u2003rain?"],
    "Straße": ["STRASSE", "strasse"],
    "café": ["cafe\u0301", "CAFE\u0301"],
    "ǰ": ["J\u030c"],
}


@pytest.mark.parametrize("text", SPELLINGS)
def test_spellings_of_one_text_are_one(text):
    assert {normalise(other) for other in SPELLINGS[text]} == {normalise(text)}


@pytest.mark.parametrize(("one", "other"), [("a b", "ab"), ("rain?", "rain"), ("2+2", "2-2"), ("", "a")])
def test_other_texts_stay_apart(one, other):
    assert normalise(one) != normalise(other)


def test_case_and_width_of_every_character_are_folded_once():
    for character in map(chr, range(sys.maxunicode + 1)):
        once = normalise(character)
        assert normalise(once) == once, hex(ord(character))


@given(st.text(st.characters(codec="utf-8")))
def test_nothing_is_left_to_normalise(text):
    once = normalise(text)
    assert normalise(once) == once
    assert normalise(text.lower()) == once
    assert once == " ".join(once.split()) and unicodedata.is_normalized("NFKC", once)
