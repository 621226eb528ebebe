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

from multifaceted.evaluation.best_of import BestOf, check_samples, choose, draw, write_chosen
from multifaceted.evaluation.config import EvalConfig
from multifaceted.evaluation.curve import curve_metrics, draw_curve
from multifaceted.evaluation.folder import Subject, opened
from multifaceted.evaluation.generation import generate, is_complete
from multifaceted.evaluation.identity import Evaluated, decisive, evaluated
from multifaceted.evaluation.likelihoods import likelihoods
from multifaceted.evaluation.reward_accuracy import RewardAccuracy, measure
from multifaceted.evaluation.source_records import measure_records
from multifaceted.evaluation.statistics import bootstrap_mean
from multifaceted.evaluation.task import (
    JudgedTask,
    LikelihoodTask,
    RecordedTask,
    ResponseScoringTask,
    RuledTask,
    ScoredTask,
    Task,
    asks_likelihoods,
)
from multifaceted.evaluation.verdict_log import VerdictLog
from multifaceted.inference.likelihood import Passage
from multifaceted.inference.policy import PolicyEngine
from multifaceted.inference.remote import RemoteEngine
from multifaceted.inference.requests import Engine
from multifaceted.record_files import (
    read_json,
    read_jsonl,
    read_prompts,
    read_responses,
    write_json,
    write_jsonl,
)
from multifaceted.records import (
    LIKELIHOODS,
    PROMPTS,
    RESPONSE_SCORES,
    RESPONSES,
    RUN,
    SCORES,
    VERDICTS,
    Estimate,
    Prompt,
    Response,
    Scores,
)

log = logging.getLogger(__name__)

Respond = Callable[[Mapping[str, Response], Callable[[Collection[Response]], None]], dict[str, Response]]
"""Answers what has no response yet, and writes all responses."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """A task and its prompts, and whom they are put to."""

    task: Task
    prompts: Sequence[Prompt]
    subject: Subject


def run(config: EvalConfig, plain: Mapping[str, Any]) -> Scores:
    """Evaluate. What is there already, made by the same model, settings and judge, is read instead of made.

    Args:
        plain: the config as plain data.

    Raises:
        ValueError: there is nothing to evaluate, or the policy or the judge cannot answer.
        RecordError: the folder holds responses or verdicts of others.
    """
    if isinstance(config.task, RecordedTask):
        return measure_records(config.task, config.folder)
    if isinstance(config.task, RewardAccuracy):
        assert config.policy is not None  # the config has refused it
        return measure(config.task, Path(config.policy), config.folder, config.seed, overwrite=config.overwrite)
    asked = _asked(config, config.task, plain)
    if asks_likelihoods(config.task):
        return _by_likelihood(config, config.task, asked)
    if config.best_of is not None:
        return _best_of(config, config.best_of, asked)
    return _evaluate(config, config.folder, asked, partial(_generated, config, asked))


def _generated(
    config: EvalConfig, asked: Asked, known: Mapping[str, Response], write: Callable[[Collection[Response]], None]
) -> dict[str, Response]:
    """What the model says; nothing else holds its engine, whose weights are thus gone before a judge loads its own."""
    return generate(_engine(config, asked.subject.who), asked.prompts, config.seed, known, write)


def _asked(config: EvalConfig, task: Task, plain: Mapping[str, Any]) -> Asked:
    who = evaluated(config.policy, config.engine)
    prompts = task.prompts(config.seed)
    content: list[Prompt | Passage] = [*prompts]
    settings = decisive(config.engine, plain["engine"])
    if asks_likelihoods(task):  # how text would be drawn decides nothing
        settings = {name: settings[name] for name in ("template", "system_in_user")}
        content += task.passages(prompts)
    identity = {
        "policy": who.fingerprint,
        "engine": settings,
        "seed": config.seed,
        "prompts": hashlib.sha256(json.dumps([asdict(each) for each in content]).encode()).hexdigest()[:16],
        "task": task.name,
        "reward_model": None,
        "best_of": None,  # as it stands in the folder of a response that was chosen, which is not what is drawn here
    }
    judge = _judge(config, plain)
    return Asked(task=task, prompts=prompts, subject=Subject(who=who, identity=identity, seed=config.seed, judge=judge))


def _judge(config: EvalConfig, plain: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What tells whoever decides from others; None where rules do."""
    if isinstance(config.task, ScoredTask):
        return config.task.scorers()
    if config.judge is None:
        return None
    return {"name": config.judge.name, **decisive(config.judge.engine, plain["judge"]["engine"])}


def _engine(config: EvalConfig, who: Evaluated) -> Engine:
    """What answers for the model that is evaluated."""
    if isinstance(config.engine, PolicyEngine):
        return replace(config.engine, policy=str(who.folder))
    if isinstance(config.engine, RemoteEngine) and who.folder is not None and config.engine.revision is None:
        # The name a server has for a policy stays when the policy is trained anew; its replies must not.
        return replace(config.engine, revision=who.fingerprint)
    return config.engine


