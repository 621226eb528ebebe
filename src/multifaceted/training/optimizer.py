"""Optimizers and learning-rate schedules, as configs that build themselves."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from multifaceted.model.build import Scale
from multifaceted.model.weights import laid_out_like, whole


class OptimizerConfig:
    """Builds an optimizer for a model. Subclasses are dataclasses."""

    scale: Scale | None = None
    """The scale of model that the settings are made for; a model of another is refused."""

    def build(self, model: nn.Module) -> Optimizer:
        """An optimizer over the model's trainable parameters."""
        raise NotImplementedError

    def state_bytes(self, model: nn.Module) -> float:
        """Bytes of its state for a model's trainable parameters; if a subclass says nothing, two moments in fp32."""
        return sum(2 * 4 * parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def _check_rates(config: Any, *names: str) -> None:
    for name in names:
        if not getattr(config, name) > 0:
            raise ValueError(f"{name} is {getattr(config, name)}; a learning rate must be positive")


@dataclass(kw_only=True, slots=True)
class AdamW(OptimizerConfig):
    """AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101)."""

    lr: float
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.0
    scale: Scale | None = None

    def __post_init__(self) -> None:
        _check_rates(self, "lr")

    def build(self, model: nn.Module) -> Optimizer:
        """AdamW; weight decay on matrices only."""
        parameters = [p for p in model.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": self.weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self.lr, betas=(self.beta1, self.beta2), eps=self.eps)


@dataclass(kw_only=True, slots=True)
class Muon(OptimizerConfig):
    """Muon for the hidden matrices, AdamW for embeddings, heads and vectors (Jordan et al. 2024).

    Attributes:
        lr: learning rate of the matrices: the size of their orthogonal update.
        adamw_lr: learning rate of the rest.
    """

    lr: float
    adamw_lr: float
    momentum: float = 0.95
    beta1: float = 0.9
    beta2: float = 0.95
    scale: Scale | None = None

    def __post_init__(self) -> None:
        _check_rates(self, "lr", "adamw_lr")

    def build(self, model: nn.Module) -> Optimizer:
        """One optimizer with two parameter groups."""
        matrices: list[Tensor] = []
        rest: list[Tensor] = []
        outer = {id(p) for name, p in model.named_parameters() if _is_outer(name)}
        for parameter in model.parameters():
            if parameter.requires_grad:
                (matrices if parameter.ndim == 2 and id(parameter) not in outer else rest).append(parameter)
        return MuonWithAdamW(
            [
                {"params": matrices, "lr": self.lr, "momentum": self.momentum, "orthogonal": True},
                {"params": rest, "lr": self.adamw_lr, "betas": (self.beta1, self.beta2), "orthogonal": False},
            ]
        )


def _is_outer(name: str) -> bool:
    return any(part in name for part in ("embed", "lm_head", "score"))


def orthogonalise(updates: Tensor, steps: int = 5) -> Tensor:
    """The nearest semi-orthogonal matrices, approximately, by a quintic Newton-Schulz iteration.

    In the type of `updates`: torch.optim.Muon iterates in bf16, and on a CPU without bf16 instructions a training
    step in bf16 took 26 times as long as one in fp32.

    Args:
        updates: [matrices, rows, columns].
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    is_tall = updates.shape[1] > updates.shape[2]
    x = updates.mT if is_tall else updates
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if is_tall else x


class MuonWithAdamW(Optimizer):
    """A group with `orthogonal` true takes Muon steps, any other AdamW steps; Lightning wants a single optimizer."""

    def __init__(self, groups: Iterable[dict[str, Any]]) -> None:
        defaults = {"lr": 0.0, "momentum": 0.95, "betas": (0.9, 0.95), "eps": 1e-8, "orthogonal": False}
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; returns what `closure` returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not group["orthogonal"]:
                for parameter in parameters:
                    self._adamw_step(parameter, group)
                continue
            by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for parameter in parameters:
                by_shape[parameter.shape].append(parameter)
            for matrices in by_shape.values():
                self._muon_step(matrices, group)
        return loss

    def _muon_step(self, matrices: list[Tensor], group: dict[str, Any]) -> None:
        """Matrices of one shape together: few large products instead of many small ones."""
        updates = []
        for matrix in matrices:
            grad, state = cast(Tensor, matrix.grad), self.state[matrix]
            if not state:
                state["momentum"] = torch.zeros_like(matrix)
            state["momentum"].lerp_(grad, 1 - group["momentum"])
            # Orthogonalisation needs all of a matrix.
            updates.append(whole(grad.lerp(state["momentum"], group["momentum"])))
        rows, columns = matrices[0].shape
        # Wide and tall matrices get updates of one root-mean-square size per output.
        rate = group["lr"] * max(1.0, rows / columns) ** 0.5
        for matrix, update in zip(matrices, orthogonalise(torch.stack(updates)), strict=True):
            matrix.add_(laid_out_like(matrix, update), alpha=-rate)

    def _adamw_step(self, parameter: Tensor, group: dict[str, Any]) -> None:
        grad, state = cast(Tensor, parameter.grad), self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["first"] = torch.zeros_like(parameter)
            state["second"] = torch.zeros_like(parameter)
        beta1, beta2 = group["betas"]
        state["step"] += 1
        step = float(state["step"])
        state["first"].lerp_(grad, 1 - beta1)
        state["second"].lerp_(grad.square(), 1 - beta2)
        denominator = (state["second"] / (1 - beta2**step)).sqrt_().add_(group["eps"])
        parameter.addcdiv_(state["first"], denominator, value=-group["lr"] / (1 - beta1**step))


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
