"""What every reader asks of a row: columns that are there, of the type that the collection documents."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from typing import Any

from multifaceted.data.bad_rows import BadRowError
from multifaceted.data.preference_files import PreferenceFiles
from multifaceted.data.rows import names_of
from multifaceted.data.source import check_text


def columns_of(row: Any, *names: str) -> list[Any]:
    """The values of columns, in the order of their names; a null is missing.

    Raises:
        BadRowError: names the missing columns, and lists those that were found.
    """
    if not isinstance(row, Mapping):
        raise BadRowError(
            "wrong_type", f"the row is {reprlib.repr(row)}, a {type(row).__name__}; expected an object with columns"
        )
    missing = [name for name in names if row.get(name) is None]
    if missing:
        raise BadRowError(
            "missing_column",
            f"no {', no '.join(missing)}; found {names_of(row)}. This collection has {', '.join(names)};"
            " for other columns use data=preference_files",
        )
    return [row[name] for name in names]


def text_of(name: str, value: Any, if_empty: str = "empty_turn") -> str:
    """A text that is not empty.

    Raises:
        BadRowError: it is none; `if_empty` is the reason where it is empty.
    """
    check_text(name, value, if_empty=if_empty)
    return str(value)


def number_of(name: str, value: Any) -> float:
    """A finite number.

    Raises:
        BadRowError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadRowError("wrong_type", f"{name} is {reprlib.repr(value)}; expected a finite number")
    return float(value)


def refuse_columns(source: PreferenceFiles) -> None:
    """Refuse names of columns for a collection whose columns are known.

    Raises:
        ValueError: says which source takes them.
    """
    if source.columns:
        raise ValueError(
            f"columns is {source.columns}, and {type(source).__name__} reads the columns that the collection was"
            " published with; for files with other columns use data=preference_files"
        )
