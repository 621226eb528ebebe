"""Token trees in a file: memory-mapped, so that a data set of any size takes the memory of the trees in use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np
import pyarrow as pa

from multifaceted.trees import TokenTree

SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "source": pa.string(),
        "dimensions": pa.list_(pa.string()),
        "margin": pa.float64(),
        "lengths": pa.list_(pa.int32()),  # of the prompt and of each branch
        "tokens": pa.list_(pa.int32()),
    }
)


def write_trees(path: Path, parts: Iterable[Sequence[TokenTree]]) -> None:
    """Write trees, part by part.

    Raises:
        OSError: the disk is full or cannot be written.
    """
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, SCHEMA) as writer:
        for trees in parts:
            if trees:
                writer.write_batch(_record_batch(trees))


def _record_batch(trees: Sequence[TokenTree]) -> pa.RecordBatch:
    pieces = [[tree.prompt, *tree.branches] for tree in trees]
    lengths = [[len(ids) for ids in row] for row in pieces]
    ends = np.cumsum([0, *map(sum, lengths)], dtype=np.int32)
    flat = np.concatenate([ids for row in pieces for ids in row])
    columns = [
        pa.array([tree.id for tree in trees]),
        pa.array([tree.source for tree in trees]),
        pa.array([tree.dimensions for tree in trees], SCHEMA.field("dimensions").type),
        pa.array([tree.margin for tree in trees], pa.float64()),
        pa.array(lengths, SCHEMA.field("lengths").type),
        pa.ListArray.from_arrays(pa.array(ends), pa.array(flat)),
    ]
    return pa.record_batch(columns, schema=SCHEMA)


class StoredTrees(Sequence[TokenTree]):
    """The trees that `write_trees` wrote; their arrays are read-only views of the file.

    Raises:
        OSError, pyarrow.ArrowException: the file is missing, damaged or of another kind.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with pa.memory_map(str(path)) as file, pa.ipc.open_file(file) as reader:
            if not reader.schema.equals(SCHEMA):
                raise pa.ArrowInvalid(f"its columns are {', '.join(reader.schema.names)}")
            batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        self._starts = np.cumsum([0, *(batch.num_rows for batch in batches)])
        self._parts = [_Part(batch) for batch in batches]

    def __reduce__(self) -> tuple[type[StoredTrees], tuple[Path]]:
        return StoredTrees, (self.path,)

    def __len__(self) -> int:
        return int(self._starts[-1])

    @overload
    def __getitem__(self, index: int) -> TokenTree: ...
    @overload
    def __getitem__(self, index: slice) -> list[TokenTree]: ...
    def __getitem__(self, index: int | slice) -> TokenTree | list[TokenTree]:
        place = range(len(self))[index]
        if isinstance(place, range):
            return [self[i] for i in place]
        part = int(self._starts.searchsorted(place, side="right")) - 1
        return self._parts[part].tree(place - int(self._starts[part]))

    def __iter__(self) -> Iterator[TokenTree]:
        return (part.tree(row) for part in self._parts for row in range(len(part.ids)))


class _Part:
    """A record batch, its arrays without their wrapping."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self.ids, self.sources, self.dimensions, self.margins, lengths, tokens = batch.columns
        self.pieces, self.first_piece = lengths.values.to_numpy(), lengths.offsets.to_numpy()
        self.tokens, self.first_token = tokens.values.to_numpy(), tokens.offsets.to_numpy()

    def tree(self, row: int) -> TokenTree:
        pieces = self.pieces[self.first_piece[row] : self.first_piece[row + 1]].tolist()
        begin, parts = int(self.first_token[row]), []
        for length in pieces:
            parts.append(self.tokens[begin : begin + length])
            begin += length
        return TokenTree(
            id=self.ids[row].as_py(),
            prompt=parts[0],
            branches=parts[1:],
            source=self.sources[row].as_py(),
            dimensions=tuple(self.dimensions[row].as_py()),
            margin=self.margins[row].as_py(),
        )
