"""A training run from its config to `policy/`: one line per object, in the order in which data flows."""

from __future__ import annotations

import hashlib
import json
import logging
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, Sampler
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from multifaceted.data.batches import EvaluationBatches, TrainingBatches
from multifaceted.data.dataset import counts
from multifaceted.data.source import texts_of
from multifaceted.model.build import Dtype, ModelSource, PretrainedModel, resolve_start
from multifaceted.model.export import export_model
from multifaceted.records import CHECKPOINTS, METRICS, RUN, SUMMARY, VERSION, Example, read_json, read_jsonl, write_json
from multifaceted.training.callbacks import JsonlLogger, LastCheckpoint, Progress, StopOnSignal
from multifaceted.training.config import Export, TrainConfig
from multifaceted.training.folder import State, open_run_folder, require_space
from multifaceted.training.module import PreferenceModule
from multifaceted.training.reference import reference_logps
from multifaceted.training.tracking import run_facts

log = logging.getLogger(__name__)

BEST, LAST = "best.ckpt", "last.ckpt"


@dataclass(kw_only=True, slots=True)
class Outcome:
    """How a run ended. `summary` is empty when it was interrupted."""

    folder: Path
    exported: Path
    summary: dict[str, Any] = field(default_factory=dict)
    interrupted_by: signal.Signals | None = None
    was_finished: bool = False


@dataclass(kw_only=True, slots=True)
class Prepared:
    """What a fit needs, built before it starts."""

    tokenizer: PreTrainedTokenizerBase
    module: PreferenceModule
    batches: TrainingBatches
    pairs: EvaluationBatches
    counts: dict[str, int]


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
    started = time.monotonic()
    outcome = Outcome(folder=folder, exported=folder / config.export_name)
    source = _model_source(config)
    if open_run_folder(folder, plain, overwrite=config.overwrite) is State.FINISHED:
        outcome.summary, outcome.was_finished = read_json(folder / SUMMARY), True
        return outcome
    prepared = _prepare(config, source, folder)
    fitted = _fit(config, plain, folder, prepared)
    if fitted.stopped_by is not None:
        outcome.interrupted_by = fitted.stopped_by
        return outcome
    step = _load_weights_to_export(config, folder, prepared.module)
    model = prepared.module.model
    export_model(model, prepared.tokenizer, outcome.exported, _card(folder, config))
    outcome.summary = {
        "version": VERSION,
        **_metrics_at(folder, step),
        **prepared.counts,
        "exported_step": step,
        "steps": prepared.batches.num_steps,
        "examples": len(prepared.batches.trees),
        "examples_per_second": fitted.examples_per_second,
        "wall_seconds": time.monotonic() - started,
    }
    write_json(folder / SUMMARY, outcome.summary)
    return outcome


def _prepare(config: TrainConfig, source: ModelSource, folder: Path) -> Prepared:
    """Data to tokens, weights, reference values: everything that can fail before training does so here."""
    needs_rejected = config.objective.needs_rejected
    train, validation = config.data.examples(config.seed, needs_rejected=needs_rejected)
    _write_facts(config, folder, [*train, *validation])
    tokenizer = source.load_tokenizer(texts_of(train))
    encoded = config.data.encode(train, tokenizer, with_rejected=needs_rejected)
    held_out = config.data.encode(validation, tokenizer, with_rejected=True)
    torch.manual_seed(stream_seed(config.seed, "weights"))
    model = source.load_model(tokenizer, reward=config.has_reward_head, max_length=config.data.max_length)
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
    size = model.num_parameters() / 1e6
    log.info("%s examples, %s steps, %.1f M parameters", len(encoded.trees), batches.num_steps, size)
    dropped = counts(encoded) | {f"validation_{key}": number for key, number in counts(held_out).items()}
    return Prepared(tokenizer=tokenizer, module=module, batches=batches, pairs=pairs, counts=dropped)


@dataclass(kw_only=True, slots=True)
class _Fitted:
    examples_per_second: float
    stopped_by: signal.Signals | None


class _From(Sampler[int]):
    """Positions from `start` on, of a sequence whose full length Lightning must know."""

    def __init__(self, start: int, length: int) -> None:
        self.start, self.length = start, length

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.start, self.length))

    def __len__(self) -> int:
        return self.length


