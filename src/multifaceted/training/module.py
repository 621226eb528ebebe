"""The one Lightning module: scores branches, asks the objective, averages over the whole optimizer step."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim.lr_scheduler import LambdaLR

from multifaceted.data.batches import PreferenceBatch, StepBatch
from multifaceted.data.packing import Position
from multifaceted.model.score import Scorer
from multifaceted.objective.base import Branches, Losses, Objective
from multifaceted.training.checkpoint import POSITION
from multifaceted.training.optimizer import OptimizerConfig, Schedule
from multifaceted.training.ranks import Ranks

GROUPED = ("loss", "pair_accuracy", "margin")
"""Validation metrics that are also reported by source and by dimension; few charts are read, many are not."""


def stream_seed(seed: int, name: str) -> int:
    """An independent seed for a named use of randomness."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:6], "big")


class NonFiniteLossError(RuntimeError):
    """The loss became NaN or infinite; the last checkpoint is kept."""


class PreferenceModule(LightningModule):
    """Training and validation of any objective.

    A loss does not depend on how its optimizer step was cut: every forward pass adds its weighted sum divided by
    the step's global weight, and the sums are what is logged.
    """

    automatic_optimization = False

    def __init__(
        self,
        scorer: Scorer,
        objective: Objective,
        optimizer: OptimizerConfig,
        schedule: Schedule,
        total_steps: int,
        clip_norm: float = 1.0,
        seed: int = 0,
        ranks: Ranks | None = None,
    ) -> None:
        super().__init__()
        self.scorer = scorer
        self.objective = objective
        self.optimizer_config = optimizer
        self.schedule = schedule
        self.total_steps = total_steps
        self.clip_norm = clip_norm
        self.seed = seed
        self.ranks = ranks or Ranks()
        self.position = Position()
        self.logged: dict[str, float] = {}
        """What the last optimizer step logged."""
        self.group_sums: dict[str, Tensor] = {}

    def forward(self, batch: PreferenceBatch) -> Losses:
        """Score the branches and ask the objective."""
        return self.objective(
            Branches(
                values=self.scorer(batch.rows),
                num_tokens=batch.rows.num_tokens,
                chosen=batch.chosen,
                pair_chosen=batch.pair_chosen,
                pair_rejected=batch.pair_rejected,
                pair_example=batch.pair_example,
                reference=batch.reference,
                margin=batch.margin,
            )
        )

    def configure_model(self) -> None:
        """Nothing: the model was laid out before, because the reference pass needs it too."""

    def training_step(self, batch: StepBatch, batch_idx: int) -> None:
        """One optimizer step: a forward and backward pass for each part of it."""
        optimizer = cast(LightningOptimizer, self.optimizers())
        optimizer.zero_grad()
        sums: dict[str, Tensor] = {}
        for index, part in enumerate(batch.passes):
            # Dropout follows from the position alone, so that a continued run draws what an uninterrupted one drew.
            torch.manual_seed(stream_seed(self.seed, f"dropout:{batch_idx}:{index}:{self.ranks.rank}"))
            share = self.share_of_step(part, batch, sums)
            # Gradients are averaged over ranks.
            self.manual_backward(share * self.ranks.world_size)
        self._clip()
        learning_rate = float(optimizer.param_groups[0]["lr"])
        with torch.autocast(self.device.type, enabled=False):  # Lightning's covers all of a step
            optimizer.step()
        cast(LambdaLR, self.lr_schedulers()).step()
        self.position = batch.position
        self._log_step(sums, learning_rate)

    def share_of_step(self, part: PreferenceBatch, step: StepBatch, sums: dict[str, Tensor]) -> Tensor:
        """What a forward pass adds to the loss of its step; adds its metrics to `sums`."""
        losses = self(part)
        total = step.tokens if self.objective.weighs_tokens else step.examples
        share = (losses.weight * losses.loss).sum() / total * part.counts
        if not torch.isfinite(share):
            bad = [name for name, value in zip(part.ids, losses.loss.tolist(), strict=True) if value - value != 0]
            raise NonFiniteLossError(
                f"the loss is {float(share.detach())} at optimizer step {self.global_step}, in examples"
                f" {', '.join(bad or part.ids)}. The last checkpoint is kept. Lower optimizer.lr, lengthen the"
                " warm-up, or look at these examples"
            )
        added = {"loss": share.detach()}
        added |= {name: v.detach().sum() / step.examples * part.counts for name, v in losses.metrics.items()}
        sums |= {name: sums.get(name, torch.zeros_like(value)) + value for name, value in added.items()}
        return cast(Tensor, share)

    def _clip(self) -> None:
        """Clip gradients by their global norm, and refuse to step on one that is not finite."""
        norm = torch.nn.utils.clip_grad_norm_(self.scorer.parameters(), self.clip_norm or float("inf"))
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        if not torch.isfinite(norm):
            raise NonFiniteLossError(
                f"the gradient's norm is {float(norm)} at optimizer step {self.global_step}. The last checkpoint is"
                " kept. Lower optimizer.lr or lengthen the warm-up"
            )

    def _log_step(self, sums: dict[str, Tensor], learning_rate: float) -> None:
        """Log the sums of the step, straight to the loggers: Lightning's bookkeeping costs a tenth of a mini step."""
        reduced = self.trainer.strategy.reduce(torch.stack([*sums.values()]), reduce_op="sum").tolist()
        self.logged = {f"train/{name}": value for name, value in zip(sums, reduced, strict=True)}
        if self.global_step % self.trainer.log_every_n_steps == 0:
            self._log({**self.logged, "train/learning_rate": learning_rate}, self.global_step)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep where the stream of examples stands."""
        checkpoint[POSITION] = asdict(self.position)

    def validation_step(self, batch: PreferenceBatch, batch_idx: int) -> None:
        """Add each example's loss and metrics to the sums of its groups."""
        losses = self(batch)  # on every rank, counting or not: sharded weights are gathered by all
        if not batch.counts:
            return
        columns = {"loss": losses.loss, **losses.metrics}
        paired = set(batch.pair_example.tolist())
        for index in range(len(batch.ids)):
            every = [f"/{batch.sources[index]}", *(f"/{name}" for name in batch.dimensions[index])]
            for metric, values in columns.items():
                if metric != "loss" and index not in paired:
                    continue  # an example without a pair is neither right nor wrong
                groups = ["", *(every if metric in GROUPED else [])]
                weight = losses.weight[index] if metric == "loss" else torch.ones_like(values[index])
                pair = torch.stack([weight * values[index], weight])
                for group in groups:
                    key = f"val/{metric}{group}"
                    self.group_sums[key] = self.group_sums.get(key, torch.zeros_like(pair)) + pair

    def on_validation_epoch_end(self) -> None:
        """Log the weighted means: overall, by source, and by the dimension in which a pair differs."""
        sums: dict[str, Tensor] = {}
        for part in self.ranks.gather({key: pair.cpu() for key, pair in self.group_sums.items()}):
            for key, pair in part.items():
                sums[key] = sums.get(key, torch.zeros_like(pair)) + pair
        self.group_sums.clear()
        means = {key: float(pair[0] / pair[1]) for key, pair in sorted(sums.items())}
        bad = [key for key, value in means.items() if value - value != 0]
        if bad:
            raise NonFiniteLossError(
                f"{', '.join(bad)} is not finite after optimizer step {self.global_step}; the last checkpoint is kept"
            )
        self._log(means, self.global_step)
        self.log_dict(means, logger=False)

    def _log(self, values: dict[str, float], step: int) -> None:
        for logger in self.trainer.loggers:
            logger.log_metrics(values, step=step)

    def configure_optimizers(self) -> Any:
        """The optimizer and its schedule, stepped once per optimizer step."""
        optimizer = self.optimizer_config.build(self.scorer.model)
        schedule = LambdaLR(optimizer, lambda step: self.schedule.factor(step, self.total_steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Batches are dataclasses, which know how to move."""
        return batch.to(device)
