"""Examples that may not fit in memory: a list while they are few, else a file that is read one example at a time."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import IO, overload

import numpy as np
from numpy.typing import NDArray

from multifaceted.records import Example, StatedPreference, Turn

IN_MEMORY = 20_000
"""Examples that are kept as objects, about 100 MB of them at the lengths of Janus."""


class StoredExamples(Sequence[Example]):
    """Examples in a file, one JSON object a line.

    Args:
        stream: the file, open; when nobody holds it any more, it is closed.
        where: [examples, 2], first byte and number of bytes of each example.
    """

    def __init__(self, stream: IO[bytes], where: NDArray[np.int64]) -> None:
        self._stream = stream
        self._where = where

    def __len__(self) -> int:
        return len(self._where)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> StoredExamples: ...
    def __getitem__(self, index: int | slice) -> Example | StoredExamples:
        if isinstance(index, slice):
            return self.select(range(len(self))[index])
        first, size = self._where[index]
        self._stream.seek(first)
        return _from_json(self._stream.read(size))

    def __iter__(self) -> Iterator[Example]:
        return (self[index] for index in range(len(self)))

    def select(self, indices: Sequence[int]) -> StoredExamples:
        """Some of the examples, in the order of `indices`."""
        return StoredExamples(self._stream, self._where[np.asarray(indices, dtype=np.int64)])


def store(examples: Iterable[Example], folder: Path | None = None, *, in_memory: int = IN_MEMORY) -> Sequence[Example]:
    """Take all examples of a stream: a list of at most `in_memory`, else a file without a name.

    Args:
        folder: where the file is; by default in the system's folder for such files. It goes with its last use, however
            the process ends.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    stream = iter(examples)
    first = list(islice(stream, in_memory))
    next_one = next(stream, None)
    if next_one is None:
        return first
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    sizes = []
    file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - open as long as there are examples of it
    for source in (first, [next_one], stream):
        for example in source:
            sizes.append(file.write(json.dumps(asdict(example)).encode() + b"\n"))
        first.clear()
    ends = np.cumsum(sizes, dtype=np.int64)
    return StoredExamples(file, np.stack([ends - sizes, np.asarray(sizes)], axis=1))


def select(examples: Sequence[Example], indices: Sequence[int]) -> Sequence[Example]:
    """Some of the examples, in the order of `indices`."""
    if isinstance(examples, StoredExamples):
        return examples.select(indices)
    return [examples[index] for index in indices]


def _from_json(line: bytes) -> Example:
    plain = json.loads(line)
    plain["turns"] = [Turn(**turn) for turn in plain["turns"]]
    plain["preferences"] = [StatedPreference(**preference) for preference in plain["preferences"]]
    return Example(**plain)
