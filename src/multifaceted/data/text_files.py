"""Rows of JSON Lines, JSON, CSV and TSV files, gzipped or not.

Content tells formats apart; only CSV and TSV, which no content gives away, go by their suffix.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

from multifaceted.data.bad_rows import BadRowError, BadRows, DataError

csv.field_size_limit(2**31 - 1)  # a cell may hold a whole conversation; of the whole process
GZIP = b"\x1f\x8b"


class _Csv(csv.excel):
    strict = True


class _Tsv(csv.excel_tab):
    quoting = csv.QUOTE_NONE  # quotation marks are letters like others


DIALECTS: dict[str, type[csv.Dialect]] = {".csv": _Csv, ".tsv": _Tsv}


class Row(NamedTuple):
    """One row of a file, as it is."""

    number: int
    """The line, or in a list or a table the place; from 1."""
    where: str
    """The file and the place, for messages."""
    value: Any


def text_rows(path: Path, bad: BadRows, *, keyed: bool = False) -> Iterator[Row]:
    """Read a text file row by row. `bad` counts the rows, and takes those that cannot be read.

    Args:
        keyed: whether a JSON document that is an object holds rows, by their names.

    Raises:
        DataError: the file is truncated or of another format.
    """
    try:
        with path.open("rb") as stream:
            is_packed = stream.peek(2).startswith(GZIP)
        with gzip.open(path) if is_packed else path.open("rb") as text:
            yield from _text_rows(text, path, bad, keyed=keyed)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is truncated or damaged ({error}); fetch it again") from error


def _text_rows(stream: gzip.GzipFile | io.BufferedReader, path: Path, bad: BadRows, *, keyed: bool) -> Iterator[Row]:
    for suffix, dialect in DIALECTS.items():
        if suffix in path.suffixes:
            yield from _delimited_rows(stream, path, bad, dialect)
            return
    lines: Iterable[bytes] = stream
    if stream.peek(64).removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"["):
        for number, value in enumerate(_list(stream.read(), path), start=1):
            bad.read += 1
            yield Row(number, f"{path}, row {number}", value)
        return
    if ".json" in path.suffixes:  # JSON Lines under that name are common
        content = stream.read()
        document = _document(content)
        if keyed and isinstance(document, dict):
            for number, (key, value) in enumerate(document.items(), start=1):
                bad.read += 1
                yield Row(number, f"{path}, key {key!r}", value)
            return
        _refuse_document(document, path)
        lines = io.BytesIO(content)
    for number, line in enumerate(lines, start=1):
        if line.isspace():
            continue
        where = f"{path}, line {number}"
        bad.read += 1
        with bad.row(where):
            yield Row(number, where, _parse(line))


def _delimited_rows(
    stream: gzip.GzipFile | io.BufferedReader, path: Path, bad: BadRows, dialect: type[csv.Dialect]
) -> Iterator[Row]:
    """Rows below a line of names; every cell is a text."""
    # A byte that is not UTF-8 becomes half of a character, so that it spoils its own row only.
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
    lines = csv.reader(text, dialect)
    try:
        names = next(lines, [])
        _by_name(names, names)
        if len({*names}) < len(names):
            raise DataError(f"{path}: the first line names a column twice: {', '.join(names)}; name each once")
        for cells in lines:
            if not cells:
                continue
            where = f"{path}, line {lines.line_num}"
            bad.read += 1
            with bad.row(where):
                yield Row(lines.line_num, where, _by_name(names, cells))
    except BadRowError as error:
        raise DataError(f"{path}, line 1: {error}") from None
    except csv.Error as error:
        raise DataError(f"{path}, line {lines.line_num}: {error}; mend it") from error


def _by_name(names: list[str], cells: list[str]) -> dict[str, str]:
    if len(cells) != len(names):
        raise BadRowError("wrong_width", f"{len(cells)} cells for the {len(names)} columns of the first line")
    try:
        "".join(cells).encode(errors="surrogateescape").decode()
    except UnicodeDecodeError as error:
        raise wrong_encoding(error) from None
    return dict(zip(names, cells, strict=True))


def _parse(text: bytes) -> Any:
    try:
        return json.loads(text.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise wrong_encoding(error) from None
    except (ValueError, RecursionError) as error:
        raise BadRowError("not_json", f"not JSON ({error})") from None


def _list(content: bytes, path: Path) -> list[Any]:
    """A document that begins as a list. One fault in it leaves no row to tell from the others."""
    try:
        return cast(list[Any], json.loads(content.decode("utf-8-sig")))
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}, line {line}: {wrong_encoding(error)}") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: the list is not JSON ({error.msg}); mend it") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: the list is not JSON ({error}); mend it") from error


def _document(content: bytes) -> Any:
    """The one JSON value of a file; None where it holds several, as JSON Lines does, or none that can be read."""
    try:
        return json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None


def _refuse_document(value: Any, path: Path) -> None:
    """Refuse one JSON value that is no list."""
    if value is None:
        return
    keys = f" with the keys {', '.join(value)}" if isinstance(value, dict) else ""
    raise DataError(
        f"{path}: the top level is a {type(value).__name__}{keys}; expected a list of rows, or one row a line in a file"
        " that is named .jsonl. Write the list within it to a file of its own"
    )


def wrong_encoding(error: UnicodeDecodeError) -> BadRowError:
    """Return the error of a row that is not UTF-8."""
    byte = error.object[error.start]
    return BadRowError("wrong_encoding", f"byte {byte:#04x} is not UTF-8; convert the file, for example with iconv")
