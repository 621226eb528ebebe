"""What watches a fit: progress, a clean early stop, the record of metrics."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from tqdm import tqdm

from multifaceted.data.batches import StepBatch
from multifaceted.record_files import put_in_place, sync
from multifaceted.records import METRICS
from multifaceted.training.ranks import STOP_SIGNALS, Ranks
from multifaceted.training.throughput import Throughput


class Progress(Callback):
    """One bar over optimizer steps: loss, pair accuracy, examples a second, time left. Comes after `Throughput`."""

    def __init__(self, total_steps: int, throughput: Throughput) -> None:
        self.total_steps = total_steps
        self.throughput = throughput
        self.bar: tqdm[Any] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the bar where the run stands; off a terminal it prints a line now and then."""
        if trainer.is_global_zero:
            interval = 0.5 if sys.stderr.isatty() else 30.0
            self.bar = tqdm(
                total=self.total_steps, initial=trainer.global_step, desc="train", unit="step", mininterval=interval
            )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: StepBatch, batch_idx: int
    ) -> None:
        """Advance by the optimizer steps taken."""
        if self.bar is None or trainer.global_step <= self.bar.n:
            return
        logged = pl_module.logged
        shown = {name: f"{logged[key]:.3f}" for name, key in _SHOWN if key in logged}
        self.bar.set_postfix({**shown, "examples/s": f"{self.throughput.examples_per_second:.1f}"}, refresh=False)
        self.bar.update(trainer.global_step - self.bar.n)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the terminal in order."""
        if self.bar is not None:
            self.bar.close()


_SHOWN = (("loss", "train/loss"), ("pair_accuracy", "train/pair_accuracy"))


class StopOnSignal(Callback):
    """On Ctrl-C or another stop signal: finish the optimizer step, save, end. A second Ctrl-C ends at once.

    Any rank's signal stops all ranks after the same step.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self.stopped_by: signal.Signals | None = None
        self._received = 0
        self._previous: dict[int, Any] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Remember who handled the signals, before Lightning does."""
        self._previous = {number: signal.getsignal(number) for number in STOP_SIGNALS}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over the signals, from Lightning too: it would leave in the middle of a step."""
        for number in STOP_SIGNALS:
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._received = self._received or number
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_DFL)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop, at an optimizer step's end only; `Checkpoints` saves.

        Lightning validates a run that stops. An uninterrupted run would not validate here, so it must not either,
        unless validation is due at this step.
        """
        if trainer.should_stop:
            return
        number = self.ranks.maximum(self._received)
        if not number:
            return
        self.stopped_by = signal.Signals(number)
        if (batch_idx + 1) % trainer.val_check_batch:
            trainer.limit_val_batches = 0
        trainer.should_stop = True

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the signals back."""
        self._restore()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Give the signals back."""
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def pass_on_late(self) -> None:
        """Let a signal that came after the last step do what it does without this callback."""
        if self._received and self.stopped_by is None:
            signal.raise_signal(self._received)


class JsonlLogger(Logger):
    """`metrics.jsonl`: one line per logged step. Rows past the step that a run resumes from are cut off."""

    def __init__(self, folder: Path, resume_step: int) -> None:
        super().__init__()
        self.path = folder / METRICS
        if self.path.exists():
            rows = [
                line for line in self.path.read_text(encoding="utf-8").splitlines() if _step_of(line) <= resume_step
            ]
            partial = self.path.with_name(f".{METRICS}.partial")
            partial.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
            put_in_place(partial, self.path)

    @property
    def name(self) -> str:
        """Lightning's name of the logger."""
        return "jsonl"

    @property
    def version(self) -> int:
        """Not versioned: a run has one folder."""
        return 0

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append a row."""
        values = {key: value for key, value in metrics.items() if key != "epoch"}
        if values:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({"step": step, **values}) + "\n")

    def save(self) -> None:
        """Have the rows reach the disk before a checkpoint that follows them does."""
        if self.path.exists():
            sync(self.path)

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """`config.yaml` holds them."""


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
