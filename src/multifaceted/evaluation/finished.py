"""Evaluations that are finished, read from the files that they left."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multifaceted.evaluation.rubric_scores import without_controls
from multifaceted.evaluation.verdict_log import latest_verdicts, read_verdicts
from multifaceted.record_files import RecordError, read_json, read_prompts, read_responses
from multifaceted.records import PROMPTS, RESPONSES, RUN, SCORES, VERDICTS, Prompt, Response, Verdict

LONGEST_NAME = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """What a judged evaluation left, without its controls.

    Attributes:
        task: the name of its task.
        judge: the judge's name and what else decides its verdicts.
        prompts, responses: by id.
        verdicts: the last one of each question and run.
    """

    folder: Path
    task: str
    judge: Mapping[str, Any]
    prompts: Mapping[str, Prompt]
    responses: Mapping[str, Response]
    verdicts: Sequence[Verdict]


def read_finished(folder: Path) -> Finished:
    """The files of an evaluation.

    Raises:
        RecordError: it is not finished or not judged; a file is missing or broken.
    """
    judge = read_json(folder / RUN).get("judge")
    if judge is None:
        raise RecordError(f"{folder} holds no verdicts of a judge; name the folder of an evaluation that has one")
    if not (folder / SCORES).exists():
        raise RecordError(f"{folder} holds no {SCORES}: its evaluation is not finished; run it again, it goes on")
    prompts = {prompt.id: prompt for prompt in without_controls(read_prompts(folder / PROMPTS))}
    verdicts = latest_verdicts(read_verdicts(folder / VERDICTS)).values()
    return Finished(
        folder=folder,
        task=read_json(folder / SCORES)["task"],
        judge=judge,
        prompts=prompts,
        responses=read_responses(folder / RESPONSES),
        verdicts=[v for v in verdicts if v.prompt == v.response and v.prompt in prompts],
    )


def different(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """The settings that two have not in common, with both values; empty where there are none."""
    keys = [key for key in {**ours, **theirs} if ours.get(key) != theirs.get(key)]
    return ", ".join(f"{key} {ours.get(key)!r} and {theirs.get(key)!r}" for key in keys)


def name_of(kind: str, first: Path, second: Path) -> str:
    """What is made of two evaluations is called by both, so that another one has another place."""
    path = re.sub(r"[^\w.-]+", "-", str(second)).strip("-.")
    digest = hashlib.sha256(repr((kind, first.name, str(second))).encode()).hexdigest()[:8]
    return f"{kind}_{first.name}_{path}"[:LONGEST_NAME] + f"_{digest}"  # two paths may look alike
