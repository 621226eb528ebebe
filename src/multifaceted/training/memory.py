"""Memory of a training step on one device, by part, before anything is allocated.

Weights, gradients and optimizer state follow from their number, type and place, activations from `activations`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from multifaceted.model.vocabulary import LOGITS_BYTES
from multifaceted.training.activations import Pass, usage
from multifaceted.training.config import TrainConfig
from multifaceted.training.hardware import GIB
from multifaceted.training.strategy import MIXED_TYPES, TRUE_TYPES, FullyShard

OVERHEAD = {"cuda": 1.0 * GIB, "cpu": 0.5 * GIB}
"""CUDA's context, its libraries' workspaces, what the allocator cannot reuse; on CPU, the interpreter's libraries."""

FOUR_BIT = (4 + 8 / 64 + 32 / (64 * 256)) / 8
"""Bytes of a weight in NF4: 4 bits, and of every 64 weights a constant in 8 bits, which are scaled in blocks of 256."""


def memory_parts(
    config: TrainConfig, model: PreTrainedModel, *, num_devices: int, widest: int | None = None
) -> dict[str, int]:
    """Bytes of one device at the peak of a training step, by part.

    Every token of the widest row is counted as scored, and all gradients beside all activations: so it is when a step
    has several forward passes.

    Args:
        model: the whole model with its adapter; only shapes and types are read, so it may be on the meta device.
        widest: positions of the largest forward pass; by default all that a row may have.
    """
    tokens = min(widest or config.batch.max_tokens, config.batch.max_tokens)
    layout = _Layout.of(config, model, num_devices)
    used = usage(
        model,
        Pass(
            tokens=tokens,
            cast_to=layout.compute if layout.shards else layout.stored,
            autocast=layout.autocast,
            checkpointing=config.activation_checkpointing,
            adapter=config.adapter,
        ),
    )
    parts = {
        "weights": layout.weights(model) + used.casts,
        "gradients": layout.gradients(model),
        "optimizer state": 0 if layout.offloads else config.optimizer.state_bytes(model) / num_devices,
        "activations": used.peak - used.casts,
        "logits": _logits(config, model, layout, tokens),
        "overhead": OVERHEAD.get(config.device_type, OVERHEAD["cuda"]),
    }
    return {name: round(num_bytes) for name, num_bytes in parts.items()}


def _logits(config: TrainConfig, model: PreTrainedModel, layout: _Layout, tokens: int) -> int:
    """What the vocabulary projection allocates in its backward pass, the larger one."""
    head = cast(nn.Linear | None, model.get_output_embeddings())
    if config.has_reward_head or head is None:
        return 0
    logits = min(LOGITS_BYTES[config.device_type], 4 * tokens * head.out_features)
    # In fp32 the hidden states' gradient and what is added to it; in the products' type hidden states, these weighted,
    # and the gradient that is handed on.
    hidden = tokens * head.in_features * (2 * 4 + 3 * layout.compute.itemsize)
    gradient = head.weight.numel() * (layout.stored or head.weight.dtype).itemsize * head.weight.requires_grad
    return int(logits * (4 + layout.compute.itemsize) / 4) + hidden + gradient


@dataclass(frozen=True, kw_only=True, slots=True)
class _Layout:
    """Types and places of the weights, as `training.strategy` lays them out.

    Attributes:
        stored: type that the weights are cast to; None leaves each as it is.
        compute: type of the products.
        autocast: type of the copies that autocast makes of fp32 weights; None without autocast.
        shards: whether a device holds one of `num_devices` parts of the weights.
    """

    stored: torch.dtype | None
    compute: torch.dtype
    autocast: torch.dtype | None
    shards: bool
    reshards: bool
    offloads: bool
    num_devices: int
    four_bit: bool

    @classmethod
    def of(cls, config: TrainConfig, model: PreTrainedModel, num_devices: int) -> _Layout:
        strategy = config.strategy
        stored, mixed = TRUE_TYPES.get(config.precision), MIXED_TYPES.get(config.precision)
        return cls(
            stored=stored,
            compute=mixed or stored or model.dtype,
            autocast=None if strategy.shards else mixed,
            shards=strategy.shards,
            reshards=isinstance(strategy, FullyShard) and strategy.reshard_after_forward,
            offloads=isinstance(strategy, FullyShard) and strategy.cpu_offload,
            num_devices=num_devices,
            four_bit=config.adapter is not None and config.adapter.four_bit,
        )

    def weights(self, model: PreTrainedModel) -> float:
        """Bytes of a device's weights; sharded, also of those it has gathered: two layers, and what is in no layer."""
        held = float(sum(self._size(name, parameter) for name, parameter in model.named_parameters()))
        if not self.shards:
            return held
        layer, rest = _sizes(model, trained=False)
        gathered = 2 * layer + rest if self.reshards else model.num_parameters()
        return (0 if self.offloads else held / self.num_devices) + gathered * self.compute.itemsize

    def gradients(self, model: PreTrainedModel) -> float:
        """Bytes of a device's gradients; sharded, also of those that are whole until they are summed over devices."""
        trained = [p for p in model.parameters() if p.requires_grad]
        held = float(sum(p.numel() * (self.stored or p.dtype).itemsize for p in trained))
        if not self.shards:
            return held
        layer, rest = _sizes(model, trained=True)
        reduced = layer * torch.float32.itemsize
        return (0 if self.offloads else held / self.num_devices) + (layer + rest) * self.compute.itemsize + reduced

    def _size(self, name: str, parameter: Tensor) -> float:
        if self.four_bit and name.endswith("base_layer.weight"):
            return parameter.numel() * FOUR_BIT
        return parameter.numel() * (self.stored or parameter.dtype).itemsize


def _sizes(model: PreTrainedModel, *, trained: bool) -> tuple[int, int]:
    """Parameters of a decoder layer, and of what is in none; all, or those that are trained."""

    def size(module: nn.Module) -> int:
        return sum(p.numel() for p in module.parameters() if p.requires_grad or not trained)

    kinds = set(model._no_split_modules or ())
    # A sharded layer is of a class of its own, derived from that of the layer.
    layers = [size(m) for m in model.modules() if kinds & {kind.__name__ for kind in type(m).__mro__}]
    return max(layers, default=0), size(model) - sum(layers)
