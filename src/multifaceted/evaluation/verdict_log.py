"""`verdicts.jsonl` while it grows: a line a verdict, written as it arrives, and read back to go on after a kill."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from multifaceted.record_files import RecordError, append_jsonl, drop_half_a_line, read_jsonl
from multifaceted.records import VERDICTS, VERSION, Verdict

Key = tuple[str, str, int, str, int]


class VerdictLog:
    """Verdicts on disk, and the latest attempt of each.

    A line that was half written when the process was killed is dropped.

    Raises:
        RecordError: a line that is no verdict, or one of another version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        drop_half_a_line(path)
        self.latest = latest_verdicts(read_verdicts(path))

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
