"""What `eval.py` is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from multifaceted.evaluation.best_of import BestOf
from multifaceted.evaluation.identity import as_folder, name_of
from multifaceted.evaluation.inspect_log import require_inspect
from multifaceted.evaluation.judge import Judge
from multifaceted.evaluation.reward_accuracy import RewardAccuracy
from multifaceted.evaluation.task import (
    JudgedTask,
    ParticularTask,
    RecordedTask,
    RuledTask,
    Task,
    asks_likelihoods,
)
from multifaceted.inference.files import ResponseFile
from multifaceted.inference.policy import PolicyEngine
from multifaceted.inference.remote import RemoteEngine
from multifaceted.model.folder import is_hub_id
from multifaceted.tracking import Wandb


@dataclass(kw_only=True, slots=True)
class EvalConfig:
    """Everything `eval.py` needs.

    Attributes:
        policy: a folder that `train.py` exported, or a hub id; a reward model's where its accuracy is the task. Where a
            server or a file gives the responses it says whose they are; without it, what the engine names is evaluated.
        judge: who decides in a task that rules do not decide.
        best_of: choose each response among several by a reward model.
        logger: where figures and tables go beside the files.
        inspect_log: whether to write `inspect.eval` too, which inspect_ai's viewer opens.
        seed: chooses the prompts within their splits, and the streams of sampled responses.
        into: the results' folder; by default `eval/<task>_seed-<seed>` beside the policy's folder, with `best_of` in
            it where that is asked for; without a policy's folder in `outputs/eval/<model>`.
    """

    policy: str | None
    task: Task | RecordedTask | RewardAccuracy
    engine: PolicyEngine | RemoteEngine | ResponseFile
    judge: Judge | None = None
    best_of: BestOf | None = None
    logger: Wandb | None = None
    inspect_log: bool = False
    seed: int = 0
    into: Path | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        self._check_judge()
        if isinstance(self.engine, PolicyEngine) and self.engine.policy is not None:
            raise ValueError(f"engine.policy={self.engine.policy}: what is evaluated is named by policy=... alone")
        if isinstance(self.task, RewardAccuracy) and not (self.policy and isinstance(self.engine, PolicyEngine)):
            raise ValueError(
                f"task {self.task.name} reads a reward model in this process; name its folder, such as"
                " policy=outputs/reward_model/reward_model, and leave engine out"
            )
        if asks_likelihoods(self.task) and not isinstance(self.engine, PolicyEngine):
            in_text = "; or set task.by=text" if isinstance(self.task, RuledTask) else ""
            raise ValueError(
                f"task {self.task.name} compares log-likelihoods of a policy in this process, which servers and files"
                f" do not give; leave engine= out and name its folder with policy=...{in_text}"
            )
        if self.best_of is not None and (asks_likelihoods(self.task) or not isinstance(self.task, Task)):
            raise ValueError(f"best_of chooses responses, and task {self.task.name} asks for none; leave best_of out")
        if self.inspect_log:
            if self.best_of is not None or asks_likelihoods(self.task) or not isinstance(self.task, Task):
                raise ValueError(f"inspect_log shows responses, and task {self.task.name} has no one set of them")
            require_inspect()

    def _check_judge(self) -> None:
        if self.judge is None:
            if isinstance(self.task, JudgedTask):
                raise ValueError(f"task {self.task.name} needs a judge; name one with judge=..., such as judge=policy")
            return
        if not isinstance(self.task, JudgedTask):
            raise ValueError(f"task {self.task.name} asks no judge; leave judge out")
        if isinstance(self.judge.engine, PolicyEngine) and self.judge.engine.policy is None:
            raise ValueError("judge.engine.policy is missing; it names the folder or the hub id of the judge")
        if isinstance(self.task, ParticularTask):
            self.task.check_judge(self.judge)

    @property
    def folder(self) -> Path:
        """Where this evaluation's files are."""
        if self.into is not None:
            return self.into
        if isinstance(self.task, RecordedTask):
            return self.task.subject.parent / self.task.name
        name = f"{self.task.name}{'_best_of' if self.best_of else ''}_seed-{self.seed}"
        if self.policy is not None and not is_hub_id(self.policy):
            return Path(self.policy).parent / "eval" / name
        return Path("outputs") / "eval" / as_folder(name_of(self.policy, self.engine)) / name
