"""`verdicts.jsonl` while it grows: a line a verdict, written as it arrives, and read back to go on after a kill."""

from __future__ import annotations

import fcntl
import logging
import os
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from multifaceted.record_files import RecordError, append_jsonl, drop_half_a_line, read_jsonl
from multifaceted.records import VERDICTS, VERSION, Verdict

log = logging.getLogger(__name__)

Key = tuple[str, str, int, str, int]


class VerdictLog:
    """Verdicts on disk, and the latest attempt of each, for one process at a time.

    A lock on a file beside it is held until the log is closed; the system frees it however a process ends. A line that
    was half written when the process was killed is dropped.

    Raises:
        RecordError: another process has it open; a line that is no verdict, or one of another version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(path)
        try:
            drop_half_a_line(path)
            self.latest = latest_verdicts(read_verdicts(path))
        except RecordError:
            self.close()
            raise

    def __enter__(self) -> VerdictLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let others write it."""
        self._lock.close()

    def add(self, verdicts: Iterable[Verdict]) -> None:
        """Write verdicts at the end, each as it comes."""
        for verdict in append_jsonl(self.path, verdicts):
            self.latest[verdict.key] = verdict


def read_verdicts(path: Path) -> list[Verdict]:
    """Every line of a `verdicts.jsonl` that judges wrote.

    Raises:
        RecordError: a line that is no verdict, or one of another version.
    """
    return verdicts_of(read_jsonl(path), str(path))


def verdicts_of(rows: Iterable[Mapping[str, Any]], where: str = VERDICTS) -> list[Verdict]:
    """Lines of a `verdicts.jsonl`, as `read_verdicts`."""
    return [_verdict_of(row, f"{where}, line {number}") for number, row in enumerate(rows, start=1)]


def latest_verdicts(verdicts: Iterable[Verdict]) -> dict[Key, Verdict]:
    """Of each question and run the last attempt, in an order that does not depend on when they arrived."""
    latest: dict[Key, Verdict] = {}
    for verdict in verdicts:
        known = latest.get(verdict.key)
        if known is None or verdict.attempt > known.attempt:
            latest[verdict.key] = verdict
    return dict(sorted(latest.items()))


def _verdict_of(row: Mapping[str, Any], where: str) -> Verdict:
    version = row.get("version") if isinstance(row, Mapping) else None
    if version != VERSION:
        raise RecordError(f"{where}: a verdict of version {version!r}; this release reads version {VERSION}")
    try:
        return Verdict(**row)
    except TypeError as error:
        raise RecordError(f"{where}: not a verdict ({error})") from error


def _locked(path: Path) -> IO[str]:
    """The open file whose lock says that this process writes `path`; it holds who that is."""
    lock = path.with_name(f".{path.name}.lock").open("a+", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        holder = lock.read() or "another process"
        lock.close()
        raise RecordError(
            f"{holder} writes {path} now, and both would pay for the same verdicts. Wait until it ends, and the same"
            " command goes on from there; or judge into another folder with into=..."
        ) from None
    except OSError as error:
        log.warning("no lock can be had on %s (%s): let no other process judge into this folder", path, error)
    lock.truncate(0)
    lock.write(f"process {os.getpid()} on {platform.node()}")
    lock.flush()
    return lock
