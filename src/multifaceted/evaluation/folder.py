"""The folder of an evaluation: whose it is, whether it may be continued, and by one process at a time."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multifaceted.evaluation.identity import Evaluated
from multifaceted.record_files import RecordError, read_json, write_json
from multifaceted.records import LIKELIHOODS, RESPONSES, REWARDS, RUN, SAMPLES, SCORES, VERDICTS, VERSION
from multifaceted.tracking import run_facts

log = logging.getLogger(__name__)

LOCK = ".lock"
FIRST = (SAMPLES, RESPONSES, LIKELIHOODS, REWARDS)
"""What is asked of a model, from which the rest is made."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """What a folder is about, in its `run.json`.

    Attributes:
        identity: what tells its responses from others.
        judge: likewise of who judges them.
        seed: of the run.
        paths: of what else took part, which decide nothing.
    """

    who: Evaluated
    identity: Mapping[str, Any]
    seed: int
    judge: Mapping[str, Any] | None = None
    paths: Mapping[str, str] | None = None


@contextlib.contextmanager
def opened(folder: Path, subject: Subject, *, overwrite: bool = False) -> Iterator[dict[str, Any]]:
    """A folder for this process alone: what it holds of the same subject is continued, and anything else is refused.

    Args:
        overwrite: remove what is there instead.

    Yields:
        Its `run.json`, with what an earlier run of the same added to it.

    Raises:
        RecordError: another process is at it, or it holds what another model, judge, seed, setting or other prompts
            gave.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        yield _begin(folder, subject, overwrite=overwrite)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """A lock on a file that holds who has it; the system frees it however a process ends."""
    with (folder / LOCK).open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise RecordError(
                f"{lock.read() or 'another process'} evaluates into {folder} now, and both would pay for the same. Wait"
                " until it ends, and the same command goes on from there; or evaluate into another folder with into=..."
            ) from None
        except OSError as error:
            log.warning("no lock can be had on %s (%s): let no other process evaluate into it", folder, error)
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {platform.node()}")
        lock.flush()
        yield


def _begin(folder: Path, subject: Subject, *, overwrite: bool) -> dict[str, Any]:
    held = next((folder / name for name in FIRST if _holds(folder / name)), None)
    before: dict[str, Any] = {}
    if held is not None and not overwrite:
        before = read_json(folder / RUN)
        _refuse_others(folder, held, before, subject)
    else:
        for name in (*FIRST, VERDICTS, SCORES):  # nothing outlives another identity
            (folder / name).unlink(missing_ok=True)
    record = {"version": VERSION, "policy_path": subject.who.path, **(subject.paths or {}), "judge": subject.judge}
    record = before | record | {**subject.identity, "facts": before.get("facts") or run_facts(subject.seed)}
    write_json(folder / RUN, record)
    return record


def _refuse_others(folder: Path, held: Path, before: Mapping[str, Any], subject: Subject) -> None:
    changed = [key for key in subject.identity if before.get(key) != subject.identity[key]]
    if changed:
        hint = " (the bench, controls and other settings of the task make them)" if "prompts" in changed else ""
        raise RecordError(
            f"{folder} holds {held.stem} that come of something else than is asked for now: {', '.join(changed)}{hint};"
            " evaluate into another folder with into=..., or generate anew with overwrite=true"
        )
    if before.get("judge") != subject.judge and _holds(folder / VERDICTS):
        raise RecordError(
            f"{folder} holds verdicts of another judge. Judge the same responses in another folder: into=..."
            f" engine=file engine.path={folder / RESPONSES}; or remove {folder / VERDICTS}"
        )


def _holds(path: Path) -> bool:
    """Whether there is anything in a file; one that was begun and left empty holds nothing of anybody."""
    return path.exists() and path.stat().st_size > 0
