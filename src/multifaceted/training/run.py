"""A training run from its config to `policy/`: one line per object, in the order in which data flows."""

from __future__ import annotations

import hashlib
import logging
import signal
import time
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, Sampler
from transformers import PreTrainedModel

from multifaceted.data.batches import Batch, EvaluationBatches, TrainingBatches
from multifaceted.data.dataset import Data, counts
from multifaceted.data.source import texts_of
from multifaceted.model.build import Dtype, ModelSource, PretrainedModel, resolve_start
from multifaceted.model.export import export_model
from multifaceted.objective.base import Head, Objective
from multifaceted.records import (
    CHECKPOINTS,
    METRICS,
    POLICY,
    REWARD_MODEL,
    RUN,
    SUMMARY,
    read_json,
    read_jsonl,
    write_json,
)
from multifaceted.training.callbacks import JsonlLogger, Progress, StopOnSignal
from multifaceted.training.folder import State, open_run_folder, require_space
from multifaceted.training.module import PreferenceModule
from multifaceted.training.optimizer import OptimizerConfig, Schedule
from multifaceted.training.reference import reference_logps
from multifaceted.training.tracking import Wandb, run_facts

log = logging.getLogger(__name__)


class Export(StrEnum):
    """Which weights become `policy/`."""

    BEST = "best"
    LAST = "last"


@dataclass(kw_only=True, slots=True)
class Validation:
    """How often to validate, and the metric that chooses the best checkpoint."""

    times: int = 4
    monitor: str = "val/loss"
    mode: str = "min"

    def __post_init__(self) -> None:
        if self.times < 1:
            raise ValueError(f"times is {self.times}; a run validates at least once")
        if self.mode not in ("min", "max"):
            raise ValueError(f"mode is {self.mode!r}; choose min or max")


@dataclass(kw_only=True, slots=True)
class Paths:
    """Where runs and caches live."""

    outputs: Path
    cache: Path


@dataclass(kw_only=True, slots=True)
class TrainConfig:
    """Everything `train.py` needs.

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


@dataclass(kw_only=True, slots=True)
class Outcome:
    """How a run ended. `summary` is empty when it was interrupted."""

    folder: Path
    exported: Path
    summary: dict[str, Any] = field(default_factory=dict)
    interrupted_by: signal.Signals | None = None
    was_finished: bool = False


class _From(Sampler[int]):
    """Positions from `start` on, of a sequence whose full length Lightning must know."""

    def __init__(self, start: int, length: int) -> None:
        self.start, self.length = start, length

    def __iter__(self) -> Any:
        return iter(range(self.start, self.length))

    def __len__(self) -> int:
        return self.length


def stream_seed(seed: int, name: str) -> int:
    """An independent seed for a named use of randomness."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:6], "big")


def run(config: TrainConfig, plain: dict[str, Any], folder: Path) -> Outcome:
    """Train, or continue, the run of `folder`; a finished one is returned as it is.

    Args:
        plain: `config` as plain data, for `config.yaml`.

    Raises:
        RunFolderError, DataError, ValueError: bad input, before any training.
        NonFiniteLossError: the loss diverged; checkpoints are kept.
    """
    outcome = Outcome(folder=folder, exported=folder / (REWARD_MODEL if _has_reward_head(config) else POLICY))
    source = _model_source(config)
    state = open_run_folder(folder, plain, overwrite=config.overwrite)
    if state is State.FINISHED:
        outcome.summary, outcome.was_finished = read_json(folder / SUMMARY), True
        return outcome
    facts = run_facts(config.seed)
    if not (folder / RUN).exists():
        write_json(
            folder / RUN, facts | {"wandb_id": hashlib.sha256(f"{folder}{time.time()}".encode()).hexdigest()[:8]}
        )
    started = time.monotonic()

    needs_rejected = config.objective.needs_rejected
    train, validation = config.data.examples(config.seed, needs_rejected=needs_rejected)
    tokenizer = source.load_tokenizer(texts_of(train))
    encoded = config.data.encode(train, tokenizer, with_rejected=needs_rejected)
    held_out = config.data.encode(validation, tokenizer, with_rejected=True)
    torch.manual_seed(stream_seed(config.seed, "weights"))
    model = source.load_model(tokenizer, reward=_has_reward_head(config), max_length=config.data.max_length)
    require_space(folder, _bytes_written(model))
    reference = None
    if config.objective.needs_reference:
        trees = [*encoded.trees, *held_out.trees]
        reference = reference_logps(model, trees, config.batch.micro_examples, config.paths.cache)
    batches = TrainingBatches(
        trees=encoded.trees,
        batch=config.batch,
        num_epochs=config.num_epochs,
        max_steps=config.max_steps,
        seed=stream_seed(config.seed, "order"),
        reference=reference,
    )
    pairs = EvaluationBatches(trees=held_out.trees, micro_examples=config.batch.micro_examples, reference=reference)
    module = PreferenceModule(model, config.objective, config.optimizer, config.schedule, batches.num_steps)
    log.info(
        "%s examples, %s steps, %.1f M parameters", len(encoded.trees), batches.num_steps, model.num_parameters() / 1e6
    )
    torch.manual_seed(stream_seed(config.seed, "dropout"))

    fitted = _fit(config, plain, folder, module, batches, pairs)
    if fitted.stopped_by is not None:
        outcome.interrupted_by = fitted.stopped_by
        return outcome
    metrics = _load_exported_weights(config, folder, module, fitted)
    export_model(model, tokenizer, outcome.exported, _card(folder, config))
    outcome.summary = {
        **metrics,
        **counts(encoded),
        "examples": len(encoded.trees),
        "steps": batches.num_steps,
        "examples_per_second": fitted.examples_per_second,
        "wall_seconds": time.monotonic() - started,
    }
    write_json(folder / SUMMARY, outcome.summary)
    return outcome


