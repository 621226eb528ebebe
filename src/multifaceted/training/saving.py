"""When to validate and save, which checkpoint is the best, and which are pruned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from multifaceted.training.checkpoint import VALUE, checkpoints, folder_of, remove
from multifaceted.training.checkpoint import Checkpoint as Saved
from multifaceted.training.ranks import Ranks
from multifaceted.training.throughput import Throughput

LOWER_IS_BETTER = {"loss", "nll", "odds_ratio_loss", "reward_rejected"}


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
class CheckpointConfig:
    """When to save the state to continue from, beside every validation, an interruption and the end.

    Attributes:
        every_steps: optimizer steps between two checkpoints.
        keep: how many of the latest to keep, beside the best.
    """

    every_steps: int | None = None
    keep: int = 1

    def __post_init__(self) -> None:
        if self.every_steps is not None and self.every_steps < 1:
            raise ValueError(f"every_steps is {self.every_steps}; it must be at least 1, or null")
        if self.keep < 1:
            raise ValueError(f"keep is {self.keep}; a run continues from its latest checkpoint, so at least 1 is kept")


class Checkpoints(Checkpoint):
    """Saves as configured, and prunes all but the latest and the best. Comes after `StopOnSignal`."""

    def __init__(
        self, root: Path, config: CheckpointConfig, validation: Validation, ranks: Ranks, clock: Throughput
    ) -> None:
        self.root, self.config, self.validation, self.ranks, self.clock = root, config, validation, ranks, clock
        self._value: float | None = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save a step that is due or the last before an interruption; one that is validated is saved after that."""
        is_due = self.config.every_steps is not None and trainer.global_step % self.config.every_steps == 0
        if (is_due or trainer.should_stop) and (batch_idx + 1) % trainer.val_check_batch:
            self._save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save with the value of the monitored metric."""
        if not trainer.sanity_checking:
            self._value = float(trainer.callback_metrics[self.validation.monitor])
            self._save(trainer)
            self._value = None

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the final weights too: up to a few steps come after the last validation."""
        is_saved = self.ranks.from_first(lambda: folder_of(self.root, trainer.global_step).exists())
        if not trainer.should_stop and not is_saved:
            self._save(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the monitored value, by which the best is found again."""
        checkpoint[VALUE] = self._value

    def _save(self, trainer: Trainer) -> None:
        with self.clock.paused():
            self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        for logger in trainer.loggers:
            logger.save()
        trainer.save_checkpoint(folder_of(self.root, trainer.global_step), weights_only=False)
        if self.ranks.is_first:
            every = checkpoints(self.root)
            kept = {c.step for c in every[-self.config.keep :]} | {
                c.step for c in every if c == best_of(every, self.validation)
            }
            for old in every:
                if old.step not in kept:
                    remove(old.folder)
        self.ranks.barrier()


def best_of(every: Sequence[Saved], validation: Validation) -> Saved | None:
    """The first of the checkpoints with the best value of the monitored metric, None without any validated one."""
    sign = 1 if validation.mode == "min" else -1
    return min((c for c in every if c.value is not None), key=lambda c: sign * (c.value or 0.0), default=None)
