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
from multifaceted.data.files import Row, read_rows
from multifaceted.data.licences import Collection, Licence, Terms, licence_of
from multifaceted.data.locations import HUB, files_of
from multifaceted.data.rows import COLUMNS, example_of
from multifaceted.data.source import DataSource, check_example
from multifaceted.data.visible import visible
from multifaceted.mini.holdout import position
from multifaceted.records import Example

log = logging.getLogger(__name__)


@dataclass(kw_only=True, slots=True)
class PreferenceFiles(DataSource):
    """Rows of JSON Lines, JSON and Parquet files, gzipped or not. The seed changes nothing.

    Attributes:
        train_file: files, folders of files, or data sets of the hub (`hf://datasets/<owner>/<name>`).
        validation_file: where it is missing, a share of the instructions in `train_file` is held out.
        validation_share: that share; a hash of the instruction decides, so rows that share one stay on one side,
            whatever their system messages.
        columns: our names of columns to those of the files, where they differ; null for one that is not to be read.
        max_examples: take only so many good examples of `train_file`, and of `validation_file`.
        licence: a collection whose licence is known, or what the licence of your files allows; repeated on the card.
    """

    train_file: Path | list[Path]
    validation_file: Path | None = None
    validation_share: float = 0.05
    columns: dict[str, str | None] = field(default_factory=dict)
    max_examples: int | None = None
    licence: Collection | Licence | None = None

    def __post_init__(self) -> None:
        if not 0 < self.validation_share < 1:
            raise ValueError(f"validation_share is {self.validation_share}; it must be between 0 and 1")
        if self.max_examples is not None and self.max_examples < 1:
            raise ValueError(f"max_examples is {self.max_examples}; it must be at least 1")
        for name in self.columns:
            if name not in COLUMNS:
                raise ValueError(f"columns has {name!r}, which is not ours; ours are {', '.join(COLUMNS)}")

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
        read = held_out = 0
        # A row that cannot be read has no prompt to place it by; it is counted as one of training.
        for example in self._read(self._files()[0], BadRows(policy=OnBadRow.DROP)):
            read += 1
            if self._is_held_out(example):
                held_out += 1
                yield example
        if not held_out:
            raise DataError(
                f"none of {read} rows is held out at data.source.validation_share={self.validation_share};"
                " raise it or name a data.source.validation_file"
            )

    def held_out(self) -> DataSource:
        """With no file but `validation_file`, where there is one."""
        if self.validation_file is None:
            return self
        alone = copy(self)
        alone.train_file = self.validation_file
        return alone

    def require_files(self) -> None:
        """Those to train on and to validate on."""
        self._files()

    def terms(self) -> list[Terms]:
        """The licence of all files alike."""
        files = ", ".join(str(path).replace(HUB, "hf://datasets/") for path in self._train_paths)
        return [Terms(where=self.where, files=files, licence=licence_of(self.licence))]

    def convert(self, rows: Iterable[Row], label: str, bad: BadRows) -> Iterator[tuple[Row, Example]]:
        """The examples of a file, each with its row. For collections whose examples take several rows."""
        for row in rows:
            with bad.row(row.where):
                for place, example in enumerate(self.examples_of(row, label)):
                    bad.further += place > 0
                    yield row, example

    def examples_of(self, row: Row, label: str) -> Iterable[Example]:
        """The examples of a row. For collections whose rows are of a shape of their own.

        Args:
            label: what the file is called.

        Raises:
            BadRowError: the row cannot be trained on.
        """
        yield example_of(row.value, self.columns, name=f"{label}:{row.number}", source=label)

    @property
    def _train_paths(self) -> list[Path]:
        return self.train_file if isinstance(self.train_file, list) else [self.train_file]

    def _files(self) -> tuple[dict[str, Path], dict[str, Path]]:
        """Files of training and of validation, by what their rows are called by: a name, or a path where names repeat.

        The path is the one in the config, not where a download lies: ids decide who gets which view.
        """
        sides = {
            "train_file": self._train_paths,
            "validation_file": [self.validation_file] if self.validation_file else [],
        }
        named = [
            [(path, name, file) for path in paths for name, file in files_of(path, f"{self.where}.{key}").items()]
            for key, paths in sides.items()
        ]
        uses = Counter(name for name, _ in {(name, file) for side in named for _, name, file in side})

        def label(path: Path, name: str, file: Path) -> str:
            return name if uses[name] == 1 else str(path) if path == file else f"{path}/{name}"

        train, validation = ({label(*found): found[2] for found in side} for side in named)
        return train, validation

    def _is_held_out(self, example: Example) -> bool:
        # By what a conversation begins with: its later turns, and other branches of it, stay on the same side.
        instruction = [(turn.role, turn.content) for turn in example.turns[:1]]
        return position("instruction", json.dumps(instruction)) < self.validation_share

    def _read(self, files: dict[str, Path], bad: BadRows) -> Iterator[Example]:
        number = 0
        place_of: dict[str, str] = {}
        found: set[str] = set()
        for label, path in files.items():
            for row, example in self.convert(read_rows(path, bad), label, bad):
                with bad.row(row.where):
                    check_example(example)
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

    def _refuse_absent(self, found: set[str], files: Mapping[str, Path]) -> None:
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
