"""Collections blended into one, and thinned."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from multifaceted.data.licences import Terms
from multifaceted.data.shares import largest_remainder, shares_of
from multifaceted.data.source import BadRows, DataError, DataSource
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

    def train(self, seed: int, bad: BadRows, contrasts: Mapping[str, float] | None = None) -> list[Example]:
        """Draw from every source its share.

        Raises:
            DataError: a source has too few examples; names what it has and the largest blend that it allows.
        """
        shares = shares_of("weights", self.weights)
        blended: list[Example] = []
        for name, number in largest_remainder(shares, self.num_examples).items():
            rows = _named(self.sources[name].train(seed, bad, contrasts), name)
            if len(rows) < number:
                raise DataError(
                    f"data.source.sources.{name} has {len(rows)} examples, and its share of {self.num_examples} is"
                    f" {number}; set data.source.num_examples to at most {int(len(rows) / shares[name])}"
                )
            if len(rows) > number:
                bad.leave_out("not_drawn", f"{self.where}.sources.{name}: beyond its share", len(rows) - number)
            drawn = sorted(range(len(rows)), key=lambda i: _place(f"blend:{seed}", rows[i].id))[:number]
            blended += [rows[index] for index in sorted(drawn)]
        return blended

    def validation(self, seed: int, bad: BadRows) -> list[Example]:
        """The validation examples of every source."""
        return [e for name, source in self.sources.items() for e in _named(source.validation(seed, bad), name)]

    def system_message(self, example: Example, preferences: Sequence[StatedPreference]) -> str:
        """In the words of the example's own source."""
        return self.sources[example.source].system_message(example, preferences)


def thin(examples: Sequence[Example], per_instruction: int | None) -> tuple[list[Example], Counter[str]]:
    """At most so many examples of each instruction, chosen by a hash that no seed changes; and what was left out.

    The paper's ablation of one, two or three system messages an instruction (arXiv 2405.17977, section 5).
    """
    if per_instruction is None:
        return list(examples), Counter()
    groups: dict[str, list[Example]] = {}
    for example in examples:
        groups.setdefault(json.dumps([[t.role, t.content] for t in example.turns]), []).append(example)
    kept = {
        example.id
        for group in groups.values()
        for example in sorted(group, key=lambda e: _place("thin", e.system or ""))[:per_instruction]
    }
    left_out = len(examples) - len(kept)
    return [e for e in examples if e.id in kept], Counter({"per_instruction": left_out} if left_out else {})


def _named(examples: Sequence[Example], name: str) -> list[Example]:
    return [replace(example, id=f"{name}/{example.id}", source=name) for example in examples]


def _place(kind: str, key: str) -> bytes:
    return hashlib.sha256(f"{kind}:{key}".encode()).digest()