@dataclass(kw_only=True, slots=True)
class _Fitted:
    best: ModelCheckpoint
    examples_per_second: float
    stopped_by: signal.Signals | None


def _fit(
    config: TrainConfig,
    plain: dict[str, Any],
    folder: Path,
    module: PreferenceModule,
    batches: TrainingBatches,
    pairs: EvaluationBatches,
) -> _Fitted:
    last = folder / CHECKPOINTS / "last.ckpt"
    step = _saved_step(last)
    every = max(1, batches.num_steps // config.validation.times)
    progress, stop = Progress(batches.num_steps), StopOnSignal(last)
    best = ModelCheckpoint(
        dirpath=folder / CHECKPOINTS,
        filename="best",
        monitor=config.validation.monitor,
        mode=config.validation.mode,
        enable_version_counter=False,
    )
    newest = ModelCheckpoint(
        dirpath=folder / CHECKPOINTS, filename="last", every_n_train_steps=every, enable_version_counter=False
    )
    tracker = config.logger.build(folder, folder.name, read_json(folder / RUN)["wandb_id"], plain)
    trainer = Trainer(
        **{
            "max_epochs": 1,
            "accumulate_grad_batches": batches.micro_per_step,
            "gradient_clip_val": config.clip_norm,
            "val_check_interval": every * batches.micro_per_step,
            "check_val_every_n_epoch": None,
            "num_sanity_val_steps": 0,
            "log_every_n_steps": 1,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "use_distributed_sampler": False,
            "logger": [JsonlLogger(folder, step), *([tracker] if tracker else [])],
            # The signal comes last: what it saves must hold the state of the others.
            "callbacks": [progress, best, newest, *config.callbacks.values(), stop],
            **config.trainer,
        }
    )
    if step:
        log.info("resuming at step %s of %s", step, batches.num_steps)
    trainer.fit(
        module,
        DataLoader(batches, batch_size=None, sampler=_From(step * batches.micro_per_step, len(batches))),
        DataLoader(pairs, batch_size=None),
        ckpt_path=str(last) if step else None,
        weights_only=True,
    )
    if tracker is not None:
        tracker.finalize("success")
    return _Fitted(best=best, examples_per_second=progress.examples_per_second, stopped_by=stop.received)


def _model_source(config: TrainConfig) -> ModelSource:
    """The model to start from: `start` wins over `model`."""
    if config.start is None:
        return config.model
    dtype = cast(Dtype, getattr(config.model, "dtype", Dtype.FLOAT32))
    return PretrainedModel(name=resolve_start(config.start), dtype=dtype)


def _has_reward_head(config: TrainConfig) -> bool:
    return config.objective.head is Head.REWARD


def _saved_step(checkpoint: Path) -> int:
    if not checkpoint.exists():
        return 0
    return int(torch.load(checkpoint, map_location="cpu", weights_only=True)["global_step"])


def _bytes_written(model: PreTrainedModel) -> int:
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    return 2 * 3 * weights + weights


def _load_exported_weights(
    config: TrainConfig, folder: Path, module: PreferenceModule, fitted: _Fitted
) -> dict[str, float]:
    """Put the weights to export into the model; returns the validation metrics of the best step."""
    if config.export is Export.BEST:
        best = torch.load(fitted.best.best_model_path, map_location="cpu", weights_only=True)
        module.load_state_dict(best["state_dict"])
        step = int(best["global_step"])
    else:
        step = module.global_step
    return {"exported_step": step, **_metrics_at(folder, step)}


def _metrics_at(folder: Path, step: int) -> dict[str, float]:
    """Validation metrics logged at the step, or at the last one before it."""
    rows = [
        row for row in read_jsonl(folder / METRICS) if row["step"] <= step and any(k.startswith("val/") for k in row)
    ]
    return {key: value for key, value in rows[-1].items() if key.startswith("val/")} if rows else {}


def _card(folder: Path, config: TrainConfig) -> str:
    return (
        f"# {folder.name}\n\nTrained with multifaceted ({type(config.objective).__name__}, seed {config.seed}). State"
        " what you value in the system message; the chat template of the tokenizer gives the bytes it was trained on.\n"
    )