def _fit(config: TrainConfig, plain: dict[str, Any], folder: Path, prepared: Prepared) -> _Fitted:
    """Fit, or continue from `last.ckpt`."""
    batches = prepared.batches
    last = folder / CHECKPOINTS / LAST
    step = _saved_step(last)
    if step >= batches.num_steps:
        return _Fitted(examples_per_second=0.0, stopped_by=None)
    if step:
        log.info("resuming at step %s of %s", step, batches.num_steps)
    torch.manual_seed(stream_seed(config.seed, "dropout"))
    prepared.module.train()
    progress, stop = Progress(batches.num_steps), StopOnSignal(last)
    best = ModelCheckpoint(
        dirpath=folder / CHECKPOINTS,
        filename=BEST.removesuffix(".ckpt"),
        monitor=config.validation.monitor,
        mode=config.validation.mode,
        enable_version_counter=False,
    )
    tracker = config.logger.build(folder, folder.name, read_json(folder / RUN)["wandb_id"], plain)
    defaults = {
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = Trainer(
        **{**defaults, **config.trainer},
        max_epochs=1,  # one long epoch: the batches hold all of ours
        accumulate_grad_batches=batches.micro_per_step,
        gradient_clip_val=config.clip_norm,
        val_check_interval=max(1, batches.num_steps // config.validation.times) * batches.micro_per_step,
        check_val_every_n_epoch=None,
        use_distributed_sampler=False,
        logger=[JsonlLogger(folder, step), *([tracker] if tracker else [])],
        callbacks=[progress, *config.callbacks.values(), stop, best, LastCheckpoint(last)],
    )
    try:
        trainer.fit(
            prepared.module,
            DataLoader(batches, batch_size=None, sampler=_From(step * batches.micro_per_step, len(batches))),
            DataLoader(prepared.pairs, batch_size=None),
            ckpt_path=str(last) if step else None,
            weights_only=True,
        )
    finally:
        if tracker is not None:
            tracker.experiment.finish()
    return _Fitted(examples_per_second=progress.examples_per_second, stopped_by=stop.received)


def _model_source(config: TrainConfig) -> ModelSource:
    """The model to start from: `start` wins over `model`."""
    if config.start is None:
        return config.model
    return PretrainedModel(name=resolve_start(config.start), dtype=getattr(config.model, "dtype", Dtype.FLOAT32))


def _write_facts(config: TrainConfig, folder: Path, examples: list[Example]) -> None:
    if (folder / RUN).exists():
        return
    digest = hashlib.sha256()
    for example in examples:
        digest.update(json.dumps(asdict(example), sort_keys=True).encode())
    facts = run_facts(config.seed)
    identity = hashlib.sha256(f"{folder}{time.time()}".encode()).hexdigest()[:8]
    write_json(folder / RUN, {**facts, "data_fingerprint": digest.hexdigest()[:16], "wandb_id": identity})


def _saved_step(checkpoint: Path) -> int:
    if not checkpoint.exists():
        return 0
    return int(torch.load(checkpoint, map_location="cpu", weights_only=True)["global_step"])


def _bytes_written(model: PreTrainedModel) -> int:
    """Two checkpoints of weights and two optimizer moments, and the exported weights."""
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    return int(2 * 3 * weights + weights)


def _load_weights_to_export(config: TrainConfig, folder: Path, module: PreferenceModule) -> int:
    """Put the weights to export into the model; returns the optimizer step that they are from."""
    name = BEST if config.export is Export.BEST else LAST
    checkpoint = torch.load(folder / CHECKPOINTS / name, map_location="cpu", weights_only=True)
    module.load_state_dict(checkpoint["state_dict"])
    return int(checkpoint["global_step"])


def _metrics_at(folder: Path, step: int) -> dict[str, float]:
    """Validation metrics logged at a step."""
    rows = (row for row in read_jsonl(folder / METRICS) if row["step"] == step)
    return {key: value for row in rows for key, value in row.items() if key.startswith("val/")}


def _card(folder: Path, config: TrainConfig) -> str:
    return (
        f"# {folder.name}\n\nTrained with multifaceted ({type(config.objective).__name__}, seed {config.seed}). State"
        " what you value in the system message; the chat template of the tokenizer gives the bytes it was trained on.\n"
    )
