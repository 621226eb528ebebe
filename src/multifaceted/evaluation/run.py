"""An evaluation from a policy folder to `scores.json`: prompts, responses, verdicts, metrics, each written first."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from multifaceted.evaluation.judge import Judge
from multifaceted.evaluation.task import JudgedTask, RuledTask, Task
from multifaceted.evaluation.verdict_log import VerdictLog
from multifaceted.inference.files import ResponseFile
from multifaceted.inference.policy import PolicyEngine
from multifaceted.inference.requests import Engine, Reply, Request
from multifaceted.inference.server import WITHOUT_MEANING, ServerEngine
from multifaceted.model.export import folder_fingerprint
from multifaceted.model.folder import check_model_folder
from multifaceted.record_files import (
    RecordError,
    read_json,
    read_jsonl,
    read_prompts,
    read_responses,
    write_json,
    write_jsonl,
)
from multifaceted.records import PROMPTS, RESPONSES, RUN, SCORES, VERDICTS, VERSION, Prompt, Response, Scores

log = logging.getLogger(__name__)


@dataclass(kw_only=True, slots=True)
class EvalConfig:
    """Everything `eval.py` needs.

    Attributes:
        policy: a folder that `train.py` exported; where a server or a file gives the responses, the policy's own.
        judge: who decides in a task that rules do not decide.
        seed: chooses the prompts within their splits, and the streams of sampled responses.
        into: the results' folder; by default `eval/<task>_seed-<seed>` beside the policy.
    """

    policy: Path
    task: Task
    engine: PolicyEngine | ServerEngine | ResponseFile
    judge: Judge | None = None
    seed: int = 0
    into: Path | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.task, JudgedTask) and self.judge is None:
            raise ValueError(f"task {self.task.name} needs a judge; name one with judge=..., such as judge=policy")

    @property
    def folder(self) -> Path:
        """Where this evaluation's files are."""
        return self.into or self.policy.parent / "eval" / f"{self.task.name}_seed-{self.seed}"


def run(config: EvalConfig, plain: dict[str, object]) -> Scores:
    """Evaluate; responses that are already there, made by the same policy and settings, are read instead of made.

    Raises:
        ValueError: `policy` is not a policy folder.
        RecordError: the folder holds responses of another policy or other settings.
    """
    check_model_folder(config.policy)
    fingerprint = folder_fingerprint(config.policy)
    prompts = config.task.prompts(config.seed)
    identity = {
        "version": VERSION,
        "policy": fingerprint,
        "engine": _decisive(plain["engine"]),
        "task": plain["task"],
        "judge": _decisive(plain["judge"]),
        "seed": config.seed,
        "prompts": hashlib.sha256(json.dumps([asdict(p) for p in prompts]).encode()).hexdigest()[:16],
    }
    folder = config.folder
    responses = _written_responses(folder, identity, overwrite=config.overwrite)
    made = all(prompt.id in responses for prompt in prompts)
    if not made:
        for name in (RESPONSES, VERDICTS, SCORES):  # of another identity: gone before the new one is written
            (folder / name).unlink(missing_ok=True)
    write_json(folder / RUN, identity | {"policy_path": str(config.policy)})
    if made:
        log.info("responses are read from %s", folder / RESPONSES)
    else:
        write_jsonl(folder / PROMPTS, prompts)
        responses = _generated(config, prompts)
        write_jsonl(folder / RESPONSES, responses.values())
    if isinstance(config.task, RuledTask):
        write_jsonl(folder / VERDICTS, config.task.verdicts(prompts, responses))
    elif isinstance(config.task, JudgedTask) and config.judge is not None:
        questions = config.task.questions(prompts, responses)
        config.judge.answer(questions, VerdictLog(folder / VERDICTS), fingerprint, config.seed)
    return rescore(folder, config.task)


def rescore(folder: Path, task: Task) -> Scores:
    """Compute `scores.json` from the files beside it, and write it; no model is asked.

    Raises:
        RecordError: a file is missing or broken.
    """
    run_record = read_json(folder / RUN)
    scores = Scores(
        task=task.name,
        policy={"path": run_record["policy_path"], "fingerprint": run_record["policy"]},
        metrics=task.metrics(read_prompts(folder / PROMPTS), list(read_jsonl(folder / VERDICTS))),
    )
    write_json(folder / SCORES, scores)
    return scores


def _decisive(settings: Any) -> Any:
    """What of the settings of an engine, or of a judge with an engine, decides what it says."""
    if not isinstance(settings, dict):
        return settings
    return {name: _decisive(value) for name, value in settings.items() if name not in WITHOUT_MEANING}


def _generated(config: EvalConfig, prompts: Sequence[Prompt]) -> dict[str, Response]:
    """The responses in the order of their prompts, by id."""
    engine: Engine = config.engine.load(config.policy) if isinstance(config.engine, PolicyEngine) else config.engine
    replies: dict[str, list[Reply]] = {prompt.id: [] for prompt in prompts}
    asked = list(prompts)
    while asked:  # a turn at a time: what comes next depends on the answer before
        requests = [Request(id=p.id, messages=p.messages([reply.text for reply in replies[p.id]])) for p in asked]
        for reply in engine.answer(requests, config.seed):
            replies[reply.id].append(reply)
        asked = [prompt for prompt in asked if len(replies[prompt.id]) <= len(prompt.follow_ups)]
    return {name: _response(name, turns) for name, turns in replies.items()}


def _response(name: str, turns: Sequence[Reply]) -> Response:
    first, *later = (reply.text for reply in turns)
    return Response(id=name, text=first, finished=all(reply.finished for reply in turns), follow_ups=later)


def _written_responses(folder: Path, identity: dict[str, object], *, overwrite: bool) -> dict[str, Response]:
    if overwrite or not (folder / RESPONSES).exists():
        return {}
    before = read_json(folder / RUN)
    changed = [key for key in identity if before.get(key) != identity[key]]
    if changed:
        raise RecordError(
            f"{folder} holds responses made with another {', '.join(changed)};"
            " evaluate into another folder with into=..., or generate anew with overwrite=true"
        )
    return read_responses(folder / RESPONSES)
