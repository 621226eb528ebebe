"""The collection and the bench: size, hold-out, determinism, wordings."""

import ast
import re
from pathlib import Path

import pytest

from multifaceted.mini import rules, world
from multifaceted.mini.holdout import Part, combination_key, part_of
from multifaceted.mini.lexicon import kinds, taxonomy, topics
from multifaceted.mini.messages import render_wording, wordings

EVERY = [["style", "background_knowledge", "informativeness", "harmlessness"]]
FUNCTION_WORDS = set("a an the for on to of they them user would be with it is that has and from".split())


def grams(text):
    words = re.findall(r"[a-z'-]+", text.lower())
    return set(zip(words, words[1:], words[2:], strict=False)), set(words)


def all_wordings(kind, part=Part.TRAIN):
    for name in taxonomy().by_name:
        for frame, phrase in wordings(name, kind, part):
            for user in ("The user", "They"):
                yield render_wording(frame, phrase, user)


def test_the_world_is_as_large_as_it_says():
    world_taxonomy = taxonomy()
    assert list(world_taxonomy.dimensions) == ["style", "background_knowledge", "informativeness", "harmlessness"]
    assert len(world_taxonomy.subdimensions) >= 8 and len(world_taxonomy.preferences) >= 24
    assert sum(map(len, topics().by_part.values())) >= 120 and len(kinds()) >= 8
    assert all(len(wordings(name, "seen")) >= 8 for name in world_taxonomy.by_name)


def test_recombined_wordings_share_no_trigram_and_use_known_words():
    seen = [grams(text) for text in all_wordings("seen")]
    trigrams = set().union(*(g for g, _ in seen))
    known = set().union(*(w for _, w in seen))
    for part in (Part.VALIDATION, Part.TEST):
        for text in all_wordings("recombined", part):
            shared, words = grams(text)
            assert not shared & trigrams, text
            assert words <= known | FUNCTION_WORDS, (text, words - known)


def test_disjoint_wordings_share_no_content_word():
    known = set().union(*(grams(text)[1] for text in all_wordings("seen"))) - FUNCTION_WORDS
    for part in (Part.VALIDATION, Part.TEST):
        for text in all_wordings("disjoint", part):
            assert not grams(text)[1] & known, text


def test_held_out_wordings_are_divided_and_refused_to_training():
    for name in taxonomy().by_name:
        for kind in ("recombined", "disjoint"):
            validation, test = (set(wordings(name, kind, part)) for part in (Part.VALIDATION, Part.TEST))
            assert validation and test and not validation & test
            with pytest.raises(ValueError, match="held out"):
                wordings(name, kind, Part.TRAIN)


def test_training_never_sees_what_is_held_out():
    examples = world.collection(EVERY * 2000, seed=3)
    held_out_topics = [*topics().by_part[Part.VALIDATION], *topics().by_part[Part.TEST]]
    held_out_wordings = {
        w for kind in ("recombined", "disjoint") for p in (Part.VALIDATION, Part.TEST) for w in all_wordings(kind, p)
    }
    for example in examples:
        assert part_of("combination", combination_key([p.preference for p in example.preferences])) is Part.TRAIN
        texts = " ".join([example.turns[0].content, example.chosen, *example.rejected]).lower()
        assert not any(topic in texts for topic in held_out_topics)
        assert not any(wording in example.system for wording in held_out_wordings)


def test_splits_hold_what_their_names_say():
    for part in (Part.VALIDATION, Part.TEST):
        for prompt in world.bench("unseen_combinations", 50, 0, part):
            assert part_of("combination", combination_key([p.preference for p in prompt.preferences])) is part
            assert prompt.metadata["topic"] in topics().by_part[Part.TRAIN]
        for prompt in world.bench("unseen_topics", 50, 0, part):
            assert prompt.metadata["topic"] in topics().by_part[part] and prompt.metadata["topic"] in prompt.instruction


