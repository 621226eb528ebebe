"""Log-probabilities of labels under the vocabulary projection, a slice of the vocabulary at a time.

All logits of a pass together are its largest tensor, and nothing needs them together: the forward pass keeps a running
logsumexp, and the backward pass computes each slice again. Slices are of the vocabulary and not of the positions,
because then every row of the weight's gradient is one product over all positions: nothing is accumulated in the
weight's shape, where the weight is many times larger than the hidden states.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from enum import StrEnum
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

LOGITS_BYTES = {"cpu": 2**24, "cuda": 2**27}
"""Bytes of a slice's logits in fp32: they stay in a CPU's cache, and fill a GPU."""

ALIGNED = 128
"""Slices are multiples of this: tensor cores want rows that begin at multiples of 16 bytes."""


class Projection(StrEnum):
    """What computes the log-probabilities.

    Attributes:
        CHUNKED: this module, on any device.
        LIGER: Liger's Triton kernel, on NVIDIA GPUs. It keeps logits and their gradient in the type of the weights.
    """

    CHUNKED = "chunked"
    LIGER = "liger"

    def check_device(self, device_type: str) -> None:
        """Refuse a kernel where it cannot run.

        Raises:
            ValueError: says what is missing.
        """
        if self is not Projection.LIGER:
            return
        if device_type != "cuda":
            raise ValueError(
                f"projection=liger needs an NVIDIA GPU, and this run is on {device_type}; set trainer=gpu on a machine"
                " with one, or projection=chunked"
            )
        if importlib.util.find_spec("liger_kernel") is None:
            raise ValueError(
                "projection=liger needs liger-kernel, which is not installed: pip install --editable '.[liger]', or"
                " set projection=chunked"
            )


def label_logps(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    *,
    projection: Projection = Projection.CHUNKED,
    chunk: int | None = None,
) -> Tensor:
    """Log-probability of each position's label: log softmax(hidden @ weight.T + bias) at the label.

    Products are of the weight's type, or of autocast's inside it. CUDA accumulates them in fp32 and hands logits over
    in fp32; a CPU rounds those of bf16 once. The softmax, the sum of the hidden states' gradient over slices and the
    bias's gradient are in fp32; the logits' gradient is rounded to the products' type, which its own products need.

    Args:
        hidden: [scored, hidden_dim]
        weight: [vocab, hidden_dim], whole on this device.
        bias: [vocab]
        labels: [scored], in [0, vocab).
        chunk: entries of the vocabulary in a slice; by default as many as make `LOGITS_BYTES`.

    Returns:
        [scored], in fp32; NaN where a label is outside the vocabulary. Differentiable once.

    Raises:
        ValueError: Liger's kernel cannot run here.
    """
    if projection is Projection.LIGER and len(labels):
        return _liger_logps(hidden, weight, bias, labels)
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
    if chunk is None:
        affordable = LOGITS_BYTES[device] // (4 * max(1, len(labels)))
        chunk = max(ALIGNED, affordable - affordable % ALIGNED)
    return cast(Tensor, _LabelLogps.apply(hidden, weight, bias, labels, dtype, chunk))  # type: ignore[no-untyped-call]


def _liger_logps(hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor) -> Tensor:
    """The same from Liger, which adds up the weight's gradient in fp32 and also computes logits twice."""
    Projection.LIGER.check_device(hidden.device.type)
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    loss = LigerFusedLinearCrossEntropyLoss(reduction="none", accum_dtype=torch.float32)
    return -cast(Tensor, loss(weight, hidden, labels, bias))


class _LabelLogps(torch.autograd.Function):
    """Keeps its inputs and one number a position between the passes."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, dtype: torch.dtype, chunk: int
    ) -> Tensor:
        logsumexp = torch.full_like(labels, -torch.inf, dtype=torch.float32)
        picked = torch.full_like(logsumexp, torch.nan)
        with torch.autocast(hidden.device.type, enabled=False):
            for span, _, logits in _slices(hidden.to(dtype), weight, bias, chunk):
                entry, is_inside = _entry(labels, span)
                picked = torch.where(is_inside, logits.gather(1, entry)[:, 0], picked)
                top = logits.amax(1)
                of_slice = logits.sub_(top[:, None]).exp_().sum(1).log_().add_(top)
                logsumexp = torch.logaddexp(logsumexp, of_slice)
        ctx.save_for_backward(hidden, weight, bias, labels, logsumexp)
        ctx.dtype, ctx.chunk = dtype, chunk
        return picked - logsumexp

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, labels, logsumexp = ctx.saved_tensors
        needs_hidden, needs_weight, needs_bias, *_ = ctx.needs_input_grad
        grad_hidden = torch.zeros_like(hidden, dtype=torch.float32) if needs_hidden else None
        grad_weight = torch.empty_like(weight) if needs_weight else None
        grad_bias = torch.empty_like(bias) if needs_bias else None
        product = torch.empty_like(hidden, dtype=torch.float32)
        with torch.autocast(hidden.device.type, enabled=False):
            features = hidden.to(ctx.dtype)
            # Positions are weighted here and at the end, where rows are short, and not in the logits.
            weighted = (hidden * -grad[:, None]).to(ctx.dtype)
            for span, rows, logits in _slices(features, weight, bias, ctx.chunk):
                entry, is_inside = _entry(labels, span)
                softmax = logits.sub_(logsumexp[:, None]).exp_()
                excess = softmax.scatter_add_(1, entry, -is_inside[:, None].float())
                if grad_bias is not None:
                    grad_bias[span] = excess.T @ -grad
                excess = excess.to(ctx.dtype)
                if grad_hidden is not None:
                    grad_hidden += _product(excess, rows, product)
                if grad_weight is not None:
                    _product(excess.T, weighted, grad_weight[span])
        if grad_hidden is not None:
            grad_hidden = grad_hidden.mul_(-grad[:, None]).to(hidden.dtype)
        return grad_hidden, grad_weight, grad_bias, None, None, None


def _slices(hidden: Tensor, weight: Tensor, bias: Tensor | None, chunk: int) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Slices of the vocabulary, the weight's rows there in the type of `hidden`, and the logits in fp32.

    All logits share one buffer, which the caller may overwrite.
    """
    vocab = weight.shape[0]
    buffer = hidden.new_empty(hidden.shape[0] * min(chunk, vocab), dtype=torch.float32)
    for first in range(0, vocab, chunk):
        span = slice(first, min(first + chunk, vocab))
        rows = weight[span].to(hidden.dtype)
        size = (hidden.shape[0], rows.shape[0])
        logits = _product(hidden, rows.T, buffer[: size[0] * size[1]].view(size))
        if bias is not None:
            logits += bias[span]
        yield span, rows, logits


def _entry(labels: Tensor, span: slice) -> tuple[Tensor, Tensor]:
    """Where in a slice each label is, [scored, 1], and whether it is there, [scored]; without waiting for a GPU."""
    is_inside = (labels >= span.start) & (labels < span.stop)
    return (labels - span.start).clamp(0, span.stop - span.start - 1)[:, None], is_inside


def _product(left: Tensor, right: Tensor, out: Tensor) -> Tensor:
    """Write left @ right into `out`, which is of their type or of fp32."""
    if left.dtype == out.dtype:
        return torch.mm(left, right, out=out)
    if left.is_cuda and out.dtype == torch.float32:
        return torch.mm(left, right, out_dtype=torch.float32, out=out)
    return out.copy_(torch.mm(left, right))
