"""The folder of an evaluation: whose it is, and whether it may be continued."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multifaceted.evaluation.identity import Evaluated
from multifaceted.record_files import RecordError, read_json, write_json
from multifaceted.records import LIKELIHOODS, RESPONSES, REWARDS, RUN, SAMPLES, SCORES, VERDICTS, VERSION
from multifaceted.tracking import run_facts

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


def begin(folder: Path, subject: Subject, *, overwrite: bool = False) -> dict[str, Any]:
    """Ready a folder: what it holds of the same subject is continued, and anything else is refused.

    Args:
        overwrite: remove what is there instead.

    Returns:
        Its `run.json`, with what an earlier run of the same added to it.

    Raises:
        RecordError: it holds what another model, judge, seed, setting or other prompts gave.
    """
    held = next((folder / name for name in FIRST if (folder / name).exists() and (folder / name).stat().st_size), None)
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
        raise RecordError(
            f"{folder} holds {held.stem} made with another {', '.join(changed)};"
            " evaluate into another folder with into=..., or generate anew with overwrite=true"
        )
    if before.get("judge") != subject.judge and (folder / VERDICTS).exists():
        raise RecordError(
            f"{folder} holds verdicts of another judge. Judge the same responses in another folder: into=..."
            f" engine=file engine.path={folder / RESPONSES}; or remove {folder / VERDICTS}"
        )
