"""What a fit gets done in its time: examples, useful tokens, useful FLOPs; and the memory it takes at most."""

from __future__ import annotations

import contextlib
import logging
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from transformers import PreTrainedModel

from multifaceted.data.batches import StepBatch
from multifaceted.model.flops import Flops
from multifaceted.training.hardware import Device
from multifaceted.training.ranks import Ranks
from multifaceted.work import Work

log = logging.getLogger(__name__)


@dataclass(kw_only=True, slots=True)
class Done:
    """What optimizer steps have done, over all ranks, and the seconds they took."""

    examples: int = 0
    work: Work = field(default_factory=Work)
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Peak:
    """What the FLOPs of a step are compared with: those that all devices could do in a second."""

    flops: Flops
    per_second: float

    @classmethod
    def of(cls, model: PreTrainedModel, device: Device, ranks: Ranks) -> Peak | None:
        """None where the device's peak is not known, or the model's FLOPs."""
        if device.flops is None:
            return None
        try:
            return cls(flops=Flops.of(model), per_second=device.flops * ranks.world_size)
        except ValueError as error:
            log.info("throughput/mfu is not logged: %s", error)
            return None


class Throughput(Callback):
    """Keeps the time of a fit without validation and checkpoints, and logs rates over the steps since the last log."""

    def __init__(self, ranks: Ranks, peak: Peak | None = None) -> None:
        self.ranks, self.peak = ranks, peak
        self.total, self._recent = Done(), Done()
        self._started: float | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._started = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: StepBatch, batch_idx: int
    ) -> None:
        """Count a step, and log where steps are logged."""
        for done in (self.total, self._recent):
            done.examples += batch.examples
            done.work += batch.work
        if trainer.global_step % trainer.log_every_n_steps == 0:
            self._log(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log, and stop the clock: validation is not throughput."""
        self._log(trainer)
        self._stop()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock again."""
        self._started = time.monotonic()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self._stop()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Time within does not count."""
        was_running = self._started is not None
        self._stop()
        try:
            yield
        finally:
            self._started = time.monotonic() if was_running else None

    @property
    def examples_per_second(self) -> float:
        """Examples trained on a second, so far."""
        running = time.monotonic() - self._started if self._started is not None else 0.0
        return self.total.examples / max(self.total.seconds + running, 1e-9)

    def summary(self) -> dict[str, float]:
        """Rates over the whole fit. All ranks must call this together."""
        return self._rates(self.total) if self.total.examples else {}

    def _log(self, trainer: Trainer) -> None:
        with self.paused():
            if not self._recent.examples:
                return
            rates = self._rates(self._recent)
            for logger in trainer.loggers:
                logger.log_metrics(rates, step=trainer.global_step)
            self._recent = Done()

    def _stop(self) -> None:
        if self._started is not None:
            elapsed = time.monotonic() - self._started
            self.total.seconds += elapsed
            self._recent.seconds += elapsed
            self._started = None

    def _rates(self, done: Done) -> dict[str, float]:
        seconds = max(done.seconds, 1e-9)
        rates = {
            "examples_per_second": done.examples / seconds,
            "tokens_per_second": done.work.tokens / seconds,
            "padding_share": done.work.padding_share,
            "peak_memory_gb": self.ranks.maximum(_peak_memory(self.ranks.device_type)) / 1e9,
        }
        if self.peak is not None:
            rates["mfu"] = self.peak.flops.training(done.work) / (seconds * self.peak.per_second)
        return {f"throughput/{name}": value for name, value in rates.items()}


def _peak_memory(device_type: str) -> int:
    """Bytes that torch has had allocated at most on a GPU, or on a CPU those of the process."""
    if device_type == "cuda":
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
