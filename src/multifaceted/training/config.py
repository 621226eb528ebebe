"""Everything `train.py` needs, as types that refuse impossible combinations before any model loads."""

from __future__ import annotations

import difflib
import inspect
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

from multifaceted.data.batch import Batch
from multifaceted.data.dataset import Data
from multifaceted.data.mix import Mix
from multifaceted.model.adapter import Adapter
from multifaceted.model.build import Dtype, ModelSource, PretrainedModel
from multifaceted.model.vocabulary import Projection
from multifaceted.objective.base import Head, Objective
from multifaceted.records import POLICY, REWARD_MODEL
from multifaceted.tracking import Wandb
from multifaceted.training.hardware import Plan
from multifaceted.training.optimizer import OptimizerConfig, Schedule
from multifaceted.training.ranks import Ranks
from multifaceted.training.saving import CheckpointConfig, Validation
from multifaceted.training.strategy import MIXED_TYPES, PRECISIONS, TRUE_TYPES, SingleDevice, Strategy

OURS = {
    "accumulate_grad_batches": "batch.examples and batch.max_tokens",
    "callbacks": "callbacks",
    "check_val_every_n_epoch": "validation.times",
    "gradient_clip_val": "clip_norm",
    "logger": "logger",
    "max_epochs": "num_epochs",
    "max_steps": "max_steps",
    "val_check_interval": "validation.times",
    "num_nodes": "the launcher, torchrun or srun",
    "plugins": "strategy",
    "strategy": "strategy",
    "use_distributed_sampler": "batch.examples or batch.tokens",
}
"""Arguments of Lightning's Trainer that follow from our own keys."""

AUTO = ("auto", -1, "-1")
"""Spellings of all devices of the node; under a launcher, those it has started processes for."""


