"""Optimizers and learning-rate schedules, as configs that build themselves."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from multifaceted.model.build import Scale
from multifaceted.training.low_bit import BLOCK, is_blocked, low_bit_adamw, require_torchao


class OptimizerConfig:
    """Builds an optimizer for a model. Subclasses are dataclasses."""

    scale: Scale | None = None
    """The scale of model that the settings are made for; a model of another is refused."""

    def check(self, *, bf16_weights: bool) -> None:
        """Refuse, before a model loads, weights that the optimizer cannot train here.

        Raises:
            ValueError: says what to set or to install.
        """

    def build(self, model: nn.Module) -> Optimizer:
        """An optimizer over the model's trainable parameters."""
        raise NotImplementedError

    def state_bytes(self, model: nn.Module) -> float:
        """Bytes of its state for a model's trainable parameters; if a subclass says nothing, two moments in fp32."""
        return sum(2 * 4 * parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def check_rates(config: Any, *names: str) -> None:
    """Refuse learning rates that are not positive."""
    for name in names:
        if not getattr(config, name) > 0:
            raise ValueError(f"{name} is {getattr(config, name)}; a learning rate must be positive")


@dataclass(kw_only=True, slots=True)
class AdamW(OptimizerConfig):
    """AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101): torch's own over weights in fp32, `low_bit_adamw` otherwise.

    Attributes:
        eight_bit: keep the two moments of large matrices in 8 bits: 2 bytes a weight instead of 8.
    """

    lr: float
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.0
    eight_bit: bool = False
    scale: Scale | None = None

    def __post_init__(self) -> None:
        check_rates(self, "lr")

    def check(self, *, bf16_weights: bool) -> None:
        """Refuse what needs torchao where it is not installed."""
        if self.eight_bit:
            require_torchao("optimizer.eight_bit=true needs")
        elif bf16_weights:
            require_torchao(
                "weights in bf16 lose small updates unless they are rounded at random; set model.dtype=float32 and"
                " trainer.precision=bf16-mixed to keep them in fp32, or use"
            )

    def build(self, model: nn.Module) -> Optimizer:
        """AdamW; weight decay on matrices only."""
        parameters = [p for p in model.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": self.weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ]
        settings: dict[str, Any] = {"lr": self.lr, "betas": (self.beta1, self.beta2), "eps": self.eps}
        if self.eight_bit or any(p.dtype is not torch.float32 for p in parameters):
            return low_bit_adamw(groups, eight_bit=self.eight_bit, **settings)
        # Fused, it takes one pass over the weights, and no copy of them.
        return torch.optim.AdamW(groups, **settings, fused=True)

    def state_bytes(self, model: nn.Module) -> float:
        """Two moments: in fp32, or in 8 bits with a scale in fp32 for each block."""
        trained = [p for p in model.parameters() if p.requires_grad]
        return sum(2 * p.numel() * (1 + 4 / BLOCK if self.eight_bit and is_blocked(p) else 4) for p in trained)


class Shape(StrEnum):
    """How the learning rate falls after warm-up."""

    COSINE = "cosine"
    LINEAR = "linear"
    CONSTANT = "constant"


@dataclass(kw_only=True, slots=True)
class Schedule:
    """Linear warm-up, then a fall from the peak to `floor` of it at the last step.

    Attributes:
        warmup_steps: steps until the peak; give this or `warmup_share` of all steps.
    """

    shape: Shape = Shape.COSINE
    warmup_steps: int | None = None
    warmup_share: float | None = None
    floor: float = 0.0

    def __post_init__(self) -> None:
        if self.warmup_steps is not None and self.warmup_share is not None:
            raise ValueError("give warmup_steps or warmup_share, not both")
        if not 0 <= self.floor <= 1:
            raise ValueError(f"floor is {self.floor}; it is a share of the peak, in [0, 1]")
        if (self.warmup_steps or 0) < 0 or not 0 <= (self.warmup_share or 0) < 1:
            raise ValueError("warmup_steps must not be negative, and warmup_share must lie in [0, 1)")

    def factor(self, step: int, total_steps: int) -> float:
        """Share of the peak learning rate at a step, counted from 0."""
        warmup = self.warmup_steps if self.warmup_steps is not None else round((self.warmup_share or 0) * total_steps)
        if step < warmup:
            return (step + 1) / warmup
        if self.shape is Shape.CONSTANT:
            return 1.0
        progress = min(1.0, (step - warmup) / max(1, total_steps - warmup))
        fall = 0.5 * (1 + math.cos(math.pi * progress)) if self.shape is Shape.COSINE else 1 - progress
        return self.floor + (1 - self.floor) * fall
