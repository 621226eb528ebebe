"""An evaluation from prompts to `scores.json`: prompts, responses, verdicts, metrics, each written first."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from multifaceted.evaluation.best_of import BestOf, check_samples, choose, continue_samples, write_chosen
from multifaceted.evaluation.curve import curve_metrics, draw_curve
from multifaceted.evaluation.generation import generate, is_complete
from multifaceted.evaluation.identity import Evaluated, decisive, evaluated, refuse_others
from multifaceted.evaluation.judge import Judge
from multifaceted.evaluation.reward_accuracy import RewardAccuracy, measure
from multifaceted.evaluation.statistics import bootstrap_mean
from multifaceted.evaluation.task import JudgedTask, RecordedTask, RuledTask, Task
from multifaceted.evaluation.verdict_log import VerdictLog
from multifaceted.inference.files import ResponseFile
from multifaceted.inference.policy import PolicyEngine
from multifaceted.inference.requests import Engine
from multifaceted.inference.server import ServerEngine
from multifaceted.record_files import (
    RecordError,
    read_json,
    read_jsonl,
    read_prompts,
    read_responses,
    write_json,
    write_jsonl,
)
from multifaceted.records import PROMPTS, RESPONSES, RUN, SCORES, VERDICTS, VERSION, Estimate, Prompt, Response, Scores

log = logging.getLogger(__name__)

Known = Mapping[str, Response]
Write = Callable[[Collection[Response]], None]
Respond = Callable[[Known, Write], dict[str, Response]]
"""Answers what has no response yet, and writes all responses."""


@dataclass(kw_only=True, slots=True)
class EvalConfig:
    """Everything `eval.py` needs.

    Attributes:
        policy: a folder that `train.py` exported; a reward model's where its accuracy is the task. Where a server or a
            file gives the responses it says whose they are; without it, what the engine names is evaluated.
        judge: who decides in a task that rules do not decide.
        seed: chooses the prompts within their splits, and the streams of sampled responses.
        best_of: choose each response among several by a reward model.
        into: the results' folder; by default `eval/<task>_seed-<seed>` beside the policy, with `best_of` before
            the seed where that is asked for; without a policy in `outputs/eval/<model>`.
    """

    policy: Path | None
    task: Task | RecordedTask | RewardAccuracy
    engine: PolicyEngine | ServerEngine | ResponseFile
    judge: Judge | None = None
    best_of: BestOf | None = None
    seed: int = 0
    into: Path | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.task, JudgedTask) and self.judge is None:
            raise ValueError(f"task {self.task.name} needs a judge; name one with judge=..., such as judge=policy")
        if self.best_of is not None and not isinstance(self.task, Task):
            raise ValueError(f"best_of chooses responses, and task {self.task.name} asks for none; leave best_of out")

    @property
    def folder(self) -> Path:
        """Where this evaluation's files are."""
        if self.into is not None:
            return self.into
        if isinstance(self.task, RecordedTask):
            return self.task.subject.parent / self.task.name
        name = f"{self.task.name}{'_best_of' if self.best_of else ''}_seed-{self.seed}"
        if self.policy is not None:
            return self.policy.parent / "eval" / name
        return Path("outputs") / "eval" / evaluated(None, self.engine).folder_name / name


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """What is evaluated.

    Attributes:
        identity: what tells its responses from others.
        judge: likewise of who judges them.
    """

    who: Evaluated
    prompts: Sequence[Prompt]
    task: Task
    identity: dict[str, Any]
    judge: Mapping[str, Any] | None


def run(config: EvalConfig, plain: Mapping[str, Any]) -> Scores:
    """Evaluate. What is there already, made by the same model, settings and judge, is read instead of made.

    Raises:
        ValueError: there is nothing to evaluate, or `policy` is not a policy folder.
        RecordError: the folder holds responses or verdicts of others.
    """
    if isinstance(config.task, RecordedTask):
        return _of_records(config.task, config.folder)
    if isinstance(config.task, RewardAccuracy):
        if config.policy is None or not isinstance(config.engine, PolicyEngine):
            raise ValueError(
                f"task {config.task.name} reads a reward model in this process; name its folder, such as"
                " policy=outputs/reward_model/reward_model, and leave engine out"
            )
        return measure(config.task, config.policy, config.folder, config.seed, overwrite=config.overwrite)
    who = evaluated(config.policy, config.engine)
    prompts = config.task.prompts(config.seed)
    identity = {
        "policy": who.fingerprint,
        "engine": decisive(config.engine, plain["engine"]),
        "seed": config.seed,
        "prompts": hashlib.sha256(json.dumps([asdict(p) for p in prompts]).encode()).hexdigest()[:16],
    }
    judge = None
    if config.judge is not None:
        judge = {"name": config.judge.name, **decisive(config.judge.engine, plain["judge"]["engine"])}
    subject = Subject(who=who, prompts=prompts, task=config.task, identity=identity, judge=judge)
    if config.best_of is not None:
        return _best_of(config, config.best_of, subject)

    def respond(known: Known, write: Write) -> dict[str, Response]:
        return generate(_engine(config, who), prompts, config.seed, known, write)

    return _evaluate(config, config.folder, subject, respond)


