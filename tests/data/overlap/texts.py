"""Texts and examples in which overlap is looked for."""

import random

from hypothesis import strategies as st

from multifaceted.records import Example, Prompt, StatedPreference, Turn

WORDS = st.sampled_from(["rain", "snow", "is", "what", "how", "so", "wet", "cold"])
SENTENCES = st.lists(WORDS, max_size=12).map(" ".join)
ANYTHING = st.text(st.characters(codec="utf-8"), max_size=40) | SENTENCES


def sentence(seed, length=40, vocabulary="word"):
    """Words of which no two sentences of other seeds share three in a row."""
    rng = random.Random(f"{vocabulary}:{seed}")
    return " ".join(f"{vocabulary}{rng.randrange(10_000)}" for _ in range(length))


def edited(text, places):
    """A text with the words at some places replaced."""
    return " ".join(f"other{i}" if i in places else word for i, word in enumerate(text.split()))


def example(name, instruction, system=None, chosen="Water.", rejected=("Tears.",), values=()):
    """One example; `values` are descriptions of stated preferences."""
    return Example(
        id=name,
        system=system,
        turns=[Turn(role="user", content=instruction)],
        chosen=chosen,
        rejected=list(rejected),
        preferences=[stated(value) for value in values],
    )


def stated(description, preference="brief", dimension="style"):
    return StatedPreference(dimension=dimension, subdimension="", preference=preference, description=description)


def prompt(name, instruction, system=None, values=()):
    """One bench prompt."""
    preferences = [stated(value) for value in values]
    return Prompt(id=name, split="test", system=system, instruction=instruction, preferences=preferences)
