"""A fit with Lightning's Trainer, from its beginning or from the latest checkpoint."""

from __future__ import annotations

import contextlib
import logging
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger, WandbLogger
from torch.utils.data import DataLoader, Dataset

from multifaceted.data.packing import Position
from multifaceted.record_files import read_json
from multifaceted.records import CHECKPOINTS, RUN
from multifaceted.training.callbacks import JsonlLogger, Progress, StopOnSignal
from multifaceted.training.checkpoint import checkpoints, remove_leftovers
from multifaceted.training.config import TrainConfig
from multifaceted.training.hardware import local_device
from multifaceted.training.prepare import Prepared
from multifaceted.training.ranks import STOP_SIGNALS, Ranks
from multifaceted.training.saving import Checkpoints
from multifaceted.training.throughput import Peak, Throughput

log = logging.getLogger(__name__)


@dataclass(kw_only=True, slots=True)
class Fitted:
    """How a fit ended. `throughput` is empty where nothing was left to train."""

    throughput: dict[str, float] = field(default_factory=dict)
    stopped_by: signal.Signals | None = None


def fit(config: TrainConfig, plain: dict[str, Any], folder: Path, prepared: Prepared, ranks: Ranks) -> Fitted:
    """Fit, or continue from the latest checkpoint."""
    batches = prepared.batches
    saved = folder / CHECKPOINTS
    if ranks.is_first:
        remove_leftovers(saved)
        log.info("%s examples, %s steps", len(batches.trees), batches.num_steps)
    ranks.barrier()
    latest = ranks.from_first(lambda: next(reversed(checkpoints(saved)), None))
    step = latest.step if latest else 0
    batches.start_step, batches.start = step, latest.position if latest else Position()
    if step >= batches.num_steps:
        return Fitted()
    if step and ranks.is_first:
        log.info("resuming at step %s of %s", step, batches.num_steps)
    prepared.module.position = batches.start
    prepared.module.train()
    throughput, stop = Throughput(ranks, _peak(config, prepared, ranks)), StopOnSignal(ranks)
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
            val_check_interval=max(1, batches.num_steps // config.validation.times),
            check_val_every_n_epoch=None,
            use_distributed_sampler=False,
            logger=loggers,
            callbacks=[
                throughput,
                Progress(batches.num_steps, throughput),
                *config.callbacks.values(),
                stop,
                Checkpoints(saved, config.checkpoint, config.validation, ranks, throughput),
            ],
        )
        trainer.fit(
            prepared.module,
            _loader(batches, config.device_type),
            _loader(prepared.pairs, config.device_type),
            ckpt_path=str(latest.folder) if latest else None,
            weights_only=True,
        )
    stop.pass_on_late()
    return Fitted(throughput=throughput.summary(), stopped_by=stop.stopped_by)


def _peak(config: TrainConfig, prepared: Prepared, ranks: Ranks) -> Peak | None:
    """What MFU compares with; peaks of devices are stated for products in 16 bits."""
    if not config.computes_in_16_bits:
        return None
    return Peak.of(prepared.module.scorer.model, local_device(config.device_type), ranks)


def _loader(batches: Dataset[Any], device_type: str) -> DataLoader[Any]:
    """On a GPU, one worker lays out the next batches meanwhile; a CPU would only share its cores with it."""
    ahead: dict[str, Any] = {"num_workers": 1, "prefetch_factor": 1, "worker_init_fn": _leave_signals_to_the_rank}
    return DataLoader(batches, batch_size=None, **(ahead if device_type == "cuda" else {}))


def _leave_signals_to_the_rank(worker: int) -> None:
    """A signal to all processes of a job must not end those that the rank needs for its last steps."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def _loggers(
    config: TrainConfig, plain: dict[str, Any], folder: Path, step: int, ranks: Ranks
) -> Iterator[list[Logger]]:
    """`metrics.jsonl` and the tracker, on the first rank; the tracker is closed at the end."""
    if not ranks.is_first:
        yield []
        return
    tracker = config.logger.start(folder, folder.name, read_json(folder / RUN)["wandb_id"], plain)
    try:
        yield [JsonlLogger(folder, step), *([WandbLogger(experiment=tracker)] if tracker else [])]
    finally:
        if tracker is not None:
            tracker.finish()
