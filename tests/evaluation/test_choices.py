"""A choice is read strictly: one letter or one option's text, or nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multifaceted.evaluation.choices import LETTERS, Choice, lettered, likeliest, read_choice

OPTIONS = ["The grandfather", "The grandson", "Can't be determined"]


@pytest.mark.parametrize(
    "reply",
    [
        *("B", "b", "(B)", "(b)", "B.", "B)", "B:", " B \n", "**B**", "`B`", '"B"', "(B).", "**(B)**"),
        *("B. The grandson", "(B) The grandson", "B) because he said so", "B\n\nHe said so.", "**B.** The grandson"),
        *("The answer is B", "The answer is B.", "The answer is (B), the grandson.", "Answer: B", "answer: (B)"),
        *("The correct answer is: B.", "The best answer is **B**"),
        *("The grandson", "the grandson.", "grandson", "The answer is the grandson.", "The answer is B. It is not A."),
    ],
)
def test_a_choice(reply):
    assert read_choice(reply, OPTIONS) == 1


@pytest.mark.parametrize(
    "reply",
    [
        *("", " ", "I do not know.", "D", "(D)", "Z. nobody", "A or B", "(A) or (B)", "A, B", "AB", "B or not"),
        *("A. The grandfather\nB. The grandson\nC. Can't be determined", "B. The grandson, or (A)"),
        *("The answer is A or B", "B.\nNo, the answer is A", "The grandson, or the grandfather", "A grandson spoke."),
        *("It was the grandson.", "Not the grandson", "A man", "Be kind.", "The answer is a matter of taste."),
        *("(B) is wrong and (C) is right.", "1", "2.", "\ud83d"),
    ],
)
def test_no_choice(reply):
    assert read_choice(reply, OPTIONS) is None


def test_options_that_differ_in_an_article_only_are_not_told_apart_by_text():
    assert read_choice("boy", ["the boy", "a boy"]) is None and read_choice("(A)", ["the boy", "a boy"]) == 0


@given(st.integers(2, 8), st.data())
def test_every_option_can_be_chosen_as_it_is_shown(number, data):
    names = data.draw(st.lists(st.text("xyz ", min_size=1).filter(str.strip), min_size=number, max_size=number))
    options = [f"{letter} {name.strip()}".lower() for letter, name in zip("mnopqrst", names, strict=False)]
    shown = lettered(Choice("Which?", "", {str(place): text for place, text in enumerate(options)})).splitlines()
    for place, option in enumerate(options):
        assert read_choice(LETTERS[place], options) == place == read_choice(option, options)
        assert read_choice(shown[1 + place], options) == place


@given(st.text())
def test_whatever_is_said_is_one_of_the_options_or_nothing(text):
    assert read_choice(text, OPTIONS) in (None, 0, 1, 2)


def test_equal_likelihoods_choose_nothing():
    assert likeliest([-3.0, -1.0, -2.0]) == 1 and likeliest([-1.0, -1.0, -2.0]) is None
    assert likeliest([-2.0, -2.0, -1.0]) == 2
