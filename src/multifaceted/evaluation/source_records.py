"""What is said of files that other evaluations left, and which files those were."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from multifaceted.evaluation.task import RecordedTask
from multifaceted.record_files import RecordError, read_json, write_json
from multifaceted.records import RUN, SCORES, VERDICTS, VERSION, Scores

SOURCES = "sources"


def measure_records(task: RecordedTask, folder: Path) -> Scores:
    """Write `run.json`, which says what was read, and `scores.json`.

    Raises:
        RecordError: a file is missing or broken; the folder holds an evaluation.
        DataError: a row of a file is broken.
    """
    metrics = task.metrics_of_records()  # refuses first what is no evaluation
    if (folder / RUN).exists() and SOURCES not in read_json(folder / RUN):
        raise RecordError(
            f"{folder} holds an evaluation, whose {SCORES} would be lost; name another folder with into=..."
        )
    subject = read_json(task.subject / RUN)
    sources = {setting: _identified(source) for setting, source in task.sources.items()}
    policy = {"path": subject["policy_path"], "fingerprint": subject["policy"]}
    scores = Scores(task=task.name, policy=policy, metrics=metrics)
    write_json(folder / RUN, {"version": VERSION, "task": task.name, SOURCES: sources})
    write_json(folder / SCORES, scores)
    return scores


def _identified(source: Path) -> dict[str, Any]:
    """An evaluation by who was evaluated, who judged and the verdicts; a file by its bytes."""
    if source.is_file():
        return {"path": str(source), "sha256": _sha256(source)}
    about = read_json(source / RUN)
    verdicts = {"verdicts_sha256": _sha256(source / VERDICTS)}
    return {"path": str(source), "policy": about["policy"], "judge": about["judge"], **verdicts}


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
