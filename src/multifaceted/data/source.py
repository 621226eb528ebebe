"""Where examples come from, and what becomes of rows that cannot be trained on."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from multifaceted.data.bad_rows import BadRowError, BadRows, DataError
from multifaceted.data.licences import Terms
from multifaceted.data.shares import ALL, take_turns
from multifaceted.mini import world
from multifaceted.mini.lexicon import messages, taxonomy
from multifaceted.records import Example, StatedPreference


class DataSource:
    """Examples to train and to validate on. Subclasses are dataclasses."""

    default_message: ClassVar[str] = "You are a helpful assistant."
    """A system message that states nothing."""
    bench: ClassVar[str | None] = None
    """The task of `eval.py` that tests what the source teaches."""
    where: str = "data.source"
    """The key of this source in the config, for messages."""

    def terms(self) -> list[Terms]:
        """Under which licences its files are; none for what comes with this package."""
        return []

    @property
    def is_checked(self) -> bool:
        """True where its examples have passed `check_example`."""
        return False

    @property
    def joins_rows(self) -> bool:
        """Whether an example may take several rows, so that rows cannot be counted against examples."""
        return False

    def require_files(self) -> None:
        """Refuse a source whose files are not there, before others are read.

        Raises:
            DataError: says which, and what to do.
        """

    def examples(
        self, seed: int, train: BadRows, validation: BadRows, contrasts: Mapping[str, float] | None = None
    ) -> Iterator[tuple[Example, bool]]:
        """Yield each example, and whether it is held out.

        Args:
            train, validation: take the bad rows of either part.
            contrasts: see `train`.
        """
        yield from ((example, False) for example in self.train(seed, train, contrasts))
        yield from ((example, True) for example in self.validation(seed, validation))

    def train(self, seed: int, bad: BadRows, contrasts: Mapping[str, float] | None = None) -> Iterable[Example]:
        """Training examples, the same at every call; a stream where there may be many.

        Args:
            contrasts: shares of what pairs are to differ in; a source that makes its pairs makes them so.
        """
        raise NotImplementedError

    def validation(self, seed: int, bad: BadRows) -> Iterable[Example]:
        """Held-out pairs."""
        raise NotImplementedError

    def held_out(self) -> DataSource:
        """The source for those who only validate: it needs no training files, unless the held-out pairs take them."""
        return self

    def system_message(self, example: Example, preferences: Sequence[StatedPreference]) -> str:
        """The system message that states some of an example's preferences."""
        return stated_message(preferences)


def stated_message(preferences: Sequence[StatedPreference]) -> str:
    """A system message that states preferences by their descriptions."""
    sentences = (p.description.strip().rstrip(".") + "." for p in preferences)
    return " ".join(["The user values answers with the following qualities.", *sentences])


