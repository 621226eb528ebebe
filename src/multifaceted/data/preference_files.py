"""Examples from files in the shapes found in the wild."""

from __future__ import annotations

import difflib
import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path

from multifaceted.data.bad_rows import BadRowError, BadRows, DataError, OnBadRow
from multifaceted.data.licences import Collection, Licence, Terms, licence_of
from multifaceted.data.locations import Location, locate, spelled
from multifaceted.data.reading import Rows, Table, read_rows
from multifaceted.data.rows import COLUMNS, example_of
from multifaceted.data.source import DataSource, check_example
from multifaceted.data.text_files import Row
from multifaceted.data.visible import visible
from multifaceted.mini.holdout import position
from multifaceted.records import Example

log = logging.getLogger(__name__)


@dataclass(kw_only=True, slots=True)
class PreferenceFiles(DataSource):
    """Rows of files and of data sets, as they are found in the wild. The seed changes nothing.

    Attributes:
        train_file: files, folders, or data sets of the hub or in memory, or several; see `locate`. Of a data set with
            splits `train` is read, unless the setting names another.
        validation_file: the same, of the split `validation`. Where it is missing, a share of the instructions in
            `train_file` is held out.
        validation_share: that share; a hash of the instruction decides, so rows that share one stay on one side,
            whatever their system messages.
        columns: our names of columns to those of the files, where they differ; null for one that is not to be read.
        max_examples: take only so many good examples of `train_file`, and of `validation_file`.
        licence: a collection whose licence is known, or what the licence of your files allows; repeated on the card.
    """

    train_file: Location | list[Location]
    validation_file: Location | None = None
    validation_share: float = 0.05
    columns: dict[str, str | None] = field(default_factory=dict)
    max_examples: int | None = None
    licence: Collection | Licence | None = None
    _located: tuple[dict[str, Rows], dict[str, Rows]] | None = field(
        default=None, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if not 0 < self.validation_share < 1:
            raise ValueError(f"validation_share is {self.validation_share}; it must be between 0 and 1")
        if self.max_examples is not None and self.max_examples < 1:
            raise ValueError(f"max_examples is {self.max_examples}; it must be at least 1")
        for name in self.columns:
            if name not in COLUMNS:
                raise ValueError(f"columns has {name!r}, which is not ours; ours are {', '.join(COLUMNS)}")

    def examples(
        self, seed: int, train: BadRows, validation: BadRows, contrasts: Mapping[str, float] | None = None
    ) -> Iterator[tuple[Example, bool]]:
        """Each example and whether it is held out; a file of both is read once.

        A row that cannot be read has no prompt to place it by; it is counted as one of training.
        """
        if self.validation_file is not None:
            yield from DataSource.examples(self, seed, train, validation, contrasts)
            return
        read = held_out = 0
        for example in self._read(self._files()[0], train):
            is_held_out = self._is_held_out(example)
            read, held_out = read + 1, held_out + is_held_out
            yield example, is_held_out
        if read and not held_out:
            raise DataError(
                f"none of {read} rows is held out at data.source.validation_share={self.validation_share}; raise it or"
                " name a data.source.validation_file"
            )

    def train(self, seed: int, bad: BadRows, contrasts: Mapping[str, float] | None = None) -> Iterator[Example]:
        """Rows of `train_file`, less those held out."""
        examples = self._read(self._files()[0], bad)
        if self.validation_file is not None:
            return examples
        return (example for example in examples if not self._is_held_out(example))

    def validation(self, seed: int, bad: BadRows) -> Iterator[Example]:
        """Rows of `validation_file`, or those held out of `train_file`."""
        if self.validation_file is not None:
            yield from self._read(self._files()[1], bad)
            return
        for example, is_held_out in self.examples(seed, BadRows(policy=OnBadRow.DROP), bad):
            if is_held_out:
                yield example

    def held_out(self) -> DataSource:
        """With no file but `validation_file`, where there is one."""
        if self.validation_file is None:
            return self
        alone = copy(self)
        alone.train_file, alone._located = [], None
        return alone

    def require_files(self) -> None:
        """Those to train on and to validate on."""
        self._files()

    @property
    def is_checked(self) -> bool:
        """A row that fails is refused by file and line."""
        return True

    def terms(self) -> list[Terms]:
        """The licence of all files alike."""
        files = ", ".join(map(spelled, self._train_locations))
        return [Terms(where=self.where, files=files, licence=licence_of(self.licence))]

    def convert(self, rows: Iterable[Row], label: str, bad: BadRows) -> Iterator[tuple[Row, Example]]:
        """The examples of a file, checked, each with its row. For collections whose examples take several rows."""
        for row in rows:
            with bad.row(row.where):
                # A row is either trained on as it is, or counted.
                examples = list(self.examples_of(row, label))
                for example in examples:
                    check_example(example)
                bad.further += len(examples[1:])
                yield from ((row, example) for example in examples)

    def examples_of(self, row: Row, label: str) -> Iterable[Example]:
        """The examples of a row. For collections whose rows are of a shape of their own.

        Args:
            label: what the file is called.

        Raises:
            BadRowError: the row cannot be trained on.
        """
        yield example_of(row.value, self.columns, name=f"{label}:{row.number}", source=label)

    @property
    def _train_locations(self) -> list[Location]:
        return self.train_file if isinstance(self.train_file, list) else [self.train_file]

    def _files(self) -> tuple[dict[str, Rows], dict[str, Rows]]:
        """Rows of training and of validation, by what they are called: a name, or a path where names repeat.

        The path is the one in the config, not where a download lies: ids decide who gets which view.
        """
        if self._located is None:
            validation = [] if self.validation_file is None else [self.validation_file]
            sides = {("train_file", "train"): self._train_locations, ("validation_file", "validation"): validation}
            named = [
                [
                    (location, name, rows)
                    for location in locations
                    for name, rows in locate(location, f"{self.where}.{key}", split).items()
                ]
                for (key, split), locations in sides.items()
            ]
            found = [one for side in named for one in side]
            uses = Counter(name for name, _ in {(name, str(rows)) for _, name, rows in found})
            in_memory = list(dict.fromkeys((id(where), str(rows)) for where, _, rows in found if _is_in_memory(where)))

            def label(location: Location, name: str, rows: Rows) -> str:
                if _is_in_memory(location) and len(in_memory) > 1:
                    return f"{name}-{in_memory.index((id(location), str(rows))) + 1}"
                if uses[name] == 1:
                    return name
                return str(rows) if rows == location or isinstance(rows, Table) else f"{location}/{name}"

            train, held_out = ({label(*found): found[2] for found in side} for side in named)
            self._located = train, held_out
        return self._located

    def _is_held_out(self, example: Example) -> bool:
        # By what a conversation begins with: its later turns, and other branches of it, stay on the same side.
        instruction = [(turn.role, turn.content) for turn in example.turns[:1]]
        return position("instruction", json.dumps(instruction)) < self.validation_share

    def _read(self, files: dict[str, Rows], bad: BadRows) -> Iterator[Example]:
        number = 0
        place_of: dict[str, str] = {}
        found: set[str] = set()
        for label, path in files.items():
            for row, example in self.convert(read_rows(path, bad), label, bad):
                with bad.row(row.where):
                    if example.id in place_of:
                        raise BadRowError(
                            "duplicate_id",
                            f"id {example.id!r} is also that of {place_of[example.id]}; make ids unique, or leave them"
                            " unread: data.source.columns={id: null}",
                        )
                    place_of[example.id] = row.where
                    found |= row.value.keys()
                    number += 1
                    yield example
                if number == self.max_examples:
                    return
        self._refuse_absent(found, files)

    def _refuse_absent(self, found: set[str], files: Mapping[str, Rows]) -> None:
        """A misspelt name of an optional column would otherwise leave it out in silence."""
        unread = [name for name in found if name not in COLUMNS and name not in self.columns.values()]
        for name in unread if type(self) is PreferenceFiles else ():
            close = [ours for ours in difflib.get_close_matches(name, COLUMNS, n=1, cutoff=0.8) if ours not in found]
            if close and close[0] not in self.columns:
                setting = f"{self.where}.columns={{{close[0]}: {name}}}"
                log.warning("the column %s is not read; if it is %s, say %s", name, close[0], setting)
        for ours, theirs in self.columns.items():
            if found and theirs is not None and theirs not in found:
                raise DataError(
                    f"{self.where}.columns.{ours}={theirs!r} is a column of no row in"
                    f" {', '.join(map(str, files.values()))}; found {visible(', '.join(sorted(found)))}"
                )


def _is_in_memory(location: Location) -> bool:
    return not isinstance(location, Path | str)
