"""Where examples come from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from multifaceted.mini import world
from multifaceted.records import Example


class DataError(ValueError):
    """Data that cannot be trained on; the message names the example and what is wrong with it."""


class DataSource:
    """Examples to train and to validate on. Subclasses are dataclasses."""

    def train(self, seed: int) -> list[Example]:
        """Training examples."""
        raise NotImplementedError

    def validation(self, seed: int) -> list[Example]:
        """Held-out pairs."""
        raise NotImplementedError


class SystemMessages(StrEnum):
    """What the mini collection's system messages say."""

    STATED = "stated"
    UNIFORM = "uniform"


@dataclass(kw_only=True, slots=True)
class MiniCollection(DataSource):
    """The embedded collection.

    Attributes:
        num_rejected: rejected responses per example, written for other preference sets.
        system: `uniform` shows the same responses under a message that states nothing.
    """

    num_examples: int
    num_validation: int = 200
    num_rejected: int = 1
    system: SystemMessages = SystemMessages.STATED

    def __post_init__(self) -> None:
        for name, least in (("num_examples", 1), ("num_validation", 1), ("num_rejected", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {least}")

    def train(self, seed: int) -> list[Example]:
        """Examples of the training part of the mini world."""
        return self._under_system(world.collection(self.num_examples, seed, num_rejected=self.num_rejected))

    def validation(self, seed: int) -> list[Example]:
        """Pairs on held-out combinations, half of them differing in one dimension only."""
        return self._under_system(world.validation_pairs(self.num_validation, seed, num_rejected=self.num_rejected))

    def _under_system(self, examples: list[Example]) -> list[Example]:
        return world.uniform(examples) if self.system is SystemMessages.UNIFORM else examples


def check_examples(examples: Sequence[Example], *, needs_rejected: bool) -> None:
    """Refuse examples that no objective can learn from.

    Raises:
        DataError: a text that is not a string, an empty response, chosen equal to rejected, no instruction,
            no rejected response where the objective needs one, an id used twice.
    """
    if not examples:
        raise DataError("the data source has no examples")
    seen: set[str] = set()
    for example in examples:
        where = f"example {example.id!r}"
        texts = [("chosen", example.chosen), *(("rejected", r) for r in example.rejected)]
        texts += [("turns", turn.content) for turn in example.turns]
        if example.system is not None:
            texts.append(("system", example.system))
        for name, text in texts:
            if not isinstance(text, str):
                raise DataError(f"{where}: {name} is {text!r}, a {type(text).__name__}; expected a string")
            if name != "system" and not text.strip():
                raise DataError(f"{where}: {name} is empty")
        if not example.turns or example.turns[-1].role != "user":
            raise DataError(f"{where}: the last turn must be the user's")
        if example.chosen in example.rejected:
            raise DataError(f"{where}: chosen and rejected are the same text; such a pair teaches nothing")
        if needs_rejected and not example.rejected:
            raise DataError(f"{where}: no rejected response, which this objective needs; use objective=sft or add one")
        if example.id in seen:
            raise DataError(f"{where}: this id occurs twice; ids must be unique")
        seen.add(example.id)


def texts_of(examples: Iterable[Example]) -> Iterable[str]:
    """All texts of a collection, for training a tokenizer."""
    for example in examples:
        yield from (turn.content for turn in example.turns)
        yield from (example.system or "", example.chosen, *example.rejected)
