"""The mini collection (training) and the mini bench (evaluation): examples from a seed, each by its own stream.

Example `i` depends on the seed and on `i` alone, so a longer collection begins with the shorter one.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product

from multifaceted.mini.holdout import Part, combination_key, part_of
from multifaceted.mini.lexicon import Kind, kinds, taxonomy, topics
from multifaceted.mini.messages import system_message
from multifaceted.mini.responses import realise, write_response
from multifaceted.records import Example, Prompt, StatedPreference, Turn

SPLITS = ("seen", "unseen_combinations", "unseen_wordings", "unseen_topics", "disjoint_wordings")


@cache
def combinations(part: Part) -> tuple[tuple[str, ...], ...]:
    """Preference sets (one name per dimension, in the taxonomy's order) of a part."""
    world = taxonomy()
    every = product(*([p.name for p in world.choices(dimension)] for dimension in world.dimensions))
    return tuple(names for names in every if part_of("combination", combination_key(list(names))) is part)


@cache
def topic_words() -> frozenset[str]:
    """All words of topic names; no other sentence of this world uses them."""
    return frozenset(topics().settings) | frozenset(topics().activities)


@cache
def stated(names: tuple[str, ...]) -> tuple[StatedPreference, ...]:
    """A preference set in the spelling of the released collections."""
    world = taxonomy()
    return tuple(
        StatedPreference(
            dimension=p.dimension, subdimension=p.subdimension, preference=p.name, description=p.description
        )
        for p in (world.by_name[name] for name in names)
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """What is asked, on which topic, and which preferences the user states."""

    kind: Kind
    topic: str
    ask: str
    names: tuple[str, ...]


def draw_scene(rng: random.Random, *, combination: Part = Part.TRAIN, topic: Part = Part.TRAIN) -> Scene:
    """Draw a scene with its combination and its topic from the given parts."""
    kind = rng.choice(kinds())
    name = rng.choice(topics().by_part[topic])
    return Scene(
        kind=kind, topic=name, ask=rng.choice(kind.asks).format(t=name), names=rng.choice(combinations(combination))
    )


def answer(scene: Scene, names: Sequence[str], rng: random.Random, *, avoid: Sequence[str] = ()) -> str:
    """A response to the scene's instruction that realises `names` and, where it is free to choose, none of `avoid`."""
    return write_response(realise(names, rng, avoid=avoid), scene.kind, scene.topic, rng)


def rival_set(names: Sequence[str], dimensions: Sequence[str], rng: random.Random) -> tuple[str, ...]:
    """`names` with another preference in each of `dimensions`."""
    world = taxonomy()
    changed = []
    for name in names:
        preference = world.by_name[name]
        if preference.dimension in dimensions:
            others = [p.name for p in world.choices(preference.dimension) if p.name != name]
            changed.append(rng.choice(others))
        else:
            changed.append(name)
    return tuple(changed)


def draw_example(
    rng: random.Random, identifier: str, scene: Scene, contrast: Sequence[str], num_rejected: int
) -> Example:
    """An example whose rejected responses were written for sets that differ from the stated one in `contrast`.

    As in the paper (section 3.2), a rejected response is a good answer to the same instruction for someone else.
    It violates every contrasted preference and keeps the others.
    """
    rejected: list[str] = []
    chosen = answer(scene, scene.names, rng)
    contrasted = [name for name in scene.names if taxonomy().by_name[name].dimension in contrast]
    while len(rejected) < num_rejected:
        response = answer(scene, rival_set(scene.names, contrast, rng), rng, avoid=contrasted)
        if response != chosen and response not in rejected:
            rejected.append(response)
    return Example(
        id=identifier,
        system=system_message(scene.names, rng),
        turns=[Turn(role="user", content=scene.ask)],
        chosen=chosen,
        rejected=rejected,
        preferences=list(stated(scene.names)),
        contrast=list(contrast),
        source=f"mini/{scene.kind.name}",
    )


def collection(contrasts: Sequence[Sequence[str]], seed: int, *, num_rejected: int = 1) -> list[Example]:
    """Combinations, wordings and topics of the training part.

    Args:
        contrasts: for each example, the dimensions in which its pairs differ.
    """
    examples = []
    for index, contrast in enumerate(contrasts):
        rng = random.Random(f"collection:{seed}:{index}")
        scene = draw_scene(rng)
        examples.append(draw_example(rng, f"mini-{seed}-{index}", scene, contrast, num_rejected))
    return examples


def validation_pairs(num_examples: int, seed: int, *, num_rejected: int = 1) -> list[Example]:
    """Held-out pairs on validation combinations. In turn they differ in every dimension and in exactly one each."""
    dimensions = list(taxonomy().dimensions)
    contrasts = [dimensions, *([dimension] for dimension in dimensions)]
    examples = []
    for index in range(num_examples):
        rng = random.Random(f"validation:{seed}:{index}")
        scene = draw_scene(rng, combination=Part.VALIDATION)
        contrast = contrasts[index % len(contrasts)]
        examples.append(draw_example(rng, f"mini-validation-{seed}-{index}", scene, contrast, num_rejected))
    return examples


def restate(example: Example, preferences: Sequence[StatedPreference]) -> str:
    """A system message of this world that states some of an example's preferences, the same at every call."""
    names = [p.preference for p in preferences]
    return system_message(names, random.Random(f"restate:{example.id}:{'+'.join(names)}"))


def bench(split: str, num_prompts: int, seed: int, part: Part) -> list[Prompt]:
    """Prompts of one split, with held-out combinations, wordings or topics of `part` (validation or test).

    Raises:
        ValueError: `split` is unknown, or `part` is the training part.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; the mini bench has {', '.join(SPLITS)}")
    if part is Part.TRAIN:
        raise ValueError("the bench has no training part")
    return [_bench_prompt(split, seed, index, part) for index in range(num_prompts)]


def one_dimension(num_prompts: int, seed: int, part: Part) -> list[Prompt]:
    """The prompts of `unseen_combinations`, each stating its preference in one dimension only, each dimension in turn.

    `metadata["dimension"]` names it.
    """
    dimensions = list(taxonomy().dimensions)
    prompts = []
    for index in range(num_prompts):
        rng, scene = _bench_scene("unseen_combinations", seed, index, part)
        place = index % len(dimensions)
        prompt = _bench_prompt("unseen_combinations", seed, index, part)
        prompt.id, prompt.split = f"one-{prompt.id}", "one_dimension"
        prompt.system = system_message([scene.names[place]], rng)
        prompt.preferences = list(stated(scene.names))[place : place + 1]
        prompt.metadata |= {"dimension": dimensions[place]}
        prompts.append(prompt)
    return prompts


def flipped(num_prompts: int, seed: int, part: Part) -> list[Prompt]:
    """The prompts of `unseen_combinations`, each with one preference exchanged for a rival, all else word for word.

    Where an exchange leads to a set that is held out as well, it is taken. `metadata["flipped"]` names the preference
    that came in, `metadata["dropped"]` the one that went out.
    """
    prompts = []
    for index in range(num_prompts):
        scene = _bench_scene("unseen_combinations", seed, index, part)[1]
        exchanges = _exchanges(scene.names)
        held_out = [names for names in exchanges if part_of("combination", combination_key(list(names))) is part]
        names = random.Random(f"flip:{part.value}:{seed}:{index}").choice(held_out or exchanges)
        prompt = _bench_prompt("unseen_combinations", seed, index, part, names)
        (dropped,), (taken,) = set(scene.names) - set(names), set(names) - set(scene.names)
        prompt.id, prompt.split = f"flip-{prompt.id}", "flip"
        prompt.metadata |= {"flipped": taken, "dropped": dropped}
        prompts.append(prompt)
    return prompts


def _exchanges(names: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Every set that differs from `names` by one preference and its rival."""
    world = taxonomy()
    return [
        (*names[:place], rival.name, *names[place + 1 :])
        for place, name in enumerate(names)
        for rival in world.rivals(world.by_name[name])
    ]


def _bench_scene(split: str, seed: int, index: int, part: Part) -> tuple[random.Random, Scene]:
    rng = random.Random(f"bench:{part.value}:{split}:{seed}:{index}")
    scene = draw_scene(
        rng,
        combination=part if split == "unseen_combinations" else Part.TRAIN,
        topic=part if split == "unseen_topics" else Part.TRAIN,
    )
    return rng, scene


def _bench_prompt(split: str, seed: int, index: int, part: Part, names: tuple[str, ...] | None = None) -> Prompt:
    """Prompt `index` of a split; `names` state another set in the same words where they agree."""
    rng, scene = _bench_scene(split, seed, index, part)
    wording = {"unseen_wordings": "recombined", "disjoint_wordings": "disjoint"}.get(split, "seen")
    stating = names or scene.names
    return Prompt(
        id=f"{split}-{seed}-{index}",
        split=split,
        system=system_message(stating, rng, wording=wording, part=part),
        instruction=scene.ask,
        preferences=list(stated(stating)),
        metadata={"topic": scene.topic, "kind": scene.kind.name},
    )
