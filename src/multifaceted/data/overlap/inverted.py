"""A few texts by their shingles, to look up in them what many others share with them."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from multifaceted.data.overlap.normalise import normalise
from multifaceted.data.overlap.shingles import jaccard, shingles

LEAST_QUOTED = 6
"""Shingles below which a text is not looked for inside others: those of eight words, the length of the runs by which
others decontaminate (PaLM, arXiv 2204.02311; Tulu 3, arXiv 2411.15124). Shorter texts are found in anything long."""
LEAST_SENTENCE = 3
"""Likewise of a sentence that a bench scores: those of five words. Few occur by chance: of 37,000 published
instructions and answers none holds more than half of a sentence of CrowS-Pairs or Winogender, of whatever length. Of
their 3,736 sentences 17 are shorter."""


class How(StrEnum):
    """In which way a text was found, the surest first."""

    EXACT = "exact"
    NEAR = "near"
    CONTAINED = "contained"


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """How a text was found, and the Jaccard similarity of the two, or of a contained one the share that is there."""

    how: How
    similarity: float

    @property
    def strength(self) -> tuple[int, float]:
        """What orders several findings of one text."""
        return -list(How).index(self.how), self.similarity


class InvertedIndex:
    """Finds, without chance, every one of its texts that another text is near to or contains.

    Such a text shares `near` or more of its shingles, so at least one of any selection that leaves out fewer than that.
    Only such a selection is looked up, the rarest of each text (prefix filtering: Chaudhuri et al. 2006; Bayardo et al.
    2007); the few candidates are compared whole.

    Args:
        texts: as `normalise` leaves them, each of them once.
        near: least similarity or share, above 0; None to find the same text only.
        least_quoted: shingles from which on a text is found in others that contain it; None for not at all.
    """

    def __init__(self, texts: Sequence[str], near: float | None, *, least_quoted: int | None) -> None:
        self._near = near
        self._least_quoted = math.inf if least_quoted is None else least_quoted
        self._place = {text: place for place, text in enumerate(texts)}
        self._shingles = [shingles(text) for text in texts] if near is not None else []
        self._places: defaultdict[str, list[int]] = defaultdict(list)
        frequency = Counter(shingle for each in self._shingles for shingle in each)
        for place, each in enumerate(self._shingles):
            rarest = sorted(each, key=lambda shingle: (frequency[shingle], shingle))
            for shingle in rarest[: len(each) + 1 - math.ceil((near or 1) * len(each) - 1e-9)]:
                self._places[shingle].append(place)

    def find(self, text: str) -> list[tuple[int, Found]]:
        """The places of its texts that a text shows, in order, and how."""
        found: dict[int, Found] = {}
        same = self._place.get(normalise(text))
        if same is not None:
            found[same] = Found(how=How.EXACT, similarity=1.0)
        if self._near is not None and self._place:
            theirs = shingles(text)
            candidates = {place for shingle in theirs & self._places.keys() for place in self._places[shingle]}
            for place in candidates - found.keys():
                compared = self._compare(self._shingles[place], theirs, self._near)
                if compared is not None:
                    found[place] = compared
        return sorted(found.items(), key=lambda item: item[0])

    def _compare(self, ours: set[str], theirs: set[str], near: float) -> Found | None:
        alike = jaccard(ours, theirs)
        if alike >= near:
            return Found(how=How.NEAR, similarity=alike)
        share = len(ours & theirs) / len(ours)
        if len(ours) >= self._least_quoted and share >= near:
            return Found(how=How.CONTAINED, similarity=share)
        return None
