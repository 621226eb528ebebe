"""Reading and writing records: whole or not at all, and refused by name where they are broken."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from multifaceted.records import VERSION, Prompt, Response, Sampling, StatedPreference

Row = TypeVar("Row")

SURROGATES = "backslashreplace"
"""Half a surrogate pair, which a cut reply may end with, becomes the JSON escape that reads back as the same."""

Record = TypeVar("Record")


class RecordError(ValueError):
    """A record that is missing, broken, or of another version."""


def put_in_place(partial: Path, path: Path) -> None:
    """Give a file or a folder that is completely written its name; a power cut leaves `path` as it was or whole."""
    for written in (*partial.rglob("*"), partial):
        sync(written)
    os.replace(partial, path)
    sync(path.parent)


@contextlib.contextmanager
def alone_at(path: Path) -> Iterator[None]:
    """Wait for another job that makes the same file or folder, so that it can be read; where locks can be had."""
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):  # each job then makes its own
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = held.enter_context(path.with_name(f".{path.name}.lock").open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def sync(path: Path) -> None:
    """Have a file's bytes, or a folder's names, reach the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Write JSON (a dataclass or plain data) so that a reader sees the old file or the new one, never half of one."""
    plain = asdict(value) if hasattr(value, "__dataclass_fields__") else value
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    put_in_place(partial, path)


def append_jsonl(path: Path, rows: Iterable[Row]) -> Iterator[Row]:
    """Write one JSON object a line at the end of a file, each as it comes, and hand it on."""
    with path.open("a", encoding="utf-8", errors=SURROGATES) as stream:
        for row in rows:
            stream.write(_line(row))
            stream.flush()
            yield row


def drop_half_a_line(path: Path) -> None:
    """Ready a file to be appended to: the line that was being written when the process was killed is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    with path.open("r+b") as stream:
        content = stream.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            stream.truncate(whole)


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Write one JSON object a line, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8", errors=SURROGATES) as stream:
        for row in rows:
            stream.write(_line(row))
    put_in_place(partial, path)


def _line(row: Any) -> str:
    plain = asdict(row) if hasattr(row, "__dataclass_fields__") else row
    return json.dumps(plain, ensure_ascii=False, allow_nan=False) + "\n"


def read_json(path: Path) -> Any:
    """Read a JSON record; a record of another version is refused."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecordError(f"{path} does not exist") from None
    except json.JSONDecodeError as error:
        raise RecordError(f"{path} is not JSON: {error}") from error
    if isinstance(value, dict) and value.get("version", VERSION) != VERSION:
        raise RecordError(f"{path} has record version {value['version']}; this release reads version {VERSION}")
    return value


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Read one JSON object a line; a broken line is refused with its number."""
    if not path.exists():
        raise RecordError(f"{path} does not exist")
    with path.open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise RecordError(f"{path}, line {number}: not JSON ({error})") from error


def read_prompts(path: Path) -> list[Prompt]:
    """The prompts of a `prompts.jsonl`.

    Raises:
        RecordError: a line that is no prompt.
    """
    prompts = []
    for number, row in enumerate(read_jsonl(path), start=1):
        try:
            stated = [StatedPreference(**preference) for preference in row.pop("preferences", [])]
            sampling = Sampling(**row.pop("sampling", {}))
            prompts.append(Prompt(**row, preferences=stated, sampling=sampling))
        except (AttributeError, TypeError) as error:
            raise RecordError(f"{path}, line {number}: not a prompt ({error})") from error
    return prompts


def read_responses(path: Path) -> dict[str, Response]:
    """The responses of a `responses.jsonl` by their prompt's id.

    Raises:
        RecordError: a line that is no response.
    """
    return {response.id: response for response in read_records(path, Response)}


def read_records(path: Path, kind: type[Record]) -> list[Record]:
    """The lines of a file, each as a record of plain fields.

    Raises:
        RecordError: a line that is none; names it.
    """
    records = []
    for number, row in enumerate(read_jsonl(path), start=1):
        try:
            records.append(kind(**row))
        except TypeError as error:
            raise RecordError(f"{path}, line {number}: not a {kind.__name__.lower()} ({error})") from error
    return records
