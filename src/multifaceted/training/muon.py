"""Muon, with AdamW for what is no hidden matrix."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from multifaceted.model.build import Scale
from multifaceted.model.weights import laid_out_like, whole
from multifaceted.training.optimizer import OptimizerConfig, check_rates


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
        check_rates(self, "lr", "adamw_lr")

    def check(self, *, bf16_weights: bool) -> None:
        """Refuse weights in bf16: they would lose small updates, and so would the momentum, which has their type."""
        if bf16_weights:
            raise ValueError(
                "Muon on weights in bf16 would round small updates away; keep the weights in fp32 with"
                " model.dtype=float32 and trainer.precision=bf16-mixed, or set optimizer=adamw"
            )

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

    def state_bytes(self, model: nn.Module) -> float:
        """A momentum for the hidden matrices, two moments for the rest."""
        trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        return sum(4 * p.numel() * (1 if p.ndim == 2 and not _is_outer(name) else 2) for name, p in trained)


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
