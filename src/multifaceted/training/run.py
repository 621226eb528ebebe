"""A training run from its config to `policy/`: one line per object, in the order in which data flows."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger
from torch.utils.data import DataLoader, Sampler
from transformers import PreTrainedTokenizerBase

from multifaceted.data.batches import EvaluationBatches, TrainingBatches
from multifaceted.data.dataset import counts
from multifaceted.data.source import texts_of
from multifaceted.model.adapter import merge_adapter
from multifaceted.model.adapter_files import write_adapter
from multifaceted.model.export import export_model
from multifaceted.records import (
    ADAPTER,
    CHECKPOINTS,
    METRICS,
    RUN,
    SUMMARY,
    VERSION,
    Example,
    read_json,
    read_jsonl,
    write_json,
)
from multifaceted.training.callbacks import JsonlLogger, Progress, StopOnSignal
from multifaceted.training.checkpoint import Checkpoint, checkpoints, read_weights, remove_leftovers
from multifaceted.training.config import Export, TrainConfig
from multifaceted.training.folder import State, open_run_folder
from multifaceted.training.module import PreferenceModule, stream_seed
from multifaceted.training.ranks import Ranks, joined
from multifaceted.training.reference import reference_logps
from multifaceted.training.saving import Checkpoints, best_of
from multifaceted.training.start import Start, load_scorer
from multifaceted.training.tracking import run_facts

log = logging.getLogger(__name__)


@dataclass(kw_only=True, slots=True)
class Outcome:
    """How a run ended. `summary` is empty when it was interrupted."""

    folder: Path
    exported: Path
    is_first_rank: bool = True
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


def run(config: TrainConfig, plain: dict[str, Any], folder: Path) -> Outcome:
    """Train, or continue, the run of `folder`, as one of the ranks of the job; a finished run is returned as it is.

    Args:
        plain: `config` as plain data, for `config.yaml`.

    Raises:
        RunFolderError, DataError, CheckpointError, ValueError: bad input, before any training.
        NonFiniteLossError: the loss diverged; checkpoints are kept.
    """
    with joined(config.device_type, alone=config.strategy.shards) as ranks:
        config.check_ranks(ranks)
        return _run(config, plain, folder, ranks)


def _run(config: TrainConfig, plain: dict[str, Any], folder: Path, ranks: Ranks) -> Outcome:
    started = time.monotonic()
    outcome = Outcome(folder=folder, exported=folder / config.export_name, is_first_rank=ranks.is_first)
    start = Start.of(config, ranks)
    state = ranks.from_first(lambda: open_run_folder(folder, plain, overwrite=config.overwrite))
    if state is State.FINISHED:
        outcome.summary, outcome.was_finished = read_json(folder / SUMMARY), True
        return outcome
    prepared = _prepare(config, start, folder, ranks)
    fitted = _fit(config, plain, folder, prepared, ranks)
    if fitted.stopped_by is not None:
        outcome.interrupted_by = fitted.stopped_by
        return outcome
    chosen = _checkpoint_to_export(config, folder)
    model = prepared.module.scorer.model
    read_weights(chosen.folder, model, ranks)
    if start.base is not None:
        write_adapter(model, start.base, folder / ADAPTER, is_first=ranks.is_first)
        merge_adapter(model)
    export_model(model, prepared.tokenizer, outcome.exported, _card(folder, config), is_first=ranks.is_first)
    outcome.summary = {
        "version": VERSION,
        **_metrics_at(folder, chosen.step),
        **prepared.counts,
        "exported_step": chosen.step,
        "steps": prepared.batches.num_steps,
        "examples": len(prepared.batches.trees),
        "examples_per_second": fitted.examples_per_second,
        "wall_seconds": time.monotonic() - started,
    }
    if ranks.is_first:
        write_json(folder / SUMMARY, outcome.summary)
    ranks.barrier()
    return outcome


def _prepare(config: TrainConfig, start: Start, folder: Path, ranks: Ranks) -> Prepared:
    """Data to tokens, weights, reference values: everything that can fail before training does so here."""
    needs_rejected = config.objective.needs_rejected
    train, validation = config.data.examples(config.mix, config.seed, needs_rejected=needs_rejected)
    if ranks.is_first:
        _write_facts(config, folder, [*train.examples, *validation.examples])
    tokenizer = start.source.load_tokenizer(texts_of(train.examples))
    order = stream_seed(config.seed, "views")
    encoded = config.data.encode(train, config.mix, order, tokenizer, with_rejected=needs_rejected)
    held_out = config.data.encode(validation, config.mix, order, tokenizer, with_rejected=True)
    if ranks.is_first:
        train.bad.report("training")
        validation.bad.report("validation")
    _refuse_idle_ranks(len(encoded.trees), config, ranks)
    scorer = load_scorer(config, start, tokenizer, folder, ranks)
    micro = config.batch.micro_examples
    reference = None
    if config.objective.needs_reference:
        trees = [*encoded.trees, *held_out.trees]
        reference = reference_logps(scorer, trees, micro, config.paths.cache, ranks)
    batches = TrainingBatches(
        trees=encoded.trees,
        batch=config.batch,
        num_epochs=config.num_epochs,
        max_steps=config.max_steps,
        seed=stream_seed(config.seed, "order"),
        rank=ranks.rank,
        world_size=ranks.world_size,
        reference=reference,
    )
    pairs = EvaluationBatches(
        trees=held_out.trees, micro_examples=micro, rank=ranks.rank, world_size=ranks.world_size, reference=reference
    )
    module = PreferenceModule(
        scorer, config.objective, config.optimizer, config.schedule, batches.num_steps, config.seed, ranks
    )
    dropped = counts(encoded) | {f"validation_{key}": number for key, number in counts(held_out).items()}
    return Prepared(tokenizer=tokenizer, module=module, batches=batches, pairs=pairs, counts=dropped)


def _refuse_idle_ranks(num_examples: int, config: TrainConfig, ranks: Ranks) -> None:
    least = min(num_examples, config.batch.examples)
    if least < ranks.world_size:
        raise ValueError(
            f"{ranks.world_size} ranks share {num_examples} training rows, {config.batch.examples} a step: some ranks"
            " would have none; use fewer devices, a larger batch.examples or more data"
        )


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


def _fit(config: TrainConfig, plain: dict[str, Any], folder: Path, prepared: Prepared, ranks: Ranks) -> _Fitted:
    """Fit, or continue from the latest checkpoint."""
    batches = prepared.batches
    saved = folder / CHECKPOINTS
    if ranks.is_first:
        remove_leftovers(saved)
        log.info("%s examples, %s steps", len(batches.trees), batches.num_steps)
    ranks.barrier()
    latest = next(reversed(checkpoints(saved)), None)
    step = latest.step if latest else 0
    if step >= batches.num_steps:
        return _Fitted(examples_per_second=0.0, stopped_by=None)
    if step and ranks.is_first:
        log.info("resuming at step %s of %s", step, batches.num_steps)
    prepared.module.train()
    progress, stop = Progress(batches.num_steps), StopOnSignal(ranks)
    defaults = {
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    with _loggers(config, plain, folder, step, ranks) as loggers:
        trainer = Trainer(
            **{**defaults, **config.trainer, **config.strategy.trainer_arguments(ranks, config.precision)},
            max_epochs=1,  # one long epoch: the batches hold all of ours
            accumulate_grad_batches=batches.micro_per_step,
            gradient_clip_val=config.clip_norm,
            val_check_interval=max(1, batches.num_steps // config.validation.times) * batches.micro_per_step,
            check_val_every_n_epoch=None,
            use_distributed_sampler=False,
            logger=loggers,
            callbacks=[
                progress,
                *config.callbacks.values(),
                stop,
                Checkpoints(saved, config.checkpoint, config.validation, batches.micro_per_step, ranks),
            ],
        )
        trainer.fit(
            prepared.module,
            DataLoader(batches, batch_size=None, sampler=_From(step * batches.micro_per_step, len(batches))),
            DataLoader(prepared.pairs, batch_size=None),
            ckpt_path=str(latest.folder) if latest else None,
            weights_only=True,
        )
    stop.pass_on_late()
    return _Fitted(examples_per_second=progress.examples_per_second, stopped_by=stop.stopped_by)


@contextlib.contextmanager
def _loggers(
    config: TrainConfig, plain: dict[str, Any], folder: Path, step: int, ranks: Ranks
) -> Iterator[list[Logger]]:
    """`metrics.jsonl` and the tracker, on the first rank; the tracker is closed at the end."""
    if not ranks.is_first:
        yield []
        return
    tracker = config.logger.build(folder, folder.name, read_json(folder / RUN)["wandb_id"], plain)
    try:
        yield [JsonlLogger(folder, step), *([tracker] if tracker else [])]
    finally:
        if tracker is not None:
            tracker.experiment.finish()


def _write_facts(config: TrainConfig, folder: Path, examples: list[Example]) -> None:
    if (folder / RUN).exists():
        return
    digest = hashlib.sha256()
    for example in examples:
        digest.update(json.dumps(asdict(example), sort_keys=True).encode())
    facts = run_facts(config.seed)
    identity = hashlib.sha256(f"{folder}{time.time()}".encode()).hexdigest()[:8]
    write_json(folder / RUN, {**facts, "data_fingerprint": digest.hexdigest()[:16], "wandb_id": identity})


def _checkpoint_to_export(config: TrainConfig, folder: Path) -> Checkpoint:
    """The best checkpoint by the monitored metric, or the last."""
    every = checkpoints(folder / CHECKPOINTS)
    best = best_of(every, config.validation) if config.export is Export.BEST else None
    return best or every[-1]


def _metrics_at(folder: Path, step: int) -> dict[str, float]:
    """Validation metrics logged at a step."""
    rows = (row for row in read_jsonl(folder / METRICS) if row["step"] == step)
    return {key: value for row in rows for key, value in row.items() if key.startswith("val/")}


def _card(folder: Path, config: TrainConfig) -> str:
    return (
        f"# {folder.name}\n\nTrained with multifaceted ({type(config.objective).__name__}, seed {config.seed}). State"
        " what you value in the system message; the chat template of the tokenizer gives the bytes it was trained on.\n"
    )
