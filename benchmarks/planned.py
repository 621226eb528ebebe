"""What a run's plan says of the job that is measured: its useful FLOPs, its memory and its time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from transformers import PreTrainedModel

from multifaceted.data.batches import StepBatch
from multifaceted.model.flops import Flops
from multifaceted.training.config import TrainConfig
from multifaceted.training.hardware import local_device
from multifaceted.training.memory import memory_parts
from multifaceted.trees import TokenTree
from multifaceted.work import Work


def planned(
    config: TrainConfig, model: PreTrainedModel, step: StepBatch, trees: Iterable[TokenTree], num_steps: int
) -> dict[str, Any]:
    """Numbers of `num_steps` optimizer steps like `step`; a time only where the device's peak is known.

    Args:
        trees: those of `step`.
    """
    work = replace(Work.of(trees), laid_out=sum(part.rows.input_ids.numel() for part in step.passes))
    flops, peak = Flops.of(model), local_device(config.device_type).flops
    computed = flops.computed(work, checkpointing=config.activation_checkpointing)
    return {
        "flops": num_steps * flops.training(work),
        "peak_flops": peak,
        "plan_gb": sum(memory_parts(config, model, num_devices=1).values()) / 1e9,
        "plan_seconds": None if peak is None else num_steps * computed / (peak * config.plan.utilisation),
    }
