"""Examples from JSON Lines, one object a row, in the column names of the released collections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multifaceted.data.source import DataError, DataSource
from multifaceted.records import Example, StatedPreference, Turn, read_jsonl

REQUIRED = ("prompt", "chosen")


@dataclass(kw_only=True, slots=True)
class JsonlExamples(DataSource):
    """Training and validation rows from two files.

    A row has `prompt` and `chosen`, and may have `system`, `rejected` (a string, or a list for a group),
    `preference_set` (as in Multifaceted-Collection), `contrast`, `main_source`, `margin` and `id`.
    """

    train_file: Path
    validation_file: Path

    def train(self, seed: int) -> list[Example]:
        """Rows of `train_file`; the seed changes nothing."""
        return read_examples(self.train_file)

    def validation(self, seed: int) -> list[Example]:
        """Rows of `validation_file`."""
        return read_examples(self.validation_file)


def read_examples(path: Path) -> list[Example]:
    """Read a file of rows.

    Raises:
        DataError: a row lacks a column or has one of the wrong kind; names file, line, column and what was found.
        RecordError: the file does not exist, or a line is not JSON.
    """
    rows = enumerate(read_jsonl(path), start=1)
    return [example_of(row, f"{path}, line {number}", path.stem) for number, row in rows]


def example_of(row: Any, where: str, source: str) -> Example:
    """One row as an example; `where` names the row in errors and, without an `id`, in the run."""
    if not isinstance(row, Mapping):
        raise DataError(f"{where}: expected an object with columns {', '.join(REQUIRED)}, found {type(row).__name__}")
    missing = [column for column in REQUIRED if column not in row]
    if missing:
        raise DataError(f"{where}: column {', '.join(missing)} is missing; found {', '.join(row) or 'nothing'}")
    rejected = row.get("rejected", [])
    preferences = row.get("preference_set", [])
    try:
        stated = [StatedPreference(**preference) for preference in preferences]
    except TypeError as error:
        raise DataError(f"{where}: preference_set does not fit: {error}") from error
    return Example(
        id=str(row.get("id", where)),
        system=row.get("system"),
        turns=[Turn(role="user", content=row["prompt"])],
        chosen=row["chosen"],
        rejected=rejected if isinstance(rejected, list) else [rejected],
        preferences=stated,
        contrast=list(row.get("contrast", [])),
        source=str(row.get("main_source", source)),
        margin=row.get("margin"),
    )
