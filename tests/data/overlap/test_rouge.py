"""ROUGE-L: the textbook's score, and what the paper computes from it."""

import itertools
import random
import re
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multifaceted.data.overlap.rouge import MOST_OF_INSTRUCTION, preference_diversity, rouge_l, system_message_overlap
from tests.data.overlap.texts import ANYTHING, SENTENCES, example, prompt, stated


def textbook(target, prediction):
    """The recurrence of Lin 2004 with precision and recall; words as the package rouge-score splits them."""
    a, b = (re.sub(r"[^a-z0-9]+", " ", text.lower()).split() for text in (target, prediction))
    if not a or not b:
        return 0.0
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, j in itertools.product(range(len(a)), range(len(b))):
        step = table[i][j] + 1 if a[i] == b[j] else max(table[i][j + 1], table[i + 1][j])
        table[i + 1][j + 1] = step
    precision, recall = table[-1][-1] / len(b), table[-1][-1] / len(a)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@given(ANYTHING, ANYTHING)
def test_it_is_the_textbook_score_and_symmetric(one, other):
    assert rouge_l(one, other) == rouge_l(other, one) == pytest.approx(textbook(one, other), abs=1e-12)


def test_long_texts_with_repeated_words():
    """Beyond the 64 words that the bit-parallel algorithm keeps in one machine word."""
    rng = random.Random(0)
    for length in (63, 64, 65, 130, 300):
        one, other = (" ".join(rng.choices("abcdefgh", k=length)) for _ in range(2))
        assert rouge_l(one, other) == pytest.approx(textbook(one, other), abs=1e-12)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        # As rouge-score 0.1.2 gives them without a stemmer.
        ("The quick brown fox jumps over the lazy dog", "The quick brown dog jumps on the log.", 0.5882352941176471),
        ("police killed the gunman", "the gunman kill police", 0.5),
        ("Don't stop-at 3.5 café", "don t stop at 3 5 caf", 1.0),
        ("İstanbul'da yağmur", "istanbul da ya mur", 0.6666666666666666),
        ("雨とは何", "雨とは何", 0.0),
        ("", "", 0.0),
    ],
)
def test_known_values(one, other, expected):
    assert rouge_l(one, other) == pytest.approx(expected, abs=1e-12)


INSTRUCTIONS = {
    "What is rain?": ["be brief and kind", "be long and kind", "write as a poet"],
    "What is snow?": ["be brief", "write a long text", "be a poet and kind"],
    "What is hail?": [None, "be cold"],
}
ROWS = [example(f"{asked}{i}", asked, system) for asked, its in INSTRUCTIONS.items() for i, system in enumerate(its)]
BENCH = [
    prompt("a", "A.", "be a kind poet"),
    prompt("b", "B.", "write brief texts"),
    prompt("c", "C.", "be a kind poet"),
]


def test_system_messages_by_bench_message_and_instruction():
    messages = {each.system for each in BENCH}
    groups = [[system for system in its if system] for its in INSTRUCTIONS.values()]
    scores = [[textbook(message, system) for system in group] for message in messages for group in groups]
    found = system_message_overlap(ROWS, BENCH)
    assert found.mean == pytest.approx(mean(itertools.chain(*scores)), abs=1e-12)
    assert found.maximum == pytest.approx(mean(map(max, scores)), abs=1e-12)
    assert found.highest == pytest.approx(max(map(max, scores)), abs=1e-12)
    assert (found.scores, found.instructions, found.messages) == (14, 3, 2)


@given(st.randoms(use_true_random=False), st.integers(1, 3))
def test_which_are_sampled_depends_on_no_order(order, number):
    rows, prompts = list(ROWS), list(BENCH)
    expected = system_message_overlap(rows, prompts, instructions=number, messages=1)
    order.shuffle(rows)
    order.shuffle(prompts)
    found = system_message_overlap(rows, prompts, instructions=number, messages=1)
    assert (found.instructions, found.messages) == (number, 1) and found.scores == expected.scores
    assert found.mean == pytest.approx(expected.mean) and found.maximum == pytest.approx(expected.maximum)


@pytest.mark.parametrize(("rows", "prompts"), [([], BENCH), (ROWS, []), ([example("a", "Hi.")], BENCH)])
def test_nothing_to_compare_is_no_score(rows, prompts):
    found = system_message_overlap(rows, prompts)
    assert (found.mean, found.maximum, found.highest, found.scores) == (None, None, None, 0)


def stating(name, asked, **values):
    row = example(name, asked)
    row.preferences = [stated(text, dimension=dimension) for dimension, text in values.items()]
    return row


def test_diversity_is_over_pairs_within_a_dimension_of_one_instruction():
    style, harm = ["short and dry", "short and sweet", "a long poem"], ["no blood", "no blood or fear", "gentle"]
    rows = [stating(f"{i}", "Rain?", style=s, harmlessness=h) for i, (s, h) in enumerate(zip(style, harm, strict=True))]
    rows += [stating("alone", "Snow?", style="short and dry")]
    pairs = {
        name: [textbook(*pair) for pair in itertools.combinations(its, 2)]
        for name, its in {"harmlessness": harm, "style": style}.items()
    }
    found = preference_diversity(rows[::-1])
    assert found.by_dimension == pytest.approx({name: mean(scores) for name, scores in pairs.items()}, abs=1e-12)
    assert found.mean == pytest.approx(mean([*pairs["style"], *pairs["harmlessness"]]), abs=1e-12)
    assert (found.scores, found.instructions) == (6, 1)


def test_three_messages_of_four_dimensions_are_twelve_scores():
    names = ("style", "background_knowledge", "informativeness", "harmlessness")
    rows = [stating(f"{n}{i}", f"{n}?", **{k: f"{k} {i}" for k in names}) for n in range(5) for i in range(3)]
    found = preference_diversity(rows, instructions=4)
    assert (found.instructions, found.scores) == (4, 4 * 12)
    assert preference_diversity([]).mean is None


def test_of_an_instruction_that_thousands_share_a_few_are_compared():
    rows = [stating(f"{i}", "Rain?", style=f"like {i}") for i in range(2000)]
    for i, row in enumerate(rows):
        row.system = f"be number {i}"
    most, scores = MOST_OF_INSTRUCTION, []
    for _ in range(2):
        diversity, overlap = preference_diversity(rows), system_message_overlap(rows, BENCH)
        assert (diversity.scores, overlap.scores) == (most * (most - 1) // 2, 2 * most)
        scores.append((diversity.mean, overlap.mean))
        random.Random(0).shuffle(rows)
    assert scores[0] == pytest.approx(scores[1])


@given(SENTENCES)
def test_a_text_is_wholly_like_itself(text):
    assert rouge_l(text, text) == (1.0 if text else 0.0)
