"""Duplicates within a collection."""

import itertools
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multifaceted.data.bad_rows import BadRows, OnBadRow
from multifaceted.data.collections.oasst import Oasst
from multifaceted.data.overlap.duplicates import Reason, find_duplicates
from multifaceted.data.overlap.shingles import jaccard, shingles
from multifaceted.records import Turn
from tests.data.overlap.texts import SENTENCES, edited, example, sentence

SAID = sentence("said")


def pairs(examples, near=0.8):
    return {(each.id, each.first_id, each.reason) for each in find_duplicates(examples, near=near).found}


ROW = example("a", "What is rain?", "Be brief.")


@pytest.mark.parametrize(
    "change",
    [
        {"system": "BE\n\nbrief. "},
        {"turns": [Turn(role="user", content=" what IS rain?")]},
        {"chosen": "water."},
        {"source": "elsewhere"},
        {"preferences": example("", "", values=["Short."]).preferences},
    ],
)
def test_typography_makes_no_other_example(change):
    assert pairs([ROW, replace(ROW, id="b", **change)], None) == {("b", "a", "duplicate")}


@pytest.mark.parametrize(
    "change",
    [
        {"system": None},
        {"system": "Be long."},
        {"turns": [Turn(role="user", content="What is snow?")]},
        {"turns": [*ROW.turns, Turn(role="assistant", content="Wet."), Turn(role="user", content="Why?")]},
        {"chosen": "Wet."},
        {"rejected": []},
        {"rejected": ["Tears.", "Sweat."]},
        {"chosen": "Tears.", "rejected": ["Water."]},
    ],
)
def test_any_other_word_makes_another_example(change):
    assert pairs([ROW, replace(ROW, id="b", **change)], None) == set()


def test_no_system_message_is_an_empty_one():
    assert pairs([example("a", "Hi.", ""), example("b", "Hi.")], None) == {("b", "a", "duplicate")}


def test_the_first_of_a_group_stays():
    rows = [replace(ROW, id=name) for name in "abc"]
    assert pairs(rows) == {("b", "a", "duplicate"), ("c", "a", "duplicate")}
    assert pairs(rows[::-1]) == {("b", "c", "duplicate"), ("a", "c", "duplicate")}
    assert find_duplicates(rows, near=0.8).counts == {"duplicate": 2}


def test_an_instruction_under_other_system_messages_is_no_duplicate_however_long_it_is():
    instruction = sentence(0, length=2000)
    rows = [example(f"{i}", instruction, sentence(i, vocabulary="system")) for i in range(3)]
    assert jaccard(*(shingles(f"{row.turns[0].content} {row.system}") for row in rows[:2])) > 0.95
    assert pairs(rows) == set()


@pytest.mark.parametrize("change", [{"chosen": "Wet."}, {"rejected": ["Sweat."]}, {"rejected": ["Tears.", "Sweat."]}])
def test_a_prompt_answered_anew_is_no_duplicate(change):
    row = example("a", sentence(0))
    assert pairs([row, replace(row, id="b", **change)]) == set()


def test_all_pairs_of_ranked_answers_stay():
    """A long answer that they share makes them no more alike."""
    ranked = [sentence(place, 300 if place == 0 else 20, "answer") for place in range(4)]
    rows = [
        example(f"{better}>{worse}", sentence(0), chosen=ranked[better], rejected=[ranked[worse]])
        for better, worse in itertools.combinations(range(4), 2)
    ]
    assert pairs(rows) == set()
    assert pairs([rows[0], replace(rows[0], id="reverse", chosen=ranked[1], rejected=[ranked[0]])]) == set()


def test_real_ranked_answers_stay(shared):
    path = shared("reward/oasst_en_100_trees.jsonl.gz")
    rows = list(Oasst(train_file=path, validation_share=1e-9).train(0, BadRows(policy=OnBadRow.DROP)))
    found = find_duplicates(rows, near=0.8).found
    assert len(rows) > 700 and len(found) < 0.05 * len(rows), "there were 544 when answers were not compared"
    for each in found:
        one, first = rows[each.index], rows[each.first]
        assert jaccard(shingles(one.chosen), shingles(first.chosen)) >= 0.8


