"""Collections blended into one, and thinned."""

from __future__ import annotations

import hashlib
import heapq
import json
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace

from multifaceted.data.bad_rows import BadRows, DataError, OnBadRow
from multifaceted.data.licences import Terms
from multifaceted.data.shares import largest_remainder, shares_of
from multifaceted.data.source import DataSource
from multifaceted.records import Example, StatedPreference


@dataclass(kw_only=True, slots=True)
class Blend(DataSource):
    """A number of examples from several sources, in given shares; which of them is drawn by the seed, without return.

    An example's `source` becomes the name of its collection, so that metrics are told apart by it.

    Attributes:
        sources: collections by name.
        weights: relative weight of each.
        num_examples: training examples in all; validation examples are those of every source.
    """

    sources: dict[str, DataSource]
    weights: dict[str, float]
    num_examples: int

    def __post_init__(self) -> None:
        if self.sources.keys() != self.weights.keys():
            raise ValueError(f"sources are {', '.join(self.sources)} and weights are for {', '.join(self.weights)}")
        if self.num_examples < 1:
            raise ValueError(f"num_examples is {self.num_examples}; it must be at least 1")
        shares_of("weights", self.weights)
        for name, source in self.sources.items():
            source.where = f"{self.where}.sources.{name}"

    def terms(self) -> list[Terms]:
        """Those of every source that has a share."""
        return [part for name, source in self.sources.items() if self.weights[name] for part in source.terms()]

    @property
    def is_checked(self) -> bool:
        """True where those of every source have passed `check_example`."""
        return all(source.is_checked for source in self.sources.values())

    @property
    def joins_rows(self) -> bool:
        """Whether one of its sources does."""
        return any(source.joins_rows for source in self.sources.values())

    def held_out(self) -> DataSource:
        """Of the held-out examples of every source."""
        alone = copy(self)
        alone.sources = {name: source.held_out() for name, source in self.sources.items()}
        return alone

    def require_files(self) -> None:
        """Those of every source that has a share."""
        for name in shares_of("weights", self.weights):
            self.sources[name].require_files()

    def train(self, seed: int, bad: BadRows, contrasts: Mapping[str, float] | None = None) -> Iterator[Example]:
        """Draw from every source its share; each is read twice, because what is drawn depends on all its ids.

        Raises:
            DataError: a source has too few examples; names what it has and the largest blend that it allows.
        """
        shares = shares_of("weights", self.weights)
        for name, number in largest_remainder(shares, self.num_examples).items():
            source, count = self.sources[name], 0
            places = []
            own = BadRows(policy=bad.policy, option=bad.option)
            for example in source.train(seed, own, contrasts):
                places.append((_place(f"blend:{seed}", f"{name}/{example.id}"), count))
                count += 1
            bad.add(own, named=f"{name}/")
            if count < number:
                raise DataError(
                    f"data.source.sources.{name} has {count} examples, and its share of {self.num_examples} is"
                    f" {number}; set data.source.num_examples to at most {int(count / shares[name])}"
                )
            if count > number:
                bad.leave_out("not_drawn", f"{self.where}.sources.{name}: beyond its share", count - number)
            drawn = {index for _, index in heapq.nsmallest(number, places)}
            again = source.train(seed, BadRows(policy=OnBadRow.DROP), contrasts)
            yield from (_named(example, name) for index, example in enumerate(again) if index in drawn)

    def validation(self, seed: int, bad: BadRows) -> Iterator[Example]:
        """The validation examples of every source that has a share."""
        for name in shares_of("weights", self.weights):
            own = BadRows(policy=bad.policy, option=bad.option)
            yield from (_named(example, name) for example in self.sources[name].validation(seed, own))
            bad.add(own, named=f"{name}/")

    def system_message(self, example: Example, preferences: Sequence[StatedPreference]) -> str:
        """In the words of the example's own source."""
        return self.sources[example.source].system_message(example, preferences)


def thin(examples: Sequence[Example], per_instruction: int) -> list[int]:
    """At most so many examples of each instruction, chosen by a hash that no seed changes: their indices.

    The paper's ablation of one, two or three system messages an instruction (arXiv 2405.17977, section 5).
    """
    groups: dict[bytes, list[tuple[bytes, int]]] = {}
    for index, example in enumerate(examples):
        instruction = _place("instruction", json.dumps([[turn.role, turn.content] for turn in example.turns]))
        groups.setdefault(instruction, []).append((_place("thin", example.system or ""), index))
    return sorted(index for group in groups.values() for _, index in sorted(group)[:per_instruction])


def _named(example: Example, name: str) -> Example:
    return replace(example, id=f"{name}/{example.id}", source=name)


def _place(kind: str, key: str) -> bytes:
    return hashlib.sha256(f"{kind}:{key}".encode()).digest()
