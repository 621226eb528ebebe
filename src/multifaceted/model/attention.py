"""Attention over preference trees, plugged into unmodified Hugging Face models through their attention interface."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedConfig

TREE_ATTENTION = "multifaceted_tree"


def tree_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    tree_mask: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Scaled dot-product attention under a tree mask.

    Args:
        query: [rows, heads, width, head_dim]; key and value may have fewer heads (grouped queries).
        attention_mask: ignored; the tree mask is complete.
        tree_mask: [rows, 1, width, width], true where a position may attend.

    Returns:
        The attended values, [rows, width, heads, head_dim], and no weights.
    """
    if tree_mask is None:
        raise ValueError("tree attention was called without tree_mask; score branches through model.score")
    attended = scaled_dot_product_attention(
        query, key, value, attn_mask=tree_mask, dropout_p=dropout, scale=scaling, enable_gqa=True
    )
    return attended.transpose(1, 2).contiguous(), None


AttentionInterface.register(TREE_ATTENTION, tree_attention)


def refuse_unservable(config: PreTrainedConfig, max_length: int) -> None:
    """Refuse a model whose attention cannot serve trees of paths up to `max_length` tokens.

    Raises:
        ValueError: a sliding window shorter than the longest path, ALiBi, recurrence, too short a context.
    """
    name = f"{config.model_type} model"
    window = getattr(config, "sliding_window", None)
    uses_window = getattr(config, "use_sliding_window", True)
    if uses_window and window is not None and window < max_length:
        raise ValueError(
            f"this {name} attends through a sliding window of {window} tokens, shorter than"
            f" data.max_length={max_length}; lower data.max_length to {window} or choose a model without one"
        )
    if getattr(config, "alibi", False) or config.model_type in {"bloom", "mpt"}:
        raise ValueError(
            f"this {name} uses ALiBi, whose distances do not follow a tree's positions; it is not supported"
        )
    for name_of_cap in ("attn_logit_softcapping", "final_logit_softcapping", "logit_scale", "logits_scaling"):
        if getattr(config, name_of_cap, None) not in (None, 1, 1.0):
            raise ValueError(
                f"this {name} changes its logits ({name_of_cap}), which scoring does not; it is not supported"
            )
    recurrent = {"mamba", "mamba2", "falcon_mamba", "rwkv", "recurrent_gemma", "jamba", "xlstm", "zamba", "zamba2"}
    layers = set(getattr(config, "layer_types", None) or ())
    if config.model_type in recurrent or any("linear" in kind or "recurrent" in kind for kind in layers):
        raise ValueError(
            f"this {name} is recurrent: branches of a tree would leak into each other; it is not supported"
        )
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and positions < max_length:
        raise ValueError(f"this {name} has {positions} positions, fewer than data.max_length={max_length}")
