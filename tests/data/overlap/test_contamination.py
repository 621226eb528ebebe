"""Training examples that show what a bench asks."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multifaceted.data.overlap.contamination import Field, find_contamination
from multifaceted.data.overlap.inverted import LEAST_QUOTED, How
from multifaceted.data.overlap.shingles import jaccard, shingles
from multifaceted.records import Turn
from tests.data.overlap.texts import SENTENCES, edited, example, prompt, sentence, stated

ASKED, MESSAGE, VALUE = sentence("asked"), sentence("message"), sentence("value", 15)
BENCH = {"bench": [prompt("p", ASKED, MESSAGE, [VALUE])]}


def found(examples, benches, near=0.8, by=tuple(Field)):
    matches = find_contamination(examples, benches, near=near, by=by).matches
    return [(match.id, match.bench, match.prompts, match.field, match.how) for match in matches]


@pytest.mark.parametrize("name", [Field.INSTRUCTION, Field.SYSTEM, Field.PREFERENCE])
def test_each_field_is_compared_with_itself(name):
    texts = {Field.INSTRUCTION: ASKED, Field.SYSTEM: MESSAGE, Field.PREFERENCE: VALUE}
    for other, text in texts.items():
        row = {
            Field.INSTRUCTION: example("a", text),
            Field.SYSTEM: example("a", "Hi.", text),
            Field.PREFERENCE: example("a", "Hi.", values=["Kindly.", text]),
        }[name]
        assert found([row], BENCH) == ([("a", "bench", ("p",), name, "exact")] if other is name else [])
        assert found([row], BENCH, by=[each for each in Field if each is not name]) == []


def test_case_and_white_space_are_exact_and_punctuation_is_near():
    rows = [example("a", ASKED.upper().replace(" ", "\n ")), example("b", f"{ASKED}!")]
    assert [match[-1] for match in found(rows, BENCH)] == ["exact", "near"]
    assert [match[0] for match in found(rows, BENCH, near=None)] == ["a"]


def test_a_prompt_that_is_quoted_is_contained():
    quoting = f"Please answer me this:\n\n{ASKED}\n\n{sentence('more', 100)}"
    (match,) = find_contamination([example("a", quoting)], BENCH, near=0.8).matches
    assert (match.field, match.how, match.similarity) == (Field.INSTRUCTION, How.CONTAINED, 1.0)
    assert found([example("a", quoting)], BENCH, near=None) == []
    assert found([example("a", "Hi.", system=f"{MESSAGE} {sentence('more', 100)}")], BENCH) == [], "instructions only"


def test_short_prompts_are_not_looked_for_in_others():
    short, long = (prompt(str(n), sentence(n, n)) for n in (LEAST_QUOTED + 1, LEAST_QUOTED + 2))
    row = example("a", " ".join([short.instruction, sentence("between"), long.instruction]))
    assert [match[2] for match in found([row], {"bench": [short, long]})] == [(long.id,)]
    assert [match[-1] for match in found([example("a", short.instruction)], {"bench": [short]})] == ["exact"]


def test_every_turn_of_the_user_is_asked():
    turns = [("user", "Hi."), ("assistant", MESSAGE), ("user", ASKED), ("assistant", "Wet."), ("user", "Why?")]
    row = replace(example("a", ""), turns=[Turn(role=role, content=text) for role, text in turns])
    benches = {"asked": [prompt("p", ASKED)], "answered": [prompt("p", MESSAGE)]}
    assert found([row], benches) == [("a", "asked", ("p",), Field.INSTRUCTION, How.EXACT)]
    later = replace(prompt("p", "Hello there."), follow_ups=["And then?", ASKED])
    assert found([row], {"bench": [later]}) == [("a", "bench", ("p",), Field.INSTRUCTION, How.EXACT)]


def test_values_are_known_by_their_description_else_by_their_keywords():
    keywords = prompt("p", "Hi there.")
    keywords.preferences = [stated(" ", preference="Dry wit")]
    rows = [example("a", "A."), example("b", "B."), example("c", "C.")]
    rows[0].preferences = [stated("", preference="dry wit", dimension="informativeness")]
    rows[1].preferences = [stated("A joke now and then.", preference="Dry wit")]
    assert [match[0] for match in found(rows, {"bench": [keywords]})] == ["a"]


def test_all_prompts_with_a_text_are_named_and_counted():
    benches = {
        "one": [prompt("a", ASKED, MESSAGE), prompt("b", ASKED.upper(), VALUE), prompt("c", VALUE)],
        "two": [prompt("a", ASKED)],
        "three": [],
    }
    rows = [example("x", ASKED, MESSAGE), example("y", edited(ASKED, {39})), example("z", "No.")]
    contamination = find_contamination(rows, benches, near=0.8)
    assert found(rows, benches)[0] == ("x", "one", ("a", "b"), Field.INSTRUCTION, How.EXACT)
    assert contamination.counts == {
        "one/instruction/exact": 1,
        "one/instruction/near": 1,
        "one/system/exact": 1,
        "two/instruction/exact": 1,
        "two/instruction/near": 1,
    }
    assert contamination.prompts == {"one": {"a", "b"}, "two": {"a"}}
    assert contamination.matches[-1].similarity == jaccard(shingles(ASKED), shingles(edited(ASKED, {39})))


@given(st.lists(SENTENCES, max_size=8), st.lists(SENTENCES, max_size=8), st.sampled_from([0.2, 0.5, 0.8, 1.0]))
def test_matches_are_those_of_comparing_everything_with_everything(asked, shown, near):
    expected = set()
    for i, text in enumerate(shown):
        for j, other in enumerate(asked):
            ours, theirs = shingles(other), shingles(text)
            if not other.strip():
                continue
            if " ".join(text.split()) == " ".join(other.split()):
                expected.add((i, f"{j}", How.EXACT))
            elif jaccard(ours, theirs) >= near:
                expected.add((i, f"{j}", How.NEAR))
            elif len(ours) >= LEAST_QUOTED and len(ours & theirs) / len(ours) >= near:
                expected.add((i, f"{j}", How.CONTAINED))
    rows = [example(str(i), text) for i, text in enumerate(shown)]
    benches = {"bench": [prompt(str(j), text) for j, text in enumerate(asked)]}
    matches = find_contamination(rows, benches, near=near).matches
    assert {(match.index, name, match.how) for match in matches for name in match.prompts} == expected


@given(st.randoms(use_true_random=False))
def test_no_order_changes_what_is_found(order):
    rows = [example(str(i), edited(sentence(i % 5), {i}), sentence(i % 3, vocabulary="s")) for i in range(20)]
    prompts = [prompt(str(i), sentence(i), sentence(i, vocabulary="s")) for i in range(5)]
    expected = set(found(rows, {"bench": prompts}))
    order.shuffle(rows)
    order.shuffle(prompts)
    assert set(found(rows, {"bench": prompts})) == expected and len(expected) > 20


def test_other_vocabularies_share_nothing():
    rows = [example(str(i), *(sentence(i, 30, f"{field}-rain") for field in "is")) for i in range(100)]
    prompts = [prompt(str(i), *(sentence(i, 30, f"{field}-snow") for field in "is")) for i in range(100)]
    assert found(rows, {"bench": prompts}, near=0.05) == []
