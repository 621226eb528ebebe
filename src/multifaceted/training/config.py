"""Everything `train.py` needs, as types that refuse impossible combinations before any model loads."""

from __future__ import annotations

import difflib
import inspect
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer

from multifaceted.data.batches import Batch
from multifaceted.data.dataset import Data
from multifaceted.model.build import ModelSource
from multifaceted.objective.base import Head, Objective
from multifaceted.records import POLICY, REWARD_MODEL
from multifaceted.training.optimizer import OptimizerConfig, Schedule
from multifaceted.training.tracking import Wandb

LOWER_IS_BETTER = {"loss", "nll", "odds_ratio_loss", "reward_rejected"}
OURS = {
    "accumulate_grad_batches": "batch.examples and batch.micro_examples",
    "callbacks": "callbacks",
    "check_val_every_n_epoch": "validation.times",
    "gradient_clip_val": "clip_norm",
    "logger": "logger",
    "max_epochs": "num_epochs",
    "max_steps": "max_steps",
    "val_check_interval": "validation.times",
    "use_distributed_sampler": "batch.examples",
}
"""Arguments of Lightning's Trainer that follow from our own keys."""


class Export(StrEnum):
    """Which weights become `policy/`."""

    BEST = "best"
    LAST = "last"


@dataclass(kw_only=True, slots=True)
class Validation:
    """How often to validate, and the metric that chooses the best checkpoint.

    Attributes:
        times: validations of a run, evenly spaced; fewer than `times` steps at its end go without.
        monitor: `val/<metric>` or `val/<metric>/<dimension or source>`.
    """

    times: int = 4
    monitor: str = "val/loss"

    def __post_init__(self) -> None:
        if self.times < 1:
            raise ValueError(f"times is {self.times}; a run validates at least once")

    @property
    def metric(self) -> str:
        """The metric's name, without split and group."""
        return self.monitor.removeprefix("val/").split("/")[0]

    @property
    def mode(self) -> str:
        """Whether the best value is the least or the greatest."""
        return "min" if self.metric in LOWER_IS_BETTER else "max"


@dataclass(kw_only=True, slots=True)
class Paths:
    """Where runs and caches live."""

    outputs: Path
    cache: Path


@dataclass(kw_only=True, slots=True)
class TrainConfig:
    """The config of a training run.

    Attributes:
        start: a run folder, model folder or hub name to start from, in place of `model`'s own weights.
        max_steps: end after so many optimizer steps.
        trainer: arguments of Lightning's Trainer, passed through.
    """

    data: Data
    model: ModelSource
    objective: Objective
    optimizer: OptimizerConfig
    batch: Batch
    paths: Paths
    schedule: Schedule = field(default_factory=Schedule)
    validation: Validation = field(default_factory=Validation)
    logger: Wandb = field(default_factory=Wandb)
    trainer: dict[str, Any] = field(default_factory=dict)
    callbacks: dict[str, Callback] = field(default_factory=dict)
    seed: int = 0
    num_epochs: int = 1
    max_steps: int | None = None
    clip_norm: float = 1.0
    export: Export = Export.BEST
    start: str | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.num_epochs < 1 or (self.max_steps is not None and self.max_steps < 1):
            raise ValueError("num_epochs and max_steps must be at least 1")
        known = ("loss", *self.objective.metrics)
        if not self.validation.monitor.startswith("val/") or self.validation.metric not in known:
            raise ValueError(
                f"validation.monitor={self.validation.monitor!r} is not measured; this objective has"
                f" {', '.join(f'val/{name}' for name in known)}"
            )
        self._check_trainer()
        scale = self.optimizer.scale
        if scale is not None and scale is not self.model.scale:
            raise ValueError(
                f"the optimizer's settings are for {scale.value} models, and this is a {self.model.scale.value} one;"
                " set optimizer=adamw and optimizer.lr to a rate of that scale (the paper's SFT used 5e-6)"
            )

    def _check_trainer(self) -> None:
        allowed = set(inspect.signature(Trainer).parameters) - set(OURS)
        for key, value in self.trainer.items():
            if key in OURS:
                raise ValueError(f"trainer.{key}={value!r} is set by {OURS[key]}; change that instead")
            if key not in allowed:
                close = difflib.get_close_matches(key, allowed, n=1)
                hint = f"; did you mean trainer.{close[0]}?" if close else ""
                raise ValueError(
                    f"unknown key trainer.{key} (value {value!r}): not an argument of Lightning's Trainer{hint}"
                )
        if self.trainer.get("devices", 1) != 1 or self.trainer.get("num_nodes", 1) != 1:
            raise ValueError("training runs on one device so far: trainer.devices and trainer.num_nodes must be 1")

    @property
    def has_reward_head(self) -> bool:
        """Whether a scalar head takes the place of the language-model head."""
        return self.objective.head is Head.REWARD

    @property
    def export_name(self) -> str:
        """The folder that the run leaves for others."""
        return REWARD_MODEL if self.has_reward_head else POLICY
