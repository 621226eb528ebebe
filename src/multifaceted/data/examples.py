"""Examples as a `datasets.Dataset`: in memory while they are few, else in an Arrow file that is read as needed."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, fields
from itertools import islice
from pathlib import Path
from typing import Any, overload

import datasets
import pyarrow as pa
from datasets.exceptions import DatasetGenerationError

from multifaceted.data.cache import CacheError, dataset_cache
from multifaceted.records import Example, StatedPreference, Turn

IN_MEMORY = 20_000
"""Examples that are kept in memory, about 150 MB of them at the lengths of Janus."""
BATCH = 1000
"""Examples that are read together."""

TEXT = datasets.Value("string")
FEATURES = datasets.Features(
    {
        "id": TEXT,
        "system": TEXT,
        "turns": datasets.List({"role": TEXT, "content": TEXT}),
        "chosen": TEXT,
        "rejected": datasets.List(TEXT),
        "preferences": datasets.List({field.name: TEXT for field in fields(StatedPreference)}),
        "contrast": datasets.List(TEXT),
        "source": TEXT,
        "margin": datasets.Value("float64"),
        "digest": TEXT,
    }
)
"""The fields of an `Example`, and a hash of them, which stands for the content wherever that is compared."""


class ExampleDataset(Sequence[Example]):
    """Examples in a `datasets.Dataset` with the columns `FEATURES`.

    Args:
        folder: holds the Arrow file, and is removed with the last selection of these examples.
    """

    def __init__(self, dataset: datasets.Dataset, folder: tempfile.TemporaryDirectory[str] | None = None) -> None:
        self.dataset = dataset
        self._folder = folder

    def __len__(self) -> int:
        return len(self.dataset)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> ExampleDataset: ...
    def __getitem__(self, index: int | slice) -> Example | ExampleDataset:
        if isinstance(index, slice):
            return self.select(range(len(self))[index])
        return to_example(self.dataset[index])

    def __iter__(self) -> Iterator[Example]:
        for table in self.dataset.with_format("arrow").iter(BATCH):
            yield from map(to_example, table.to_pylist())

    def select(self, indices: Sequence[int]) -> ExampleDataset:
        """Return some of the examples, in the order of `indices`."""
        return ExampleDataset(self.dataset.select(indices if len(indices) else []), self._folder)

    def cells(self, name: str) -> Iterator[Any]:
        """Yield the cells of one column."""
        for table in self.dataset.select_columns(name).with_format("arrow").iter(10 * BATCH):
            yield from table[name].to_pylist()

    @property
    def fingerprint(self) -> str:
        """A hash of all examples in their order."""
        return hashlib.sha256("".join(self.cells("digest")).encode()).hexdigest()[:32]


def to_example(row: dict[str, Any]) -> Example:
    """Return a row with the columns `FEATURES` as an example."""
    cells = {name: cell for name, cell in row.items() if name != "digest"}
    cells["turns"] = [Turn(**turn) for turn in row["turns"]]
    cells["preferences"] = [StatedPreference(**preference) for preference in row["preferences"]]
    return Example(**cells)


def store_examples(
    examples: Iterable[Example], cache: Path | None = None, *, in_memory: int = IN_MEMORY
) -> ExampleDataset:
    """Store a stream of examples: at most `in_memory` of them in memory, more in an Arrow file.

    Args:
        cache: where the file is, for as long as the examples are used; without one, all stay in memory.

    Raises:
        CacheError: the cache cannot be written, or the disk is full.
    """
    rows = map(_row, examples)
    if cache is None:
        return _in_memory(list(rows))
    first = list(islice(rows, in_memory + 1))
    if len(first) <= in_memory:
        return _in_memory(first)
    try:
        folder = tempfile.TemporaryDirectory(prefix="examples-", dir=dataset_cache(cache), ignore_cleanup_errors=True)
    except OSError as error:
        raise CacheError(str(error)) from error
    try:
        return ExampleDataset(_in_file(_drained(first, rows), Path(folder.name)), folder)
    except BaseException:
        folder.cleanup()
        raise


def _in_memory(rows: list[dict[str, Any]]) -> ExampleDataset:
    schema = FEATURES.arrow_schema
    # In chunks: one array holds at most 2 GiB of text.
    chunks = [pa.Table.from_pylist(rows[begin : begin + 100], schema=schema) for begin in range(0, len(rows), 100)]
    return ExampleDataset(datasets.Dataset(pa.concat_tables([schema.empty_table(), *chunks])))


def _drained(first: list[dict[str, Any]], rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Rows of a list, which holds them no longer, and those that follow."""
    first.reverse()
    while first:
        yield first.pop()
    yield from rows


def _in_file(rows: Iterable[dict[str, Any]], folder: Path) -> datasets.Dataset:
    """Write rows to an Arrow file below `folder`; an error of reading them stays what it is."""
    errors: list[BaseException] = []

    def generate() -> Iterator[dict[str, Any]]:
        try:
            yield from rows
        except Exception as error:
            errors.append(error)
            raise

    try:
        return datasets.Dataset.from_generator(
            generate, features=FEATURES, cache_dir=str(folder), fingerprint=folder.name.replace("_", "-")
        )
    except DatasetGenerationError as error:
        if errors:
            raise errors[0] from None
        raise CacheError(str(error.__cause__ or error)) from error
    except OSError as error:
        raise CacheError(str(error)) from error


def _row(example: Example) -> dict[str, Any]:
    row = {name: getattr(example, name) for name in FEATURES if name != "digest"}
    row["turns"] = [{"role": turn.role, "content": turn.content} for turn in example.turns]
    row["preferences"] = [asdict(preference) for preference in example.preferences]
    content = json.dumps(list(row.values())).encode()
    return row | {"digest": hashlib.blake2b(content, digest_size=16).hexdigest()}
