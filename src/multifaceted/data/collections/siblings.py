"""The answers of a collection by instruction: what one wants to know of an answer's siblings.

In memory are hashes and places, 88 bytes an answer; texts and preference sets lie in a temporary file.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from array import array
from collections.abc import Iterable
from dataclasses import asdict
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from multifaceted.records import Example, StatedPreference

FIELDS = ("prompt", "whole", "system", "output", "system_length", "offset", "size")


class Sibling(NamedTuple):
    """One answer to an instruction. Texts are hashes of their words, whatever stands between these."""

    prompt: int
    whole: int
    """System message and instruction, one after the other."""
    system: int
    output: int
    system_length: int
    """In characters, without blanks at the ends."""
    offset: int
    size: int


class Siblings:
    """Answers by instruction, and by system message with instruction."""

    def __init__(self, examples: Iterable[Example], *, with_outputs: bool) -> None:
        """Read the examples once.

        Args:
            examples: each with one user's turn, a system message and an answer.
            with_outputs: whether answers must be had back as texts.
        """
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as this object)
        cells, offset = array("Q"), 0
        for example in examples:
            prompt, system = example.turns[0].content, (example.system or "").strip()
            record = {"preferences": [asdict(preference) for preference in example.preferences]}
            stored = json.dumps(record | ({"output": example.chosen} if with_outputs else {})).encode()
            self._file.write(stored)
            whole = digest(f"{system}\n{prompt}")
            cells.extend(
                (digest(prompt), whole, digest(system), digest(example.chosen), len(system), offset, len(stored))
            )
            offset += len(stored)
        self._file.flush()
        self._table = np.frombuffer(cells, dtype=np.uint64).reshape(-1, len(FIELDS))
        self._by_prompt = _Order(self._table[:, 0])
        self._by_whole = _Order(self._table[:, 1])

    def __len__(self) -> int:
        return len(self._table)

    def of_prompt(self, prompt: str) -> list[Sibling]:
        """All answers to an instruction, in the order of the collection."""
        return [Sibling(*map(int, self._table[place])) for place in self._by_prompt.places(digest(prompt))]

    def of_whole(self, text: str) -> list[Sibling]:
        """The answers to a system message and an instruction, which `text` is, joined by blanks of any kind."""
        return [Sibling(*map(int, self._table[place])) for place in self._by_whole.places(digest(text))]

    def preferences(self, sibling: Sibling) -> list[StatedPreference]:
        """The preference set that an answer was written for."""
        return [StatedPreference(**preference) for preference in self._record(sibling)["preferences"]]

    def output(self, sibling: Sibling) -> str:
        """The answer."""
        return str(self._record(sibling)["output"])

    def _record(self, sibling: Sibling) -> dict[str, Any]:
        # Processes that share the file since a fork share its position, so none is used.
        return dict(json.loads(os.pread(self._file.fileno(), sibling.size, sibling.offset)))


def digest(text: str) -> int:
    """64 bits of a text's words."""
    words = " ".join(text.split()).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(words, digest_size=8).digest(), "big")


class _Order:
    """Where a key is found in a column."""

    def __init__(self, column: NDArray[np.uint64]) -> None:
        self._order = np.argsort(column, kind="stable")
        self._sorted = column[self._order]

    def places(self, key: int) -> NDArray[np.intp]:
        first, last = (int(np.searchsorted(self._sorted, np.uint64(key), side)) for side in ("left", "right"))
        return self._order[first:last]
