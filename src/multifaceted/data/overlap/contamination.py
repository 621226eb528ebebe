"""Training examples that show what a bench asks: its instructions or sentences, its system messages, its preferences.

A text of a bench is found in a text of training in one of three ways: they are the same after `normalise` (exact),
their shingles have a Jaccard similarity of `near` or more (near), or `near` or more of the bench text's shingles are in
the other (contained). The last is asked of instructions and of sentences that are long enough: it finds a bench prompt
that is quoted in a longer one, and a sentence anywhere in an example.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache

from multifaceted.data.benches.base import sentences_of
from multifaceted.data.overlap.inverted import LEAST_QUOTED, LEAST_SENTENCE, Found, InvertedIndex
from multifaceted.data.overlap.normalise import normalise
from multifaceted.records import Example, Prompt, StatedPreference


class Field(StrEnum):
    """What of an example is compared with the same of a bench prompt."""

    INSTRUCTION = "instruction"
    """Of a conversation each turn of the user, by itself; of a prompt its follow-ups too."""
    SYSTEM = "system"
    PREFERENCE = "preference"
    """Each value that is stated: its description, or where it has none its keywords. Of whatever dimension."""
    SENTENCE = "sentence"
    """Of a bench whose sentences a model scores, each of them; of an example every text, its answers too."""


_LEAST_QUOTED = {Field.INSTRUCTION: LEAST_QUOTED, Field.SENTENCE: LEAST_SENTENCE}
"""Shingles from which on a text of a field is looked for inside others."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Match(Found):
    """A training example that shows what a bench asks.

    Attributes:
        index, id: of the example.
        prompts: ids of the prompts of the bench that have the text, in its order.
    """

    index: int
    id: str
    bench: str
    prompts: tuple[str, ...]
    field: Field


@dataclass(kw_only=True, slots=True)
class Contamination:
    """All matches, in the order of the examples."""

    matches: list[Match] = field(default_factory=list)

    @property
    def counts(self) -> Counter[str]:
        """Examples by `<bench>/<field>/<how>`; one that matches in several ways counts in each."""
        seen = {(match.index, f"{match.bench}/{match.field}/{match.how}") for match in self.matches}
        return Counter(key for _, key in sorted(seen))

    @property
    def prompts(self) -> dict[str, set[str]]:
        """By bench, the prompts that some example matches."""
        found: defaultdict[str, set[str]] = defaultdict(set)
        for match in self.matches:
            found[match.bench].update(match.prompts)
        return dict(found)


def find_contamination(
    examples: Sequence[Example],
    prompts: Mapping[str, Sequence[Prompt]],
    *,
    near: float | None,
    by: Collection[Field] = tuple(Field),
) -> Contamination:
    """Every match of an example with a bench; no chance in it.

    Goes through the examples once and holds in memory what the benches say, not what the examples do.

    Args:
        prompts: benches by name.
        near: least similarity of a near match, or share of a contained one, above 0; None for exact matches only.
    """
    fields = [each for each in (_BenchField(name, prompts, near) for name in Field if name in by) if len(each)]
    return Contamination(
        matches=[
            match
            for index, example in enumerate(examples)
            for each in fields
            for match in each.matches(index, example)
        ]
    )  # fmt: skip


class _BenchField:
    """All that benches say in one field."""

    def __init__(self, name: Field, prompts: Mapping[str, Sequence[Prompt]], near: float | None) -> None:
        self.name = name
        owners: defaultdict[str, defaultdict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        for bench, its in prompts.items():
            for prompt in its:
                for text in {normalise(text): None for text in _of_prompt(prompt, name)}:
                    owners[text][bench].append(prompt.id)
        owners.pop("", None)
        self._owners = [{bench: tuple(ids) for bench, ids in each.items()} for each in owners.values()]
        index = InvertedIndex(list(owners), near, least_quoted=_LEAST_QUOTED.get(name))
        # Collections repeat an instruction under several system messages, or one system message throughout.
        self._find = lru_cache(maxsize=256)(index.find)

    def __len__(self) -> int:
        """How many different texts they say."""
        return len(self._owners)

    def matches(self, index: int, example: Example) -> Iterator[Match]:
        """Those of an example: of each text of a bench the best one."""
        best: dict[int, Found] = {}
        for text in _of_example(example, self.name):
            for place, found in self._find(text):
                if place not in best or found.strength > best[place].strength:
                    best[place] = found
        for place, found in best.items():
            for bench, ids in self._owners[place].items():
                yield Match(
                    how=found.how,
                    similarity=found.similarity,
                    index=index,
                    id=example.id,
                    bench=bench,
                    prompts=ids,
                    field=self.name,
                )


def _of_example(example: Example, name: Field) -> list[str]:
    if name is Field.INSTRUCTION:
        return [turn.content for turn in example.turns if turn.role == "user"]
    if name is Field.SENTENCE:
        turns = [turn.content for turn in example.turns]
        return [example.system or "", *turns, example.chosen, *example.rejected]
    return _stated(example.system, example.preferences, name)


def _of_prompt(prompt: Prompt, name: Field) -> list[str]:
    if name is Field.INSTRUCTION:
        return [prompt.instruction, *prompt.follow_ups]
    if name is Field.SENTENCE:
        return sentences_of(prompt)
    return _stated(prompt.system, prompt.preferences, name)


def _stated(system: str | None, preferences: Sequence[StatedPreference], name: Field) -> list[str]:
    if name is Field.SYSTEM:
        return [system or ""]
    return [value.description if value.description.strip() else value.preference for value in preferences]
