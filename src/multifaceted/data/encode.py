"""From examples to token trees: each in its view, tokenized once, and counted by what became of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from multifaceted.data.bad_rows import BadRows, DataError
from multifaceted.data.examples import ExampleDataset
from multifaceted.data.mix import Views
from multifaceted.data.token_map import Tokenization, take_problem
from multifaceted.data.tokenize import Limits
from multifaceted.data.tokens import TokenTrees


@dataclass(kw_only=True, slots=True)
class Encoded:
    """Token trees, and what became of the examples that are not among them or not whole.

    Attributes:
        dropped: examples that are too long, by reason; those at fault are counted by `BadRows`.
        kept: rows that are trained on though they lack something, by reason.
        views: in which view how many are shown.
        fingerprint: of the token data set, as `datasets` has it.
    """

    trees: TokenTrees
    dropped: Counter[str] = field(default_factory=Counter)
    cut: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    views: Counter[str] = field(default_factory=Counter)
    fingerprint: str = ""


def encode(
    examples: ExampleDataset,
    tokenizer: PreTrainedTokenizerBase,
    limits: Limits,
    *,
    with_rejected: bool,
    bad: BadRows,
    views: Views | None = None,
    cache: Path | None = None,
) -> Encoded:
    """Encode examples, each in one view and under the tokenizer's chat template.

    An example that is too long in any of the views is dropped, so the shares of the views hold after drops. Rows are
    tokenized once, but for the few whose view changes because others are dropped.

    Args:
        with_rejected: whether rejected responses become branches.
        bad: takes examples that are at fault; see `tokenize`.
        cache: where tokens are kept, by the content of examples, tokenizer, template, limits, views and code. Where it
            cannot be read or written, that is logged, and they stay in memory.

    Raises:
        DataError: nothing is left.
    """
    work = Tokenization(
        tokenizer=tokenizer,
        limits=limits,
        with_rejected=with_rejected,
        views=views or Views(),
        bad=BadRows(policy=bad.policy, option=bad.option),
    )
    ids = list(examples.cells("id"))
    numbers = work.views.assign(ids)
    parts = [work.tokenized(examples, numbers, cache)]
    rows, stays = np.arange(len(examples)), _has_tree(parts[0])
    while len(work.views.names) > 1:
        kept = np.flatnonzero(stays)
        wanted = work.views.assign([ids[index] for index in kept])
        moved = kept[wanted != numbers[kept]]
        if not len(moved):
            break
        numbers[kept] = wanted
        rows[moved] = sum(map(len, parts)) + np.arange(len(moved))
        parts.append(work.tokenized(examples.select(moved.tolist()), numbers[moved], cache))
        stays[moved] = _has_tree(parts[-1])
    dataset = datasets.concatenate_datasets(parts) if len(parts) > 1 else parts[0]
    return _encoded(dataset, rows, bad, limits)


def _has_tree(dataset: datasets.Dataset) -> NDArray[np.bool_]:
    return np.asarray(dataset.data.column("dropped").is_null())


def _encoded(dataset: datasets.Dataset, rows: NDArray[np.int64], bad: BadRows, limits: Limits) -> Encoded:
    """Count what became of each example.

    Args:
        rows: [examples], the row of each.
    """
    names = ("id", "view", "dropped", "problem", "cut")
    column = {name: dataset.data.column(name).take(pa.array(rows)) for name in names}
    problems = column["problem"]
    too_long = count(column["dropped"].filter(problems.is_null()))
    for index in np.flatnonzero(np.asarray(problems.is_valid())):
        take_problem(bad, *(cells[index].as_py() for cells in (column["id"], column["dropped"], problems)))
    stays = np.asarray(column["dropped"].is_null())
    if not stays.any():
        raise DataError(
            f"no example is left of {len(rows)}: {dict(too_long + bad.counts)} at data.max_length={limits.max_length};"
            " raise data.max_length (and batch.max_tokens) or shorten the prompts"
        )
    return Encoded(
        trees=TokenTrees(dataset, rows[stays]),
        dropped=too_long,
        cut=count(column["cut"]),
        views=count(column["view"].filter(pa.array(stays))),
        fingerprint=str(dataset._fingerprint),
    )


def count(cells: pa.ChunkedArray) -> Counter[str]:
    """Count the texts of a column, nulls apart."""
    return Counter({one["values"].as_py(): one["counts"].as_py() for one in cells.drop_null().value_counts()})
