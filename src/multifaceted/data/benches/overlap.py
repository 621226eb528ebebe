"""Prompts that occur in several collections, but for typography."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations

from multifaceted.data.overlap.normalise import normalise


def distinct(texts: Iterable[str]) -> set[str]:
    """Texts as they are compared, each once."""
    return {normalise(text) for text in texts}


def exact_overlaps(collections: Mapping[str, Iterable[str]]) -> dict[tuple[str, str], int]:
    """How many distinct texts every two collections share, by their names in the order given."""
    sets = {name: distinct(texts) for name, texts in collections.items()}
    return {(one, other): len(sets[one] & sets[other]) for one, other in combinations(sets, 2)}
