"""The cells of a bench's row, each refused by name where it is not what a reader expects."""

from __future__ import annotations

import hashlib
import json
import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from multifaceted.data.bad_rows import BadRowError
from multifaceted.data.source import check_text


@dataclass(frozen=True, slots=True)
class Cells:
    """A row, or an object in one. A column that has several names in the wild is asked for by all of them.

    Every method raises `BadRowError` where the cell is missing or of another type.
    """

    values: Mapping[str, Any]

    @classmethod
    def of(cls, value: Any, name: str = "the row") -> Cells:
        """A value that is to be an object."""
        if not isinstance(value, Mapping):
            raise wrong_type(name, value, "an object with columns")
        return cls(value)

    def any(self, *names: str) -> Any:
        """The first of these cells that holds something; None where none does."""
        return next((self.values[name] for name in names if self.values.get(name) is not None), None)

    def needed(self, *names: str) -> Any:
        """The first of these cells that holds something."""
        value = self.any(*names)
        if value is None:
            found = ", ".join(map(repr, self.values)) or "nothing"
            raise BadRowError("missing_column", f"no {' or '.join(map(repr, names))}; found {found}")
        return value

    def text(self, *names: str, if_empty: str | None = None) -> str:
        """A text; an empty one is refused where that has a reason."""
        value = self.needed(*names)
        check_text(names[0], value, if_empty=if_empty)
        return str(value)

    def optional_text(self, *names: str) -> str | None:
        """A text that may be missing; an empty one is missing."""
        return self.text(*names) or None if self.any(*names) is not None else None

    def label(self, *names: str) -> str:
        """A name or a number that identifies something."""
        value = self.needed(*names)
        if not isinstance(value, str | int) or isinstance(value, bool):
            raise wrong_type(names[0], value, "a text or a whole number")
        check_text(names[0], str(value), if_empty="missing_column")
        return str(value)

    def whole(self, *names: str, below: int) -> int:
        """A whole number from 0."""
        value = self.needed(*names)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < below:
            raise BadRowError("wrong_value", f"{names[0]} is {reprlib.repr(value)}; expected 0 to {below - 1}")
        return value

    def number(self, *names: str) -> float | None:
        """A finite number that may be missing."""
        value = self.any(*names)
        if value is None:
            return None
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise wrong_type(names[0], value, "a finite number")
        return float(value)

    def items(self, *names: str, optional: bool = False) -> list[Any]:
        """A list; one that may be missing is empty then."""
        value = self.any(*names) if optional else self.needed(*names)
        if value is None:
            return []
        if not isinstance(value, list):
            raise wrong_type(names[0], value, "a list")
        return value

    def texts(self, *names: str) -> list[str]:
        """Texts, none where the cell is missing; a text alone is a list of one."""
        value = self.any(*names)
        texts = [value] if isinstance(value, str) else self.items(*names, optional=True)
        for text in texts:
            check_text(names[0], text)
        return texts

    def object(self, *names: str) -> Cells:
        """An object."""
        return Cells.of(self.needed(*names), names[0])


def content_id(*texts: str | None) -> str:
    """An id for a row without one: the same wherever and in whatever order the row is found."""
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16]


def wrong_type(name: str, value: Any, expected: str) -> BadRowError:
    """A cell of another type."""
    return BadRowError("wrong_type", f"{name} is {reprlib.repr(value)}, a {type(value).__name__}; expected {expected}")
