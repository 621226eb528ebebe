"""Files of verdicts and answers that others recorded."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from multifaceted.data.bad_rows import BadRowError, BadRows, DataError, OnBadRow
from multifaceted.data.benches.cells import Cells
from multifaceted.data.reading import read_rows

T = TypeVar("T")


def read_recorded(path: Path, of: Callable[[Cells], T], remedy: str = "fetch the file again") -> list[T]:
    """What is made of each row of a file (JSON Lines, JSON, CSV, Parquet; gzipped or not), all of them or none.

    Args:
        of: makes something of a row, or raises `BadRowError`.
        remedy: what to do about broken rows; those of a published file were hardly published so.

    Raises:
        DataError: the file is missing, or a row is broken; names the first one.
    """
    bad = BadRows(policy=OnBadRow.DROP)
    found = []
    for row in read_rows(path, bad):
        with bad.row(row.where):
            found.append(of(Cells.of(row.value)))
    if bad.counts:
        first = next(iter(bad.samples.values()))
        raise DataError(f"{first} (broken rows: {bad.counts.total()}); {remedy}")
    return found


def number_in(cells: Cells, *names: str) -> float:
    """A finite number that a table holds as text.

    Raises:
        BadRowError: the cell is missing or holds something else.
    """
    text = cells.text(*names)
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise BadRowError("wrong_type", f"{names[0]} is {text!r}; expected a finite number")
    return number
