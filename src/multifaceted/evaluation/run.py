"""An evaluation from prompts to `scores.json`: prompts, responses, verdicts, metrics, each written first."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from multifaceted.evaluation.generation import generate, is_complete
from multifaceted.evaluation.identity import Evaluated, as_folder, decisive, evaluated, name_of
from multifaceted.evaluation.inspect_log import require_inspect
from multifaceted.evaluation.judge import Judge
from multifaceted.evaluation.likelihoods import likelihoods
from multifaceted.evaluation.statistics import bootstrap_mean
from multifaceted.evaluation.task import (
    JudgedTask,
    LikelihoodTask,
    ParticularTask,
    RecordedTask,
    RuledTask,
    ScoredTask,
    Task,
    asks_likelihoods,
)
from multifaceted.evaluation.verdict_log import VerdictLog
from multifaceted.inference.files import ResponseFile
from multifaceted.inference.likelihood import Passage
from multifaceted.inference.policy import PolicyEngine
from multifaceted.inference.remote import RemoteEngine
from multifaceted.inference.requests import Engine
from multifaceted.model.folder import is_hub_id
from multifaceted.record_files import (
    RecordError,
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
    RESPONSES,
    RUN,
    SCORES,
    VERDICTS,
    VERSION,
    Estimate,
    Prompt,
    Response,
    Scores,
)
from multifaceted.tracking import Wandb, run_facts

log = logging.getLogger(__name__)

MADE = (RESPONSES, LIKELIHOODS, VERDICTS, SCORES)
"""What an evaluation makes, in this order; nothing of it outlives another identity."""


@dataclass(kw_only=True, slots=True)
class EvalConfig:
    """Everything `eval.py` needs.

    Attributes:
        policy: a folder that `train.py` exported, or a hub id. Where a server or a file gives the responses it says
            whose they are; without it, what the engine names is evaluated.
        judge: who decides in a task that rules do not decide.
        logger: where figures and tables go beside the files.
        inspect_log: whether to write `inspect.eval` too, which inspect_ai's viewer opens.
        seed: chooses the prompts within their splits, and the streams of sampled responses.
        into: the results' folder; by default `eval/<task>_seed-<seed>` beside the policy's folder, or without one
            in `outputs/eval/<model>`.
    """

    policy: str | None
    task: Task | RecordedTask
    engine: PolicyEngine | RemoteEngine | ResponseFile
    judge: Judge | None = None
    logger: Wandb | None = None
    inspect_log: bool = False
    seed: int = 0
    into: Path | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.task, JudgedTask) and self.judge is None:
            raise ValueError(f"task {self.task.name} needs a judge; name one with judge=..., such as judge=policy")
        if isinstance(self.engine, PolicyEngine) and self.engine.policy is not None:
            raise ValueError(f"engine.policy={self.engine.policy}: what is evaluated is named by policy=... alone")
        if self.judge is not None and isinstance(self.judge.engine, PolicyEngine) and self.judge.engine.policy is None:
            raise ValueError("judge.engine.policy is missing; it names the folder or the hub id of the judge")
        if self.inspect_log:
            require_inspect()
        if isinstance(self.task, ParticularTask) and self.judge is not None:
            self.task.check_judge(self.judge)
        if asks_likelihoods(self.task) and not isinstance(self.engine, PolicyEngine):
            in_text = "; or set task.by=text" if isinstance(self.task, RuledTask) else ""
            raise ValueError(
                f"task {self.task.name} compares log-likelihoods of a policy in this process, which servers and files"
                f" do not give; leave engine= out and name its folder with policy=...{in_text}"
            )

    @property
    def folder(self) -> Path:
        """Where this evaluation's files are."""
        if self.into is not None:
            return self.into
        if isinstance(self.task, RecordedTask):
            return self.task.subject.parent / self.task.name
        name = f"{self.task.name}_seed-{self.seed}"
        if self.policy is not None and not is_hub_id(self.policy):
            return Path(self.policy).parent / "eval" / name
        return Path("outputs") / "eval" / as_folder(name_of(self.policy, self.engine)) / name


