"""Memory of activations, found out: layers run forward and backward on fake tensors, and what is alive is added up.

Fake tensors have shapes and types but no data, so a layer of any size takes milliseconds.
"""

from __future__ import annotations

import copy
import weakref
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from transformers import AttentionInterface, PreTrainedModel

from multifaceted.model.adapter import Adapter

FUSED = "multifaceted_fused"
"""Attention that allocates what a fused kernel does, and computes nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pass:
    """How layers run.

    Attributes:
        tokens: of the row.
        cast_to: type that all weights are cast to; None leaves each as it is.
        autocast: type of the products under autocast; None without it.
        checkpointing: keep a layer's input alone, and compute the layer again in the backward pass.
    """

    tokens: int
    cast_to: torch.dtype | None = None
    autocast: torch.dtype | None = None
    checkpointing: bool = False
    adapter: Adapter | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """Bytes that a pass allocates: kept from its forward for its backward pass, and at its peak.

    Attributes:
        casts: of the peak, autocast's copies of weights.
    """

    kept: int
    peak: int
    casts: int


def usage(model: PreTrainedModel, how: Pass) -> Usage:
    """What all layers of a model use when they run eagerly; compiled ones keep less. Only its config and type are read.

    Each layer adds as much as the one before it, so two models of few layers tell.
    """
    key = (type(model).__name__, str(model.dtype), model.config.to_json_string(), repr(how))
    if key not in _KNOWN:
        _KNOWN[key] = _extended(model, how)
    return _KNOWN[key]


_KNOWN: dict[tuple[str, ...], Usage] = {}
"""Of a search for settings, most steps change none of these."""


def _extended(model: PreTrainedModel, how: Pass) -> Usage:
    two, three = (usage_of_layers(model, how, num_layers) for num_layers in (2, 3))
    others = model.config.num_hidden_layers - 2
    return Usage(
        kept=two.kept + others * (three.kept - two.kept),
        peak=two.peak + others * (three.peak - two.peak),
        casts=two.casts + others * (three.casts - two.casts),
    )


def usage_of_layers(model: PreTrainedModel, how: Pass, num_layers: int) -> Usage:
    """What a model of so many layers uses."""
    backbone = _backbone(model, how, num_layers)
    with FakeTensorMode():
        _materialise(backbone, how.cast_to)
        ids = torch.zeros(1, how.tokens, dtype=torch.long)
        autocast = torch.autocast(
            "cpu", how.autocast or torch.bfloat16, enabled=how.autocast is not None, cache_enabled=False
        )
        with Alive(backbone) as alive, autocast:
            hidden = backbone(input_ids=ids, position_ids=ids, use_cache=False).last_hidden_state
            kept = sum(alive.now)
            hidden.backward(torch.empty_like(hidden))
    return Usage(kept=kept, peak=sum(alive.peak), casts=alive.peak[1])


def _backbone(model: PreTrainedModel, how: Pass, num_layers: int) -> PreTrainedModel:
    """Layers as they train, on the meta device."""
    config = copy.deepcopy(model.config)
    config.num_hidden_layers = num_layers
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:num_layers]
    kind: Any = type(model.base_model)
    with torch.device("meta"):
        backbone = cast(PreTrainedModel, kind._from_config(config, dtype=model.dtype, attn_implementation=FUSED))
    if how.adapter is not None:
        how.adapter.inject(backbone)
    if how.checkpointing:
        backbone.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return backbone.train()


def _materialise(module: nn.Module, cast_to: torch.dtype | None) -> None:
    """Give a module on the meta device fake weights and gradients, in place."""
    for part in module.modules():
        for name, weight in part.named_parameters(recurse=False):
            fake = nn.Parameter(torch.empty(weight.shape, dtype=cast_to or weight.dtype), weight.requires_grad)
            fake.grad = torch.empty_like(fake) if weight.requires_grad else None
            setattr(part, name, fake)
        for name, buffer in part.named_buffers(recurse=False):
            setattr(part, name, torch.empty(buffer.shape, dtype=buffer.dtype))


class Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the storages that operations make, from their birth to their death; a module's own are not counted.

    Attributes:
        peak: the most bytes at once, those that are casts of the module's weights apart: (activations, casts).
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        tensors = [
            *module.parameters(),
            *module.buffers(),
            *(p.grad for p in module.parameters() if p.grad is not None),
        ]
        self._own = [tensor.untyped_storage() for tensor in tensors]
        self._weights = {id(storage) for storage in self._own}
        self._known: dict[int, Any] = dict.fromkeys(self._weights)
        self._now = [0, 0]
        self.peak = (0, 0)

    @property
    def now(self) -> tuple[int, int]:
        """The bytes at this moment, as in `peak`."""
        return self._now[0], self._now[1]

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        is_cast = function is torch.ops.aten._to_copy.default and id(args[0].untyped_storage()) in self._weights
        for tensor in tree_iter(result):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage(), int(is_cast))
        if sum(self._now) > sum(self.peak):
            self.peak = self.now
        return result

    def _add(self, storage: torch.UntypedStorage, kind: int) -> None:
        if id(storage) not in self._known:
            key, size = id(storage), storage.nbytes()
            self._now[kind] += size
            self._known[key] = weakref.ref(storage, lambda _: self._remove(key, kind, size))

    def _remove(self, key: int, kind: int, size: int) -> None:
        del self._known[key]
        self._now[kind] -= size


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        attended = torch.empty_like(query)
        context.save_for_backward(query, key, value, attended, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return attended

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Any:
        return tuple(torch.empty_like(tensor) for tensor in context.saved_tensors[:3])


def _fused_attention(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Any:
    inputs = [query, key, value]
    if torch.is_autocast_enabled("cpu"):
        inputs = [tensor.to(torch.get_autocast_dtype("cpu")) for tensor in inputs]
    attended = cast(Tensor, _Fused.apply(*inputs))  # type: ignore[no-untyped-call]
    return attended.transpose(1, 2).contiguous(), None


AttentionInterface.register(FUSED, _fused_attention)
