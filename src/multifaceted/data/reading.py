"""Rows of files and data sets: tables by `datasets`, text files by our own parser, which names lines."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
from datasets.exceptions import DatasetGenerationError

from multifaceted.data.bad_rows import BadRows, DataError
from multifaceted.data.text_files import Row, text_rows, wrong_encoding

MAX_STREAMED = 10_000_000
"""Rows of a stream that does not say how many it has."""
BATCH = 1024
"""Rows that are read together."""
UNREADABLE = (pa.ArrowException, DatasetGenerationError, OSError, ValueError, NotImplementedError, OverflowError)
"""Errors in which reading a table may end."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Table:
    """Rows that `datasets` reads.

    Attributes:
        name: for messages.
        rows: a `Dataset` or an `IterableDataset`.
        is_file: false for a data set that a caller passed, which may be a stream without an end.
    """

    name: str
    rows: Any
    is_file: bool = True

    def __str__(self) -> str:
        return self.name


Rows = Path | Table
"""A text file, or a table."""


def read_rows(rows: Rows, bad: BadRows, *, keyed: bool = False) -> Iterator[Row]:
    """Read rows one by one. `bad` counts them, and takes those that cannot be read.

    Args:
        keyed: whether a JSON document that is an object holds rows, by their names.

    Raises:
        DataError: a file is missing, truncated or of another format, or a stream does not end.
    """
    if isinstance(rows, Path):
        if not rows.is_file():
            raise DataError(f"{rows} does not exist")
        kind = _table_kind(rows)
        if kind is None:
            yield from text_rows(rows, bad, keyed=keyed)
            return
        rows = Table(name=str(rows), rows=_streamed(kind, rows))
    yield from _table_rows(rows, bad)


def _table_kind(path: Path) -> str | None:
    """Return the format of a file as `load_dataset` calls it, by its first bytes; None for text."""
    with path.open("rb") as stream:
        magic = stream.read(6)
    if magic.startswith(b"PAR1"):
        return "parquet"
    return "arrow" if magic == b"ARROW1" or magic.startswith(b"\xff\xff\xff\xff") else None


def _streamed(kind: str, path: Path) -> datasets.IterableDataset:
    """The rows of a file as they are read: its copy in the cache would be read once."""
    literal = re.sub(r"([*?[])", r"[\1]", str(path.resolve()))
    if "::" in literal:
        raise DataError(f"{path}: '::' in the path of a table means a file within another one; rename it")
    options: dict[str, Any] = {"batch_size": BATCH} if kind == "parquet" else {}
    try:
        # Nothing is written to the cache, but it must exist; the user's own may be read-only.
        return datasets.load_dataset(
            kind, data_files=[literal], split="train", streaming=True, cache_dir=tempfile.gettempdir(), **options
        )
    except UNREADABLE as error:
        raise DataError(f"{path} is truncated or damaged ({error}); fetch it again") from error


def _table_rows(table: Table, bad: BadRows) -> Iterator[Row]:
    number, features = 0, table.rows.features
    is_json = features is not None and "Json(" in str(features)
    for batch in _batches(table):
        if number >= MAX_STREAMED and not table.is_file and isinstance(table.rows, datasets.IterableDataset):
            raise DataError(
                f"{table} is a stream that has not ended after {number:,} rows; take a part of it, dataset.take(n) or"
                " max_examples"
            )
        for cells in batch:
            number += 1
            where = f"{table}, row {number}"
            bad.read += 1
            with bad.row(where):
                if isinstance(cells, UnicodeDecodeError):
                    raise wrong_encoding(cells)
                yield Row(number, where, features.decode_example(cells) if is_json else cells)


def _batches(table: Table) -> Iterator[list[Any]]:
    try:
        if table.rows.features is None:  # a stream whose rows need not have the same columns
            rows = iter(table.rows.with_format(None))
            while batch := list(islice(rows, BATCH)):
                yield batch
        else:
            yield from map(_plain_rows, table.rows.with_format("arrow").iter(BATCH))
    except UNREADABLE as error:
        if table.is_file:
            raise DataError(f"{table} is truncated or damaged ({error}); fetch it again") from error
        raise DataError(f"{table} cannot be read: {type(error).__name__}: {error}") from error


def _plain_rows(batch: pa.Table) -> list[Any]:
    """The rows of a table; for one that is not UTF-8, the error."""
    with contextlib.suppress(UnicodeDecodeError):
        return list(batch.to_pylist())
    rows: list[Any] = []
    for place in range(batch.num_rows):
        try:
            rows += batch.slice(place, 1).to_pylist()
        except UnicodeDecodeError as error:
            rows.append(error)
    return rows