def run(config: EvalConfig, plain: Mapping[str, Any]) -> Scores:
    """Evaluate. What is there already, made by the same model, settings and judge, is read instead of made.

    Raises:
        ValueError: there is nothing to evaluate, or the policy or the judge cannot answer.
        RecordError: the folder holds responses or verdicts of others.
    """
    if isinstance(config.task, RecordedTask):
        return _of_records(config.task, config.folder)
    who = evaluated(config.policy, config.engine)
    prompts = config.task.prompts(config.seed)
    if asks_likelihoods(config.task):
        return _by_likelihood(config, config.task, who, prompts)
    identity = {
        "policy": who.fingerprint,
        "engine": decisive(config.engine, plain["engine"]),
        "seed": config.seed,
        "prompts": _fingerprint(prompts),
    }
    judge = _judge(config, plain)
    folder = config.folder
    responses = _written(folder, identity, judge, overwrite=config.overwrite)
    if not responses:
        for name in MADE:  # of another identity: gone before the new one is written
            (folder / name).unlink(missing_ok=True)
    facts = read_json(folder / RUN).get("facts") if responses else None
    record = {"policy_path": who.path, "judge": judge, **identity, "facts": facts or run_facts(config.seed)}
    write_json(folder / RUN, {"version": VERSION, **record})
    write_jsonl(folder / PROMPTS, prompts)
    if is_complete(prompts, responses):
        log.info("responses are read from %s", folder / RESPONSES)
    else:
        write = partial(write_jsonl, folder / RESPONSES)
        responses = generate(_engine(config, who), prompts, config.seed, responses, write)
    if isinstance(config.task, ScoredTask) and (folder / VERDICTS).exists():
        log.info("verdicts are read from %s", folder / VERDICTS)
    elif isinstance(config.task, RuledTask):
        write_jsonl(folder / VERDICTS, config.task.verdicts(prompts, responses))
    elif isinstance(config.task, JudgedTask) and config.judge is not None:
        questions = config.task.questions(prompts, responses)
        with VerdictLog(folder / VERDICTS) as verdicts:
            config.judge.answer(questions, verdicts, who.fingerprint, config.seed)
    return rescore(folder, config.task)


def _by_likelihood(config: EvalConfig, task: LikelihoodTask, who: Evaluated, prompts: Sequence[Prompt]) -> Scores:
    """Likelihoods in place of responses; how text would be drawn decides nothing."""
    assert who.folder is not None and isinstance(config.engine, PolicyEngine)  # others have been refused
    folder, passages = config.folder, task.passages(prompts)
    place = {"template": config.engine.template, "system_in_user": config.engine.system_in_user}
    asked = _fingerprint([*prompts, *passages])
    identity = {"policy": who.fingerprint, "engine": place, "seed": config.seed, "prompts": asked}
    _written(folder, identity, None, overwrite=config.overwrite)
    if config.overwrite:
        for name in MADE:
            (folder / name).unlink(missing_ok=True)
    write_json(folder / RUN, {"version": VERSION, "policy_path": who.path, "judge": None, **identity})
    write_jsonl(folder / PROMPTS, prompts)
    found = likelihoods(passages, who.folder, config.engine, folder / LIKELIHOODS)
    write_jsonl(folder / VERDICTS, task.verdicts_of_likelihoods(prompts, found))
    return rescore(folder, task)


def _fingerprint(asked: Sequence[Prompt | Passage]) -> str:
    return hashlib.sha256(json.dumps([asdict(each) for each in asked]).encode()).hexdigest()[:16]


def _judge(config: EvalConfig, plain: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What tells whoever decides from others; None where rules do."""
    if isinstance(config.task, ScoredTask):
        return config.task.scorers()
    if config.judge is None:
        return None
    return {"name": config.judge.name, **decisive(config.judge.engine, plain["judge"]["engine"])}


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


def _engine(config: EvalConfig, who: Evaluated) -> Engine:
    """What answers for the model that is evaluated; a policy in this process leaves the memory to the judge after."""
    if isinstance(config.engine, PolicyEngine):
        return replace(config.engine, policy=str(who.folder))
    if isinstance(config.engine, RemoteEngine) and who.folder is not None and config.engine.revision is None:
        # The name a server has for a policy stays when the policy is trained anew; its replies must not.
        return replace(config.engine, revision=who.fingerprint)
    return config.engine


def _written(folder: Path, identity: Mapping[str, object], judge: object, *, overwrite: bool) -> dict[str, Response]:
    """The responses of the folder, if it may be continued."""
    paths = (folder / RESPONSES, folder / LIKELIHOODS)
    held = next((path for path in paths if path.exists() and path.stat().st_size), None)  # else nothing was made yet
    if overwrite or held is None:
        return {}
    before = read_json(folder / RUN)
    changed = [key for key in identity if before.get(key) != identity[key]]
    if changed:
        raise RecordError(
            f"{folder} holds {held.stem} made with another {', '.join(changed)};"
            " evaluate into another folder with into=..., or generate anew with overwrite=true"
        )
    if before.get("judge") != judge and (folder / VERDICTS).exists():
        raise RecordError(
            f"{folder} holds verdicts of another judge. Judge the same responses in another folder: into=..."
            f" engine=file engine.path={folder / RESPONSES}; or remove {folder / VERDICTS}"
        )
    return read_responses(held) if held.name == RESPONSES else {}
