"""What a bench is, and what its readers have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from multifaceted.data.bad_rows import BadRows, DataError
from multifaceted.data.benches.cells import Cells
from multifaceted.data.locations import Location, is_missing, locate, spelled
from multifaceted.data.reading import read_rows
from multifaceted.data.text_files import Row
from multifaceted.records import Prompt


class Kind(StrEnum):
    """What is done with a bench's prompts."""

    INSTRUCTION = "instruction"
    """A model answers `instruction`."""
    CONTINUATION = "continuation"
    """A model continues `instruction`, which is the beginning of a text."""
    CHOICE = "choice"
    """A model chooses among the answers that `instruction` lists; `metadata` says which is right."""
    SENTENCES = "sentences"
    """Nothing is said to a model, and `instruction` is empty: it scores sentences. `metadata` has them as `sentence`
    or, where a prompt compares several, as `sentences` by their names."""


class Training(StrEnum):
    """What a bench's licence and authors say of training on it."""

    ALLOWED = "allowed"
    NON_COMMERCIAL = "non_commercial"
    ASKED_AGAINST = "asked_against"
    UNSTATED = "unstated"
    """No licence is given, which permits nothing."""


class Found(NamedTuple):
    """A prompt and where it was found."""

    where: str
    prompt: Prompt


Reader = Callable[[Location, BadRows, str], Iterator[Found]]
"""Reads what a path names: a file, a folder of files or a data set of the hub; of a setting that messages name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """A public set of test prompts.

    Attributes:
        home: where it is published: `hf://datasets/<owner>/<name>` or `<repository>: <file>`.
        licence: the name of the prompts' licence.
        terms: what else is to be known of it.
        read: rows that are no prompts go to its `BadRows`.
    """

    name: str
    home: str
    licence: str
    training: Training
    read: Reader
    kind: Kind = Kind.INSTRUCTION
    terms: str = ""

    @property
    def is_on_hub(self) -> bool:
        """Whether it can be read without a file at hand."""
        return self.home.startswith("hf://")

    def located(self, path: Location | None) -> Location:
        """Where to read it.

        Raises:
            DataError: no path was given to a bench that is not on the hub, or there is nothing.
        """
        if path is None and self.is_on_hub:
            return Path(self.home)
        repository, _, file = self.home.partition(": ")
        if path is None:
            raise DataError(f"{self.name} is not on the hub; fetch {file} of https://{repository} and name its path")
        if is_missing(path):
            raise DataError(f"{self.name}: {spelled(path)} does not exist; it is published as {self.home}")
        return path


def sentences_of(prompt: Prompt) -> list[str]:
    """What a model scores of a prompt that says nothing to it; nothing of any other prompt."""
    if prompt.instruction:
        return []
    several: Mapping[str, str] = prompt.metadata.get("sentences", {})
    return [*several.values(), *([prompt.metadata["sentence"]] if "sentence" in prompt.metadata else [])]


def one_a_row(prompt_of: Callable[[Cells, Row], Prompt], *, keyed: bool = False) -> Reader:
    """A reader of files in which each row is one prompt.

    Args:
        keyed: whether a JSON document may be an object that holds rows by their names.
    """

    def read(path: Location, bad: BadRows, key: str) -> Iterator[Found]:
        for row in rows_of(path, bad, key, keyed=keyed):
            with bad.row(row.where):
                yield Found(row.where, prompt_of(Cells.of(row.value), row))

    return read


def rows_of(path: Location, bad: BadRows, key: str, *, keyed: bool = False) -> Iterator[Row]:
    """Read all rows that the setting `key` names; of a data set the split `test`."""
    for rows in locate(path, key, split="test").values():
        yield from read_rows(rows, bad, keyed=keyed)