@dataclass(kw_only=True, slots=True)
class MiniCollection(DataSource):
    """The embedded collection; what its pairs differ in is every dimension, unless a mix says otherwise.

    Attributes:
        num_rejected: rejected responses per example, written for other preference sets.
    """

    num_examples: int
    num_validation: int = 200
    num_rejected: int = 1

    default_message = messages().uniform
    bench = "mini"

    def __post_init__(self) -> None:
        for name, least in (("num_examples", 1), ("num_validation", 1), ("num_rejected", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {least}")

    def train(self, seed: int, bad: BadRows, contrasts: Mapping[str, float] | None = None) -> list[Example]:
        """Examples of the training part of the mini world."""
        every = list(taxonomy().dimensions)
        turns = take_turns(contrasts or {ALL: 1.0}, self.num_examples)
        asked = {name: every if name == ALL else name.split("+") for name in {*turns}}
        unknown = sorted({dimension for names in asked.values() for dimension in names} - {*every})
        if unknown:
            raise DataError(f"mix.contrasts names {', '.join(unknown)}; the mini world has {', '.join(every)}")
        bad.read += self.num_examples
        return world.collection([asked[name] for name in turns], seed, num_rejected=self.num_rejected)

    def validation(self, seed: int, bad: BadRows) -> list[Example]:
        """Pairs on held-out combinations, half of them differing in one dimension only."""
        bad.read += self.num_validation
        return world.validation_pairs(self.num_validation, seed, num_rejected=self.num_rejected)

    def system_message(self, example: Example, preferences: Sequence[StatedPreference]) -> str:
        """In this world's own wordings: a model from scratch knows no others."""
        return world.restate(example, preferences)


def check_examples(
    examples: Iterable[Example], bad: BadRows, *, needs_rejected: bool, is_checked: bool = False
) -> Iterator[Example]:
    """Yield the examples that an objective can learn from.

    Args:
        is_checked: whether they have passed `check_example`.

    Raises:
        DataError: no example is left, which is known at the end.
    """
    ids: set[str] = set()
    for example in examples:
        with bad.row(f"example {example.id!r}"):
            if not is_checked:
                check_example(example)
            check_use(example, ids, needs_rejected=needs_rejected)
            yield example
    refuse_none(len(ids), bad)


def check_use(example: Example, ids: set[str], *, needs_rejected: bool) -> None:
    """Refuse an example that this objective cannot learn from, or whose id is taken; else add its id to `ids`.

    Raises:
        BadRowError: names what is missing.
    """
    if needs_rejected and not example.rejected:
        raise BadRowError(
            "no_rejected", "no rejected response, which this objective needs; use objective=sft or add one"
        )
    if example.id in ids:
        # Reference values are kept by id, for training and validation together.
        raise BadRowError("duplicate_id", "this id occurs twice in training and validation; ids must be unique")
    ids.add(example.id)


def refuse_none(number: int, bad: BadRows) -> None:
    """Refuse a part of the data of which no example is left.

    Raises:
        DataError: names the first bad row.
    """
    if not number:
        sample = next(iter(bad.samples.values()), "none was left out")
        raise DataError(f"the data source has no examples; left out: {dict(bad.counts)}, first {sample}")


def check_example(example: Example) -> None:
    """Refuse an example that no objective can learn from.

    Raises:
        BadRowError: a text that is no string or not Unicode, an empty one, turns that do not alternate, chosen equal
            to rejected.
    """
    responses = [("chosen", example.chosen), *(("rejected", text) for text in example.rejected)]
    for name, text in responses:
        check_text(name, text, if_empty="empty_response")
    for turn in example.turns:
        check_text("turns", turn.content, if_empty="empty_turn")
    if example.system is not None:
        check_text("system", example.system)
    for name, text in (
        ("id", example.id),
        ("source", example.source),
        *(("contrast", one) for one in example.contrast),
    ):
        check_text(name, text)
    roles = [turn.role for turn in example.turns]
    if roles[-1:] != ["user"]:
        raise BadRowError("no_user_turn", "the last turn must be the user's")
    if any(role != ("user", "assistant")[place % 2] for place, role in enumerate(roles)):
        raise BadRowError(
            "turns_not_alternating", f"turns must alternate, the user's first; found {reprlib.repr(roles)}"
        )
    if example.chosen in example.rejected:
        raise BadRowError("equal_responses", "chosen and rejected are the same text; such a pair teaches nothing")


def check_text(name: str, text: object, *, if_empty: str | None = None) -> None:
    """Refuse what is no text, or cannot be written as UTF-8.

    Args:
        name: what the text is, for the message.
        if_empty: the reason for which an empty one is refused; None where it may be empty.

    Raises:
        BadRowError: says what it is instead.
    """
    if not isinstance(text, str):
        raise BadRowError("wrong_type", f"{name} is {reprlib.repr(text)}, a {type(text).__name__}; expected a string")
    if if_empty and not text.strip():
        raise BadRowError(if_empty, f"{name} is empty")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = text[error.start]
        raise BadRowError("wrong_encoding", f"{name} holds {half!r}, half of a character; mend the text") from None


def texts_of(examples: Iterable[Example]) -> Iterator[str]:
    """All texts of a collection, for training a tokenizer: of a very long one, its beginning."""
    for example in examples:
        turns = (turn.content for turn in example.turns)
        for text in (*turns, example.system or "", example.chosen, *example.rejected):
            yield text[:10_000]  # training takes quadratic time in a text without blanks