def test_a_copy_with_a_word_changed_in_every_text_is_near():
    texts = {place: sentence(place, vocabulary=place) for place in ("asked", "system", "chosen", "one", "two")}

    def row(name, texts):
        asked, system, chosen, *rejected = texts.values()
        return example(name, asked, system, chosen, rejected)

    rows = [row("a", texts), row("b", {place: edited(text, {0}) for place, text in texts.items()})]
    (found,) = find_duplicates(rows, near=0.8).found
    assert (found.index, found.first, found.reason) == (1, 0, Reason.NEAR_DUPLICATE)
    assert found.similarity == jaccard(shingles(texts["chosen"]), shingles(edited(texts["chosen"], {0})))
    assert pairs(rows, None) == set()


@settings(derandomize=True)  # MinHash may miss a pair, the same ones in every run
@given(
    words=st.sets(st.integers(0, 59), max_size=6),
    others=st.sets(st.integers(0, 59), max_size=6),
    answered=st.sets(st.integers(0, 59), max_size=6),
    near=st.sampled_from([0.5, 0.7, 0.8, 0.9]),
)
def test_near_is_what_sets_of_shingles_say_from_both_sides(words, others, answered, near):
    texts = [sentence(place, 60) for place in range(4)]
    changed = [edited(text, places) for text, places in zip(texts, (words, others, answered, {0}), strict=True)]
    a, b = (example(name, *its, [worse]) for name, (*its, worse) in (("a", texts), ("b", changed)))
    expected = min(jaccard(shingles(one), shingles(other)) for one, other in zip(texts, changed, strict=True))
    for rows in ([a, b], [b, a]):
        found = find_duplicates(rows, near=near).found
        assert [each.similarity for each in found] == ([expected] if expected >= near else [])


@settings(derandomize=True)
@given(st.lists(st.tuples(SENTENCES, st.none() | SENTENCES), max_size=15), st.sampled_from([0.4, 0.8]))
def test_none_is_false_and_none_that_stays_is_near_another(prompts, near):
    rows = [example(str(i), asked, system, rejected=[SAID, f"{i}"]) for i, (asked, system) in enumerate(prompts)]

    def similarity(one, other):
        return min(
            jaccard(shingles(one.turns[0].content), shingles(other.turns[0].content)),
            jaccard(shingles(one.system or ""), shingles(other.system or "")),
            jaccard(*({*shingles(SAID), *shingles(row.rejected[1])} for row in (one, other))),
        )

    found = find_duplicates(rows, near=near).found
    gone = {each.index for each in found}
    for each in found:
        assert each.first < each.index and each.first not in gone
        assert each.similarity == similarity(rows[each.index], rows[each.first]) >= near
    stay = [row for index, row in enumerate(rows) if index not in gone]
    assert not [(a, b) for a in stay for b in stay if a is not b and similarity(a, b) >= near and a.turns[0].content]


@given(st.randoms(use_true_random=False))
def test_order_decides_who_stays_and_not_what_is_found(order):
    groups = {}
    for group in range(4):
        text = sentence(group, 100)
        for copy in range(3):
            groups[f"{group}-{copy}"] = example(f"{group}-{copy}", edited(text, {20 + copy}))
    rows = list(groups.values())
    order.shuffle(rows)
    found = pairs(rows)
    assert len(found) == 8 and {first[0] for _, first, _ in found} == set("0123")
    assert all(one[0] == first[0] for one, first, _ in found)
    ids = [row.id for row in rows]
    assert all(first == next(name for name in ids if name[0] == first[0]) for _, first, _ in found)


def test_other_vocabularies_share_nothing():
    rows = [example(f"{v}{i}", sentence(i, 30, v), sentence(i, 30, v)) for v in ("rain", "snow") for i in range(200)]
    assert pairs(rows, near=0.1) == set()


def test_skipped_examples_are_not_looked_at():
    rows = [replace(ROW, id=name) for name in "abc"]
    assert [(d.index, d.first) for d in find_duplicates(rows, near=0.8, skip={0}).found] == [(2, 1)]


def test_blocks_are_seams_that_nobody_sees(monkeypatch):
    monkeypatch.setattr("multifaceted.data.overlap.duplicates.AT_ONCE", 7)
    rows = [example(str(i), edited(sentence(i % 30, 80), {i // 30})) for i in range(60)]
    random.Random(0).shuffle(rows)
    assert len(pairs(rows)) == 30


def test_of_nothing_there_are_none():
    assert find_duplicates([], near=0.8).found == []
    assert pairs([example("a", " "), example("b", "")], near=0.8) == {("b", "a", "duplicate")}
