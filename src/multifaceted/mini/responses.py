"""Responses that realise a preference set.

A response has a value for every sub-dimension. The stated preferences fix theirs; of the others, layout,
tone and address, which no text lacks, are drawn, the length is the least that holds the rest, and optional ones stay
absent.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from functools import cache
from typing import Any

from multifaceted.mini.lexicon import CONTENT, Kind, taxonomy
from multifaceted.preferences import load_yaml

_SENTENCES = {"brief": 2, "balanced": 3, "thorough": 4}
_OPTIONAL = ("expertise", "field", "support", "caution")
_DRAWN = ("format", "tone", "address")
_FOLLOW_UP_NAMES_TOPIC = 0.15


@cache
def _content() -> dict[str, Any]:
    content: dict[str, Any] = load_yaml(CONTENT / "responses.yaml")
    return content


def realise(stated: Sequence[str], rng: random.Random, *, avoid: Collection[str] = ()) -> dict[str, str]:
    """A preference for every sub-dimension that the response shows: the stated ones, and those that no text lacks.

    What is not stated is none of `avoid` (names), so that a rejected response violates what the chosen one states.
    """
    world = taxonomy()
    facets = {world.by_name[name].subdimension: name for name in stated}
    for subdimension in _DRAWN:
        if subdimension not in facets:
            facets[subdimension] = rng.choice(
                [p.name for p in world.subdimensions[subdimension] if p.name not in avoid]
            )
    if "length" not in facets:
        needed = sum(subdimension in facets for subdimension in _OPTIONAL)
        facets["length"] = next(name for name, count in _SENTENCES.items() if count >= needed and name not in avoid)
    return facets


def write_response(facets: dict[str, str], kind: Kind, topic: str, rng: random.Random) -> str:
    """Write a response of `kind` on `topic` that shows `facets` (sub-dimension to preference name)."""
    templates = _choose_templates(facets, kind, rng)
    sentences = _fill(templates, topic, facets["address"], rng)
    sentences = _set_tone(sentences, templates, facets, rng)
    return _lay_out(sentences, facets["format"])


def _choose_templates(facets: dict[str, str], kind: Kind, rng: random.Random) -> list[str]:
    """Sentence templates in order: what sets the tone, what answers, what is added; warnings at their end."""
    content = _content()
    optional = [rng.choice(content[facets[sub]]) for sub in ("expertise", "field", "support") if sub in facets]
    caution = facets.get("caution")
    count = max(_SENTENCES[facets["length"]] - (caution is not None) - len(optional), 0)
    core = [kind.sentences[place] for place in sorted(rng.sample(range(len(kind.sentences)), count))]
    if core and facets["tone"] != "measured":
        core[0] = rng.choice(content["questions" if facets["tone"] == "inquisitive" else "cheers"])
    body = [*core, *optional]
    if caution == "referral":
        return [*body, rng.choice(content["referral"])]
    warning = [rng.choice(content["warnings"])] if caution else []
    return [*warning, *body] if caution == "warning_first" else [*body, *warning]


def _fill(templates: list[str], topic: str, address: str, rng: random.Random) -> list[str]:
    content = _content()
    person = content["persons"][address]
    slots = {**person, **{key.upper(): word.capitalize() for key, word in person.items()}}
    sentences = []
    for position, template in enumerate(templates):
        name = topic if position == 0 or rng.random() < _FOLLOW_UP_NAMES_TOPIC else "it"
        sentences.append(template.format(x=name, X=name.capitalize(), n=rng.choice(content["numbers"]), **slots))
    return sentences


def _set_tone(sentences: list[str], templates: list[str], facets: dict[str, str], rng: random.Random) -> list[str]:
    tone = facets["tone"]
    if tone == "enthusiastic":
        return [sentence[:-1] + "!" for sentence in sentences]
    if tone == "inquisitive" and not any(sentence.endswith("?") for sentence in sentences):
        plain = [i for i, template in enumerate(templates) if "," not in template]
        index = (plain or [0])[0]
        opening = rng.choice(_content()["question_openings"])
        person = _content()["persons"][facets["address"]]
        first, rest = sentences[index][0].lower(), sentences[index][1:-1]
        sentences[index] = f"{opening.format(s=person['s'])} {first}{rest}?"
    return sentences


def _lay_out(sentences: list[str], layout: str) -> str:
    if layout == "bullet_points":
        return "\n".join(f"- {sentence}" for sentence in sentences)
    if layout == "numbered_steps":
        return "\n".join(f"{number}. {sentence}" for number, sentence in enumerate(sentences, start=1))
    return " ".join(sentences)