def _evaluate(config: EvalConfig, folder: Path, asked: Asked, respond: Respond) -> Scores:
    """One folder: responses, what is said of them, and scores."""
    with opened(folder, asked.subject, overwrite=config.overwrite):
        write_jsonl(folder / PROMPTS, asked.prompts)
        responses = _responses(config, folder, asked.prompts, respond)
        _say(config, folder, asked, responses)
        return rescore(folder, asked.task)


def _responses(config: EvalConfig, folder: Path, prompts: Sequence[Prompt], respond: Respond) -> dict[str, Response]:
    """What the folder has, and what it lacks."""
    responses = read_responses(folder / RESPONSES) if (folder / RESPONSES).exists() else {}
    if is_complete(prompts, responses):
        log.info("responses are read from %s", folder / RESPONSES)
        return responses
    if config.judge is not None and isinstance(config.judge.engine, RemoteEngine):
        config.judge.engine.check()  # not only after hours of generation
    return respond(responses, partial(write_jsonl, folder / RESPONSES))


def _say(config: EvalConfig, folder: Path, asked: Asked, responses: Mapping[str, Response]) -> None:
    """Have `verdicts.jsonl` hold what rules or a judge say of every response."""
    task, prompts = asked.task, asked.prompts
    if isinstance(task, ScoredTask) and (folder / VERDICTS).exists():
        log.info("verdicts are read from %s", folder / VERDICTS)
    elif isinstance(task, RuledTask):
        write_jsonl(folder / VERDICTS, task.verdicts(prompts, responses))
    elif isinstance(task, JudgedTask) and config.judge is not None:
        questions = task.questions(prompts, responses)
        config.judge.answer(questions, VerdictLog(folder / VERDICTS), asked.subject.who.fingerprint, config.seed)


def _best_of(config: EvalConfig, best_of: BestOf, asked: Asked) -> Scores:
    """A folder for each N below that of the whole, whose scores are those of every N."""
    folder, who, prompts = config.folder, asked.subject.who, asked.prompts
    check_samples(prompts, config.engine)
    identity = {**asked.subject.identity, "reward_model": best_of.fingerprint()}
    paths = {"reward_model_path": str(best_of.reward_model)}
    subject = replace(asked.subject, identity=identity, paths=paths)
    with opened(folder, subject, overwrite=config.overwrite):
        samples = draw(_engine(config, who), prompts, max(best_of.sizes), config.seed, folder)
        best = choose(best_of, samples, prompts, folder)
        metrics = {}
        for size, chosen in best.items():
            part = replace(asked, subject=replace(subject, identity=identity | {"best_of": size}))
            found = _evaluate(config, folder / f"best_of_{size}", part, partial(write_chosen, chosen))
            metrics[size] = found.metrics
        policy = {"path": who.path, "fingerprint": who.fingerprint}
        curve = curve_metrics(prompts, metrics, best)
        scores = Scores(task=f"{asked.task.name}_best_of", policy=policy, metrics=curve)
        write_json(folder / SCORES, scores)
        draw_curve(scores.metrics, folder)
    return scores


def _by_likelihood(config: EvalConfig, task: LikelihoodTask, asked: Asked) -> Scores:
    """Likelihoods in place of responses."""
    assert asked.subject.who.folder is not None and isinstance(config.engine, PolicyEngine)  # others have been refused
    folder, prompts = config.folder, asked.prompts
    with opened(folder, asked.subject, overwrite=config.overwrite):
        write_jsonl(folder / PROMPTS, prompts)
        passages = task.passages(prompts)
        found = likelihoods(passages, asked.subject.who.folder, config.engine, folder / LIKELIHOODS)
        write_jsonl(folder / VERDICTS, task.verdicts_of_likelihoods(prompts, found))
        return rescore(folder, task)


def rescore(folder: Path, task: Task) -> Scores:
    """Compute `scores.json` from the files beside it, and write it; no model is asked.

    Raises:
        RecordError: a file is missing or broken.
    """
    run_record, prompts = read_json(folder / RUN), read_prompts(folder / PROMPTS)
    verdicts = list(read_jsonl(folder / VERDICTS))
    metrics = task.metrics(prompts, verdicts)
    if isinstance(task, ResponseScoringTask):
        write_jsonl(folder / RESPONSE_SCORES, task.response_scores(prompts, verdicts))
    cut = {} if asks_likelihoods(task) else _cut(prompts, read_responses(folder / RESPONSES))
    scores = Scores(
        task=task.name,
        policy={"path": run_record["policy_path"], "fingerprint": run_record["policy"]},
        metrics=metrics | cut,
    )
    write_json(folder / SCORES, scores)
    return scores


def _cut(prompts: Sequence[Prompt], responses: Mapping[str, Response]) -> dict[str, Estimate]:
    """`<split>/cut`: the share of responses that ended at the token limit, which a judge cannot know."""
    splits: dict[str, list[float]] = {}
    for prompt in prompts:
        splits.setdefault(prompt.split, []).append(float(not responses[prompt.id].finished))
    return {f"{split}/cut": bootstrap_mean(cut) for split, cut in splits.items()}
