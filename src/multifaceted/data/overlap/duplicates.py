"""Examples that a collection holds more than once.

Two examples are **duplicates** if they have the same turns, the same system message and the same responses, after
`normalise`. They are **near duplicates** if their instructions are as alike as `near`, their system messages are, their
chosen responses are, and their rejected ones, each by the Jaccard similarity of its shingles; those of several rejected
responses are taken together. The smallest of the four similarities counts. So neither are rows that share an
instruction under different system messages, as the Multifaceted collection has them by design, however long the
instruction is; nor several pairs of answers to one prompt, of which collections of ranked or rated answers consist; nor
a pair and its reverse.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache

import numpy as np

from multifaceted.data.overlap.minhash import NUM_HASHES, near_kept, signatures
from multifaceted.data.overlap.normalise import normalise
from multifaceted.data.overlap.shingles import jaccard, shingles
from multifaceted.records import Example

AT_ONCE = 1000
"""Examples whose shingles are in memory together."""


class Reason(StrEnum):
    """Why an example is left out; its key in `summary.json`."""

    DUPLICATE = "duplicate"
    NEAR_DUPLICATE = "near_duplicate"


@dataclass(frozen=True, kw_only=True, slots=True)
class Duplicate:
    """An example, and an earlier one that stays in its place.

    Attributes:
        index, id: of the example.
        first, first_id: of the one that stays.
        similarity: the smallest of those of instruction, system message, chosen and rejected responses.
    """

    index: int
    id: str
    first: int
    first_id: str
    reason: Reason
    similarity: float


@dataclass(kw_only=True, slots=True)
class Duplicates:
    """The duplicates of a collection, in its order."""

    found: list[Duplicate] = field(default_factory=list)

    @property
    def counts(self) -> Counter[str]:
        """How many, by reason."""
        return Counter(duplicate.reason.value for duplicate in self.found)


def find_duplicates(
    examples: Sequence[Example], *, near: float | None, skip: Collection[int] = frozenset()
) -> Duplicates:
    """Every example that is a duplicate of an earlier one which is none itself.

    Goes through the examples once, and back to those that MinHash proposes. Takes 1.3 kB of memory for each and holds
    no text. Exact duplicates are all found, of near ones at the threshold all but one in a thousand and of nearer ones
    more; fewer among hundreds of rows of one template or prompt, where `minhash.MOST_IN_BUCKET` bounds the work.

    Args:
        near: least similarity of a near duplicate, above 0; None to look for exact ones only.
        skip: indices of examples that are not looked at.
    """
    found: list[Duplicate] = []

    def add(index: int, example: Example, first: int, reason: Reason, similarity: float) -> None:
        twin = examples[first].id
        found.append(
            Duplicate(
                index=index, id=example.id, first=first, first_id=twin, reason=reason, similarity=similarity
            )
        )  # fmt: skip

    first_with: dict[bytes, int] = {}
    sketch = _Sketch(len(examples)) if near is not None else None
    for index, example in enumerate(examples):
        if index in skip:
            continue
        first = first_with.setdefault(_digest(example), index)
        if first != index:
            add(index, example, first, Reason.DUPLICATE, 1.0)
        elif sketch is not None:
            sketch.add(index, example)
    if sketch is not None and near is not None:
        for index, first, similarity in sketch.near_duplicates(examples, near):
            add(index, examples[index], first, Reason.NEAR_DUPLICATE, similarity)
    return Duplicates(found=sorted(found, key=lambda duplicate: duplicate.index))


class _Sketch:
    """Signatures of prompts, filled block by block. Responses, which are longer, are read of candidates only."""

    def __init__(self, most: int) -> None:
        self._signatures = np.empty((most, NUM_HASHES), np.uint32)  # takes memory where it is written
        self._indices: list[int] = []
        self._block: list[set[str]] = []

    def add(self, index: int, example: Example) -> None:
        instruction, system = _instruction(example), _system(example)
        # If both are as alike as a threshold, so is their union, as long as no shingle of one is one of the other.
        both = instruction | {f"\n{shingle}" for shingle in system}
        if both:
            self._indices.append(index)
            self._block.append(both)
        if len(self._block) == AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        end = len(self._indices)
        self._signatures[end - len(self._block) : end] = signatures(self._block)
        self._block.clear()

    def near_duplicates(self, examples: Sequence[Example], near: float) -> Iterator[tuple[int, int, float]]:
        """Indices of an example and of the first that it is near, and how near."""
        self._flush()
        example = lru_cache(maxsize=AT_ONCE)(lambda row: examples[self._indices[row]])
        parts = [lru_cache(maxsize=AT_ONCE)(lambda row, of=part: of(example(row))) for part in _PARTS]

        def similarity(one: int, other: int) -> float:
            alike = 1.0
            for part in parts:
                alike = min(alike, jaccard(part(one), part(other)))
                if alike < near:
                    break
            return alike

        for row, first, alike in near_kept(self._signatures[: len(self._indices)], near, similarity):
            yield self._indices[row], self._indices[first], alike


def _instruction(example: Example) -> set[str]:
    """The shingles of all turns."""
    return shingles("\n".join(turn.content for turn in example.turns))


def _system(example: Example) -> set[str]:
    return shingles(example.system or "")


def _chosen(example: Example) -> set[str]:
    return shingles(example.chosen)


def _rejected(example: Example) -> set[str]:
    """The shingles of all rejected responses."""
    return set[str]().union(*map(shingles, example.rejected))


_PARTS: tuple[Callable[[Example], set[str]], ...] = (_system, _instruction, _chosen, _rejected)
"""What near duplicates are alike in, the shorter ones first: the first that differs decides."""


def _digest(example: Example) -> bytes:
    """What no two examples have in common that differ in more than typography."""
    turns = [[turn.role, normalise(turn.content)] for turn in example.turns]
    texts = [example.system or "", example.chosen, *example.rejected]
    content = json.dumps([turns, *map(normalise, texts)])
    return hashlib.blake2b(content.encode(), digest_size=16).digest()
