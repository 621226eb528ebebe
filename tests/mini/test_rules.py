"""Rules against hand-written texts, and as properties over the whole world."""

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multifaceted.mini import rules, world
from multifaceted.mini.holdout import Part
from multifaceted.mini.lexicon import kinds, taxonomy, topics
from multifaceted.mini.responses import realise, write_response
from multifaceted.preferences import load_yaml

TEXTS = load_yaml(Path(__file__).parent / "texts.yaml")
PREFERENCES = sorted(taxonomy().by_name)
seeds = st.integers(0, 2**32)
every_topic = [name for names in topics().by_part.values() for name in names]


def test_every_preference_has_a_rule_and_hand_written_texts():
    assert set(rules.RULES) == set(TEXTS) == set(PREFERENCES)
    assert all(len(texts["good"]) >= 2 and len(texts["bad"]) >= 2 for texts in TEXTS.values())


@pytest.mark.parametrize("preference", PREFERENCES)
def test_hand_written_texts(preference):
    accepted = [text for text in TEXTS[preference]["good"] if not rules.satisfies(text, preference)]
    refused = [text for text in TEXTS[preference]["bad"] if rules.satisfies(text, preference)]
    assert (accepted, refused) == ([], [])


@settings(max_examples=400, deadline=None)
@given(seed=seeds)
def test_a_gold_response_satisfies_what_is_stated_and_none_of_its_rivals(seed):
    rng = random.Random(seed)
    scene = world.draw_scene(rng, combination=rng.choice(list(Part)), topic=rng.choice(list(Part)))
    text = world.answer(scene, scene.names, rng)
    for name in scene.names:
        assert rules.satisfies(text, name), (name, text)
        for rival in taxonomy().rivals(taxonomy().by_name[name]):
            assert not rules.satisfies(text, rival.name), (rival.name, text)
    assert rules.on_topic(text, scene.topic, world.topic_words()), text
    assert rules.well_formed(text), text


@settings(max_examples=400, deadline=None)
@given(seed=seeds, contrasted=st.sets(st.sampled_from(list(taxonomy().dimensions)), min_size=1))
def test_a_rejected_response_violates_exactly_the_contrasted_preferences(seed, contrasted):
    rng = random.Random(seed)
    scene = world.draw_scene(rng)
    example = world.draw_example(rng, "x", scene, sorted(contrasted), 2)
    for text in example.rejected:
        for preference in example.preferences:
            assert rules.satisfies(text, preference.preference) is (preference.dimension not in contrasted), text
    assert example.chosen not in example.rejected and len(set(example.rejected)) == 2


@settings(max_examples=100, deadline=None)
@given(seed=seeds)
def test_every_facet_of_a_response_is_audible(seed):
    """Also what is drawn and not stated must show, or `chance` would not be what it says."""
    rng = random.Random(seed)
    names = rng.choice(world.combinations(Part.TRAIN))
    facets = realise(names, rng)
    text = write_response(facets, rng.choice(kinds()), rng.choice(every_topic), rng)
    assert all(rules.satisfies(text, name) for name in facets.values()), (facets, text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Winter gardening is fun.", True),
        ("Start winter gardening now. It is fun.", True),
        ("Summer gardening is fun.", False),
        ("Winter gardening beats summer gardening.", False),
        ("Winter gardening beats cooking.", False),
        ("It is fun.", False),
    ],
)
def test_on_topic(text, expected):
    assert rules.on_topic(text, "winter gardening", world.topic_words()) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The path is short. Rest well today.", True),
        ("- The path is short.\n- Rest is good.", True),
        ("1. The path is short.\n2. Rest is good!", True),
        ("", False),
        ("The path is short. Rest well and", False),
        ("the path is short.", False),
        ("The path path is short.", False),
        ("The path is short. The path is short.", False),
        ("- The path is short.\nRest is good.", False),
        ("1. The path is short.\n1. Rest is good.", False),
        ("A log (a short record is kept.", False),
        ("The path is short.  Rest is good.", False),
        ("[INST] The path is short.", False),
        ("Go on.", False),
    ],
)
def test_well_formed(text, expected):
    assert rules.well_formed(text) is expected


@given(text=st.text(max_size=200))
def test_rules_take_any_text(text):
    for name in PREFERENCES:
        assert rules.satisfies(text, name) in (True, False)
    assert rules.well_formed(text) in (True, False)


def test_unknown_preference_is_an_error():
    with pytest.raises(KeyError):
        rules.satisfies("Text.", "sarcasm")