class Export(StrEnum):
    """Which weights become `policy/`."""

    BEST = "best"
    LAST = "last"


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
        adapter: train an adapter on the weights instead of the weights; None trains all of them.
        max_steps: end after so many optimizer steps.
        activation_checkpointing: recompute each layer in the backward pass instead of keeping it.
        projection: what computes log-probabilities from hidden states.
        compile: compile each layer with torch.compile, which the first steps pay for.
        push_to_hub: repository of the hub, `<owner>/<name>`, that the exported model and its adapter go to.
        preview: show so many examples as the model sees them, and a report of the data, and train nothing.
        trainer: arguments of Lightning's Trainer, passed through.
    """

    data: Data
    model: ModelSource
    objective: Objective
    optimizer: OptimizerConfig
    batch: Batch
    paths: Paths
    mix: Mix = field(default_factory=Mix)
    adapter: Adapter | None = None
    schedule: Schedule = field(default_factory=Schedule)
    strategy: Strategy = field(default_factory=SingleDevice)
    validation: Validation = field(default_factory=Validation)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    logger: Wandb = field(default_factory=Wandb)
    trainer: dict[str, Any] = field(default_factory=dict)
    callbacks: dict[str, Callback] = field(default_factory=dict)
    plan: Plan = field(default_factory=Plan)
    seed: int = 0
    num_epochs: int = 1
    max_steps: int | None = None
    clip_norm: float = 1.0
    activation_checkpointing: bool = False
    projection: Projection = Projection.CHUNKED
    compile: bool = False
    export: Export = Export.BEST
    start: str | None = None
    overwrite: bool = False
    push_to_hub: str | None = None
    preview: int | None = None

    def __post_init__(self) -> None:
        if self.num_epochs < 1 or (self.max_steps is not None and self.max_steps < 1):
            raise ValueError("num_epochs and max_steps must be at least 1")
        known = ("loss", *self.objective.metrics)
        if not self.validation.monitor.startswith("val/") or self.validation.metric not in known:
            raise ValueError(
                f"validation.monitor={self.validation.monitor!r} is not measured; this objective has"
                f" {', '.join(f'val/{name}' for name in known)}"
            )
        if self.batch.max_tokens < self.data.max_length:
            raise ValueError(
                f"batch.max_tokens={self.batch.max_tokens} is less than data.max_length={self.data.max_length}: a row"
                " must hold a prompt with a response; raise the one or lower the other"
            )
        self._check_trainer()
        self._check_adapter()
        if getattr(self.strategy, "cpu_offload", False) and getattr(self.optimizer, "eight_bit", False):
            raise ValueError(
                "optimizer.eight_bit=true with strategy.cpu_offload=true: state in host memory takes none of the"
                " device's, and torchao's 8-bit tensors do not stay there; set one of them to false"
            )
        scale = self.optimizer.scale
        if scale is not None and scale is not self.model.scale:
            remedy = {
                "mini": "choose optimizer=muon without a rate, a recipe of that scale such as +experiment=orpo, or a"
                " pretrained model=",
                "pretrained": "set optimizer=adamw and optimizer.lr to a rate of that scale (the paper: 5e-6)",
            }[self.model.scale.value]
            raise ValueError(
                f"the optimizer's settings are for {scale.value} models, and this is a {self.model.scale.value} one;"
                f" {remedy}"
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
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"trainer.precision={self.trainer['precision']!r} is none of {', '.join(PRECISIONS)}; for fp16, whose"
                " range needs the loss scaled, set trainer.precision=bf16-mixed"
            )
        if self.num_devices > 1 and not self.strategy.shards:
            raise ValueError(
                f"trainer.devices={self.trainer['devices']!r} with strategy=single: one device holds the whole model;"
                " set strategy=fsdp"
            )
        if (self.plan.num_devices or 1) > 1 and not self.strategy.shards:
            raise ValueError(
                f"plan.num_devices={self.plan.num_devices} with strategy=single: one device holds the whole model; set"
                " strategy=fsdp"
            )

    def _check_adapter(self) -> None:
        if self.adapter is None:
            return
        if self.start is None and not isinstance(self.model, PretrainedModel):
            raise ValueError(
                "an adapter on random weights could be loaded by nobody, because no file holds them; set start to a"
                " run or a model folder (python train.py +experiment=sft makes outputs/sft), or adapter=none"
            )
        if self.adapter.four_bit and self.strategy.shards:
            raise ValueError(
                "adapter.four_bit=true with strategy=fsdp: bitsandbytes packs a matrix into bytes, in blocks that cross"
                " its rows and with constants beside it, and FSDP2 shards by rows; set adapter=lora, which needs"
                " 2 bytes a weight over all devices, or strategy=single"
            )

    def check_device(self) -> None:
        """Refuse to train without a GPU, a kernel or a package that the config asks for.

        Raises:
            ValueError: says what to set or to install.
        """
        if self.device_type == "cuda" and not torch.cuda.is_available():
            raise ValueError(
                f"trainer.accelerator={self.trainer['accelerator']!r}, and torch sees no NVIDIA GPU here;"
                " set trainer=cpu"
            )
        self.projection.check_device(self.device_type)
        self.optimizer.check(bf16_weights=self.trains_bf16_weights)

    def check_ranks(self, ranks: Ranks) -> None:
        """Refuse ranks that do not fit `trainer.devices` or the strategy.

        Raises:
            ValueError: names both numbers.
        """
        if self.trainer.get("devices") not in AUTO and self.num_devices not in (1, ranks.local_world_size):
            raise ValueError(
                f"trainer.devices={self.num_devices}, but the launcher started {ranks.local_world_size} processes on"
                " this node; leave trainer.devices out, or start as many"
            )
        self.batch.check_ranks(ranks.world_size)
        if ranks.world_size > 1 and not self.strategy.shards:
            raise ValueError(f"{ranks.world_size} processes with strategy=single: set strategy=fsdp")

    @property
    def device_type(self) -> str:
        """What `trainer.accelerator` means here: "cpu" or "cuda"."""
        accelerator = self.trainer.get("accelerator", "auto")
        if accelerator == "auto":
            return "cuda" if torch.cuda.is_available() else "cpu"
        return "cuda" if accelerator in ("gpu", "cuda") else str(accelerator)

    @property
    def num_devices(self) -> int:
        """Devices of one node; "auto" and -1 are all of its GPUs."""
        devices = self.trainer.get("devices", 1)
        if devices in AUTO:
            return torch.cuda.device_count() if self.device_type == "cuda" else 1
        if not str(devices).isdigit() or int(devices) < 1:
            raise ValueError(f"trainer.devices is {devices!r}; give a number of devices, or auto for all GPUs")
        return int(devices)

    @property
    def precision(self) -> str:
        """Lightning's name of the type that layers compute in."""
        return str(self.trainer.get("precision", "32-true"))

    @property
    def trains_bf16_weights(self) -> bool:
        """Whether weights that training changes are kept in bf16; an adapter is in fp32 beside a base in bf16."""
        if self.precision in TRUE_TYPES:
            return True
        is_bf16 = getattr(self.model, "dtype", Dtype.FLOAT32) is Dtype.BFLOAT16
        return is_bf16 and (self.adapter is None or self.has_reward_head)

    @property
    def computes_in_16_bits(self) -> bool:
        """Whether products have the type that peaks of devices are stated for."""
        return self.precision in (*MIXED_TYPES, *TRUE_TYPES)

    @property
    def has_reward_head(self) -> bool:
        """Whether a scalar head takes the place of the language-model head."""
        return self.objective.head is Head.REWARD

    @property
    def export_name(self) -> str:
        """The folder that the run leaves for others."""
        return REWARD_MODEL if self.has_reward_head else POLICY