def test_an_example_depends_on_seed_and_index_alone():
    assert world.collection(EVERY * 30, seed=1) == world.collection(EVERY * 50, seed=1)[:30]
    assert world.collection(EVERY * 5, seed=1) != world.collection(EVERY * 5, seed=2)
    assert world.bench("seen", 5, 0, Part.TEST) == world.bench("seen", 9, 0, Part.TEST)[:5]


def test_holdout_is_pinned():
    """A change here changes what every earlier figure meant: raise HOLDOUT_VERSION with it."""
    assert [len(world.combinations(part)) for part in Part] == [910, 134, 252]
    assert [len(topics().by_part[part]) for part in Part] == [262, 27, 71]
    assert part_of("topic", "winter gardening") is part_of("topic", "winter gardening")


def test_validation_pairs_differ_in_all_dimensions_or_in_one():
    pairs = world.validation_pairs(50, seed=0)
    assert {len(pair.contrast) for pair in pairs} == {1, 4}
    assert {pair.contrast[0] for pair in pairs if len(pair.contrast) == 1} == set(taxonomy().dimensions)


def test_pairs_differ_where_they_were_asked_to():
    dimensions = list(taxonomy().dimensions)
    examples = world.collection([[dimension] for dimension in dimensions * 30], seed=2)
    for example in examples:
        stated = {p.dimension: p.preference for p in example.preferences}
        for dimension in dimensions:
            assert rules.satisfies(example.chosen, stated[dimension])
            contrasted = dimension in example.contrast
            assert rules.satisfies(example.rejected[0], stated[dimension]) is not contrasted


def test_an_example_is_restated_in_some_of_its_preferences():
    example = world.collection(EVERY, seed=0)[0]
    one = world.restate(example, example.preferences[:1])
    assert one == world.restate(example, example.preferences[:1]) and one.count(". ") == 1
    assert any(one.endswith(wording) for wording in all_wordings("seen"))
    assert world.restate(example, example.preferences).count(". ") == 4


def test_prompts_that_state_one_dimension_keep_the_rest_of_their_originals():
    dimensions = list(taxonomy().dimensions)
    originals, single = world.bench("unseen_combinations", 40, 0, Part.TEST), world.one_dimension(40, 0, Part.TEST)
    for index, (before, after) in enumerate(zip(originals, single, strict=True)):
        assert after.instruction == before.instruction and after.system.count(". ") == 1
        assert after.preferences == [before.preferences[index % 4]]
        assert after.metadata["dimension"] == dimensions[index % 4] == after.preferences[0].dimension


def test_a_flip_exchanges_one_preference_for_its_rival():
    for prompt in world.flipped(40, 0, Part.TEST):
        taken, dropped = (taxonomy().by_name[prompt.metadata[key]] for key in ("flipped", "dropped"))
        assert taken.subdimension == dropped.subdimension and taken != dropped
        assert [p.preference for p in prompt.preferences].count(taken.name) == 1


def test_a_flipped_prompt_differs_from_its_original_in_one_sentence():
    originals, flips = world.bench("unseen_combinations", 40, 0, Part.TEST), world.flipped(40, 0, Part.TEST)
    held_out = 0
    for before, after in zip(originals, flips, strict=True):
        assert before.instruction == after.instruction
        sentences = [text.split(". ") for text in (before.system, after.system)]
        assert sum(a != b for a, b in zip(*sentences, strict=True)) == 1
        key = combination_key([p.preference for p in after.preferences])
        held_out += part_of("combination", key) is Part.TEST
    assert held_out > 20


def test_bad_requests_are_refused():
    with pytest.raises(ValueError, match="unknown split 'sen'"):
        world.bench("sen", 1, 0, Part.TEST)
    with pytest.raises(ValueError, match="no training part"):
        world.bench("seen", 1, 0, Part.TRAIN)


def test_rules_import_nothing_of_ours():
    tree = ast.parse(Path(rules.__file__).read_text(encoding="utf-8"))
    modules = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert not any((module or "").startswith("multifaceted") for module in modules)