def _evaluate(config: EvalConfig, folder: Path, subject: Subject, respond: Respond) -> Scores:
    """One folder: responses, what is said of them, and scores."""
    task, prompts, judge, who = subject.task, subject.prompts, subject.judge, subject.who
    responses = _written(folder, subject.identity, judge, overwrite=config.overwrite)
    if not responses:
        for name in (RESPONSES, VERDICTS, SCORES):  # of another identity: gone before the new one is written
            (folder / name).unlink(missing_ok=True)
    write_json(folder / RUN, {"version": VERSION, "policy_path": who.path, "judge": judge, **subject.identity})
    write_jsonl(folder / PROMPTS, prompts)
    if is_complete(prompts, responses):
        log.info("responses are read from %s", folder / RESPONSES)
    else:
        responses = respond(responses, partial(write_jsonl, folder / RESPONSES))
    if isinstance(task, RuledTask):
        write_jsonl(folder / VERDICTS, task.verdicts(prompts, responses))
    elif isinstance(task, JudgedTask) and config.judge is not None:
        questions = task.questions(prompts, responses)
        config.judge.answer(questions, VerdictLog(folder / VERDICTS), who.fingerprint, config.seed)
    return rescore(folder, task)


def _best_of(config: EvalConfig, best_of: BestOf, subject: Subject) -> Scores:
    """A folder for each N below that of the whole, whose scores are those of every N."""
    folder, who, prompts = config.folder, subject.who, subject.prompts
    check_samples(prompts, config.engine)
    identity = subject.identity | {"reward_model": best_of.fingerprint()}
    continue_samples(folder, identity, overwrite=config.overwrite)
    paths = {"policy_path": who.path, "reward_model_path": str(best_of.reward_model)}
    write_json(folder / RUN, {"version": VERSION, **paths, **identity})
    best = choose(best_of, partial(_engine, config, who), prompts, config.seed, folder)
    metrics = {}
    for size, chosen in best.items():
        part = replace(subject, identity=identity | {"best_of": size})
        found = _evaluate(config, folder / f"best_of_{size}", part, partial(write_chosen, chosen))
        metrics[size] = found.metrics
    policy = {"path": who.path, "fingerprint": who.fingerprint}
    scores = Scores(task=f"{subject.task.name}_best_of", policy=policy, metrics=curve_metrics(prompts, metrics, best))
    write_json(folder / SCORES, scores)
    draw_curve(scores.metrics, folder)
    return scores


def _of_records(task: RecordedTask, folder: Path) -> Scores:
    subject = read_json(task.subject / RUN)
    policy = {"path": subject["policy_path"], "fingerprint": subject["policy"]}
    scores = Scores(task=task.name, policy=policy, metrics=task.metrics_of_records())
    write_json(folder / SCORES, scores)
    return scores


def rescore(folder: Path, task: Task) -> Scores:
    """Compute `scores.json` from the files beside it, and write it; no model is asked.

    Raises:
        RecordError: a file is missing or broken.
    """
    run_record, prompts = read_json(folder / RUN), read_prompts(folder / PROMPTS)
    metrics = task.metrics(prompts, list(read_jsonl(folder / VERDICTS)))
    scores = Scores(
        task=task.name,
        policy={"path": run_record["policy_path"], "fingerprint": run_record["policy"]},
        metrics=metrics | _cut(prompts, read_responses(folder / RESPONSES)),
    )
    write_json(folder / SCORES, scores)
    return scores


def _cut(prompts: Sequence[Prompt], responses: Mapping[str, Response]) -> dict[str, Estimate]:
    """`<split>/cut`: the share of responses that ended at the token limit, which a judge cannot know."""
    splits: dict[str, list[float]] = {}
    for prompt in prompts:
        splits.setdefault(prompt.split, []).append(float(not responses[prompt.id].finished))
    return {f"{split}/cut": bootstrap_mean(cut) for split, cut in splits.items()}


def _engine(config: EvalConfig, who: Evaluated) -> Engine:
    """What answers for the model that is evaluated."""
    if isinstance(config.engine, PolicyEngine):
        assert config.policy is not None  # `evaluated` has refused it
        return config.engine.load(config.policy)
    if isinstance(config.engine, ServerEngine) and config.policy is not None and config.engine.revision is None:
        # The name a server has for a policy stays when the policy is trained anew; its replies must not.
        return replace(config.engine, revision=who.fingerprint)
    return config.engine


def _written(folder: Path, identity: Mapping[str, object], judge: object, *, overwrite: bool) -> dict[str, Response]:
    """The responses of the folder, if it may be continued."""
    if overwrite or not (folder / RESPONSES).exists():
        return {}
    before = refuse_others(folder, identity, "responses")
    if before.get("judge") != judge and (folder / VERDICTS).exists():
        raise RecordError(
            f"{folder} holds verdicts of another judge. Judge the same responses in another folder: into=..."
            f" engine=file engine.path={folder / RESPONSES}; or remove {folder / VERDICTS}"
        )
    return read_responses(folder / RESPONSES)
