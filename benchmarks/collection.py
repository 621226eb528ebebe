"""A synthetic collection in the shape of Multifaceted, in which copies and bench prompts are planted."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from multifaceted.records import Example, Prompt, StatedPreference, Turn

VOCABULARY = 30_000
DIMENSIONS = ("style", "background_knowledge", "informativeness", "harmlessness")
PER_INSTRUCTION = 3
"""System messages of an instruction."""
INSTRUCTION_WORDS = (60, 330)
PROMPT_WORDS = (40, 120)
SYSTEM_WORDS = 100
DESCRIPTION_WORDS = 15
RESPONSE_WORDS = 300
CHANGED = 0.02
"""Share of the words of a near copy that are others."""
PLANTED = 0.01
"""Share of the rows that are copies, of each kind."""
LEAKED = 0.003
"""Share of the rows that show a bench prompt, of each kind."""


class Writer:
    """Texts of words whose frequencies follow Zipf's law."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        letters = np.array(list("etaoinshrdlu"))
        digits = np.arange(VOCABULARY)[:, None] // len(letters) ** np.arange(5) % len(letters)
        self._words = np.array(["".join(word) for word in letters[digits]], dtype=object)
        self._cumulative = np.cumsum(1 / np.arange(1, VOCABULARY + 1))

    def words(self, number: int) -> np.ndarray:
        """Some words."""
        places = np.searchsorted(self._cumulative, self._rng.random(number) * self._cumulative[-1])
        words: np.ndarray = self._words[places]
        return words

    def text(self, number: int) -> str:
        """A text of so many words."""
        return " ".join(self.words(number))

    def between(self, least: int, most: int) -> int:
        """A number, both ends included."""
        return int(self._rng.integers(least, most + 1))

    def changed(self, text: str) -> str:
        """A text with some of its words replaced, at least one."""
        words = np.array(text.split(), dtype=object)
        places = self._rng.choice(len(words), max(1, round(CHANGED * len(words))), replace=False)
        words[places] = self.words(len(places))
        return " ".join(words)

    def preferences(self) -> list[StatedPreference]:
        """One of each dimension."""
        return [
            StatedPreference(dimension=name, subdimension="", preference="", description=self.text(DESCRIPTION_WORDS))
            for name in DIMENSIONS
        ]


@dataclass(kw_only=True, slots=True)
class Collection:
    """Examples with the indices of what was planted, by kind, and the benches they leak."""

    examples: list[Example]
    prompts: dict[str, list[Prompt]]
    planted: dict[str, set[int]] = field(default_factory=dict)


def make_collection(number: int, num_prompts: int, seed: int = 0) -> Collection:
    """So many rows, of which every three share an instruction under different system messages, and bench prompts."""
    writer = Writer(seed)
    examples = _rows(writer, number)
    prompts = [
        Prompt(
            id=f"prompt-{index}",
            split="test",
            system=writer.text(SYSTEM_WORDS),
            instruction=writer.text(writer.between(*PROMPT_WORDS)),
            preferences=writer.preferences(),
        )
        for index in range(num_prompts)
    ]
    collection = Collection(examples=examples, prompts={"bench": prompts})
    _plant(collection, writer)
    return collection


def _rows(writer: Writer, number: int) -> list[Example]:
    pool = writer.text(1_000_000)
    characters = RESPONSE_WORDS * 6
    examples = []
    for index in range(number):
        if index % PER_INSTRUCTION == 0:
            instruction = writer.text(writer.between(*INSTRUCTION_WORDS))
        starts = (writer.between(0, len(pool) - characters) for _ in range(2))
        chosen, rejected = (pool[start : start + characters] for start in starts)
        examples.append(
            Example(
                id=f"row-{index}",
                system=writer.text(SYSTEM_WORDS),
                turns=[Turn(role="user", content=instruction)],
                chosen=chosen,
                rejected=[rejected],
                preferences=writer.preferences(),
            )
        )
    return examples


def _plant(collection: Collection, writer: Writer) -> None:
    """Put copies in place of rows in the second half: copies of rows in the first half, each row used once."""
    examples, prompts = collection.examples, collection.prompts["bench"]
    number = len(examples)
    rows = writer.between(0, 2**31)  # one draw, so that each kind has its own rows
    rng = np.random.default_rng(rows)
    places = iter((number // 2 + rng.permutation(number - number // 2)).tolist())
    originals = iter(rng.permutation(number // 2).tolist())
    for kind, share in (("exact", PLANTED), ("near", PLANTED)):
        for place in (chosen := [next(places) for _ in range(round(share * number))]):
            examples[place] = _copy(examples[next(originals)], examples[place].id, kind, writer)
        collection.planted[kind] = set(chosen)
    for kind in ("leaked exact", "leaked near", "leaked quoted"):
        for place in (chosen := [next(places) for _ in range(round(LEAKED * number))]):
            asked = prompts[writer.between(0, len(prompts) - 1)].instruction
            shown = {
                "leaked exact": asked.upper(),
                "leaked near": writer.changed(asked),
                "leaked quoted": f"{writer.text(150)}: {asked}. {writer.text(50)}",
            }[kind]
            examples[place] = replace(examples[place], turns=[Turn(role="user", content=shown)])
        collection.planted[kind] = set(chosen)


def _copy(example: Example, name: str, kind: str, writer: Writer) -> Example:
    instruction, system = example.turns[0].content, example.system or ""
    if kind == "near":
        turns = [Turn(role="user", content=writer.changed(instruction))]
        return replace(example, id=name, turns=turns, system=writer.changed(system))
    turns = [Turn(role="user", content=instruction.title().replace(" ", "\n"))]
    return replace(example, id=name, turns=turns, system=system.upper())
