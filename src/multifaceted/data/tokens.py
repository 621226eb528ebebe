"""Token trees as a `datasets.Dataset`: one row an example, with its tree or the reason why it has none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import datasets
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from multifaceted.trees import TokenTree

TEXT, NUMBERS = datasets.Value("string"), datasets.List(datasets.Value("int32"))
FEATURES = datasets.Features(
    {
        "id": TEXT,
        "source": TEXT,
        "dimensions": datasets.List(TEXT),
        "margin": datasets.Value("float64"),
        "lengths": NUMBERS,  # of the prompt and of each branch
        "tokens": NUMBERS,
        "view": TEXT,
        "dropped": TEXT,
        "problem": TEXT,
        "cut": TEXT,
    }
)


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizedExample:
    """A tree, or why an example has none.

    Attributes:
        dropped: the reason, as `summary.json` has it; None where there is a tree.
        problem: what is wrong with the example, in words; None where it is only too long.
        cut: the reason for which branches were cut.
    """

    tree: TokenTree | None
    dropped: str | None = None
    problem: str | None = None
    cut: str | None = None


def to_table(ids: Sequence[str], views: Sequence[str], rows: Sequence[TokenizedExample]) -> pa.Table:
    """Return rows as a table with the columns `FEATURES`."""
    schema = FEATURES.arrow_schema
    trees = [row.tree for row in rows]
    pieces = [[tree.prompt, *tree.branches] if tree else [] for tree in trees]
    lengths = [[len(piece) for piece in row] for row in pieces]
    ends = np.cumsum([0, *map(sum, lengths)], dtype=np.int32)
    flat = np.concatenate([np.empty(0, dtype=np.int32), *(piece for row in pieces for piece in row)])
    columns = {
        "id": ids,
        "source": [tree and tree.source for tree in trees],
        "dimensions": [tree.dimensions if tree else [] for tree in trees],
        "margin": [tree and tree.margin for tree in trees],
        "lengths": lengths,
        "tokens": pa.ListArray.from_arrays(pa.array(ends), pa.array(flat)),
        "view": views,
        **{name: [getattr(row, name) for row in rows] for name in ("dropped", "problem", "cut")},
    }
    return pa.table([pa.array(cells, schema.field(name).type) for name, cells in columns.items()], schema=schema)


class TokenTrees(Sequence[TokenTree]):
    """The trees of a token data set; their arrays are read-only views of its file.

    Args:
        dataset: has the columns `FEATURES`.
        rows: which of its rows hold the trees, in their order.
    """

    def __init__(self, dataset: datasets.Dataset, rows: NDArray[np.int64]) -> None:
        self.dataset = dataset
        self.rows = rows
        batches = dataset.data.to_batches()
        self._starts = np.cumsum([0, *(batch.num_rows for batch in batches)])
        self._batches = [_Batch(batch) for batch in batches]

    @classmethod
    def of(cls, trees: Sequence[TokenTree]) -> TokenTrees:
        """Store trees in memory."""
        rows = [TokenizedExample(tree=tree) for tree in trees]
        table = to_table([tree.id for tree in trees], ["released"] * len(trees), rows)
        return cls(datasets.Dataset(table), np.arange(len(trees)))

    def __reduce__(self) -> tuple[type[TokenTrees], tuple[Any, ...]]:
        return TokenTrees, (self.dataset, self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def ids(self) -> list[str]:
        """The ids of all trees."""
        ids: list[str] = self.dataset.data.column("id").take(pa.array(self.rows)).to_pylist()
        return ids

    @overload
    def __getitem__(self, index: int) -> TokenTree: ...
    @overload
    def __getitem__(self, index: slice) -> TokenTrees: ...
    def __getitem__(self, index: int | slice) -> TokenTree | TokenTrees:
        if isinstance(index, slice):
            return TokenTrees(self.dataset, self.rows[index])
        row = self.rows[index]
        batch = int(self._starts.searchsorted(row, side="right")) - 1
        return self._batches[batch].tree(int(row - self._starts[batch]))

    def __iter__(self) -> Iterator[TokenTree]:
        return (self[index] for index in range(len(self)))


class _Batch:
    """The columns of a record batch as arrays, without what wraps them."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self.ids, self.sources, self.dimensions, self.margins, lengths, tokens = batch.columns[:6]
        self.lengths, self.first_length = lengths.values.to_numpy(), lengths.offsets.to_numpy()
        self.tokens, self.first_token = tokens.values.to_numpy(), tokens.offsets.to_numpy()

    def tree(self, row: int) -> TokenTree:
        lengths = self.lengths[self.first_length[row] : self.first_length[row + 1]].tolist()
        begin, parts = int(self.first_token[row]), []
        for length in lengths:
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
