"""Attention over preference trees, plugged into unmodified Hugging Face models through their attention interface.

On a GPU, FlexAttention skips the blocks that a tree's mask leaves empty. On a CPU, whose kernels take a dense mask only
and would compute all of it, each path of prompt and branch is a causal sequence of its own, as it would be unpacked:
attention over a shared prompt is computed once a branch, everything else of it once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedConfig

from multifaceted.model.context import context_length
from multifaceted.trees import PADDING, TreeRows

TREE_ATTENTION = "multifaceted_tree"
SHORTEST = 0.9
"""Paths of at least this share of the longest are computed together, padded to it."""


@dataclass(frozen=True, slots=True)
class Paths:
    """The paths of a batch, in groups of similar length.

    Attributes:
        groups: each [paths, longest], flat positions; a path shorter than the longest is filled up with its last one.
        owner: [rows * width], where in the groups, one after the other and flattened, a position's result stands.
    """

    groups: list[Tensor]
    owner: Tensor

    @classmethod
    def of(cls, rows: TreeRows) -> Paths:
        """The paths of laid out trees."""
        lengths = rows.prompt[:, 1] + rows.num_tokens
        groups: list[Tensor] = []
        order = lengths.argsort(descending=True, stable=True)
        while len(order):
            longest = lengths[order[0]]
            size = int((lengths[order] >= SHORTEST * longest).sum())
            members, order = order[:size], order[size:]
            depth = torch.arange(int(longest), device=lengths.device).minimum(lengths[members, None] - 1)
            start, prompt = rows.prompt[members, :1], rows.prompt[members, 1:]
            group = torch.where(depth < prompt, start + depth, rows.first[members, None] + depth - prompt)
            groups.append(group)
        everywhere = torch.cat([group.flatten() for group in groups])
        places = torch.arange(len(everywhere), device=everywhere.device)
        owner = torch.zeros(rows.input_ids.numel(), dtype=torch.long, device=everywhere.device)
        # Of the paths that share a prompt, the first owns its results, whatever the order of writing.
        owner.scatter_reduce_(0, everywhere, places, "amin", include_self=False)
        return cls(groups, owner)


TreeMask = Paths | BlockMask


def tree_mask(rows: TreeRows) -> TreeMask:
    """What tells attention which position sees which, in the form that suits the device."""
    return block_mask(rows) if rows.input_ids.is_cuda else Paths.of(rows)


def block_mask(rows: TreeRows) -> BlockMask:
    """The mask for FlexAttention; padding sees itself alone, so that its softmax stays finite."""
    tree_ids, branch_ids = rows.tree_ids, rows.branch_ids

    def sees(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        branch = branch_ids[row, key]
        on_path = (branch == 0) | (branch == branch_ids[row, query])
        same_tree = (tree_ids[row, query] == tree_ids[row, key]) & (tree_ids[row, key] != PADDING)
        return ((query > key) & same_tree & on_path) | (query == key)

    num_rows, width = tree_ids.shape
    return create_block_mask(sees, num_rows, None, width, width, device=tree_ids.device, _compile=tree_ids.is_cuda)


WIDTHS = 64
"""How many forms of the kernel are kept: eight widths each in training, validation and without gradients; and some."""


@cache
def _compiled_flex_attention() -> Any:
    # Beyond its limit torch would compute all scores instead, without a word.
    torch._dynamo.config.recompile_limit = max(WIDTHS, torch._dynamo.config.recompile_limit)
    return torch.compile(flex_attention, dynamic=False)


def tree_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    tree_mask: TreeMask | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Scaled dot-product attention under a tree mask.

    Args:
        query: [rows, heads, width, head_dim]; key and value may have fewer heads (grouped queries).
        attention_mask: ignored; the tree mask is complete.

    Returns:
        The attended values, [rows, width, heads, head_dim], and no weights.
    """
    if isinstance(tree_mask, Paths):
        return _attention_over_paths(query, key, value, tree_mask, scaling), None
    if tree_mask is None:
        raise ValueError("tree attention was called without tree_mask; score branches through model.score")
    attend = _compiled_flex_attention() if query.is_cuda else flex_attention
    attended = attend(query, key, value, block_mask=tree_mask, scale=scaling, enable_gqa=True)
    return cast(Tensor, attended).transpose(1, 2).contiguous(), None


@torch.compiler.disable  # a graph for each number of groups would be compiled
def _attention_over_paths(query: Tensor, key: Tensor, value: Tensor, paths: Paths, scaling: float | None) -> Tensor:
    rows, _, width, _ = query.shape
    flat = [tensor.transpose(0, 1).flatten(1, 2) for tensor in (query, key, value)]  # [heads, rows * width, head_dim]
    results = []
    for group in paths.groups:
        q, k, v = (t[:, group].transpose(0, 1) for t in flat)  # [paths, heads, longest, head_dim]
        attended = scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=True)
        results.append(attended.transpose(1, 2).flatten(0, 1))  # [paths * longest, heads, head_dim]
    return torch.cat(results)[paths.owner].view(rows, width, *query.shape[1::2])


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
    dropout = getattr(config, "attention_dropout", 0.0)
    if dropout:
        raise ValueError(
            f"this {name} drops attention weights (attention_dropout={dropout}); set it to 0 in its config"
        )
    positions = context_length(config)
    if positions is not None and positions < max_length:
        raise ValueError(
            f"this {name} has {positions} positions, fewer than data.max_length={max_length}; set"
            f" data.max_length={positions} or less, or choose another model=... with more"
        )
