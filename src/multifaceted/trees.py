"""Preference trees as tokens: a prompt once, then its branches, each continuing the prompt.

The layout is the contract between data (which packs), model (which attends and scores) and training. A row may
hold several trees; positions restart after each prompt, so every branch continues its own prompt, and a token
sees its tree's prompt and its own branch, nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

PADDING = -1
Tokens = NDArray[np.int32]


@dataclass(kw_only=True, slots=True, eq=False)
class TokenTree:
    """One example as token ids. `prompt` begins with BOS; a branch ends with EOS unless it was cut."""

    id: str
    prompt: Tokens
    branches: list[Tokens]
    """The chosen branch first, then the rejected ones."""
    source: str
    dimensions: tuple[str, ...] = ()
    """The dimensions in which chosen and rejected differ."""
    margin: float | None = None

    def __post_init__(self) -> None:
        self.prompt = as_tokens(self.prompt)
        self.branches = [as_tokens(branch) for branch in self.branches]

    def __len__(self) -> int:
        return len(self.prompt) + sum(map(len, self.branches))

    @property
    def paths(self) -> list[TokenTree]:
        """The same example without sharing: a tree for each branch, each with the prompt."""
        return [replace(self, branches=[branch]) for branch in self.branches]


def as_tokens(ids: ArrayLike) -> Tokens:
    """Token ids as an array, which takes a ninth of a list's memory."""
    return np.asarray(ids, dtype=np.int32)


@dataclass(kw_only=True, slots=True)
class TreeRows:
    """Trees laid out in rows of tokens, with the positions to score.

    `source`, `label` and `branch` are the scored triples: the hidden state at flat position `source` predicts
    token `label` of branch `branch`. The first token of every branch is predicted from its prompt's last position.
    """

    input_ids: Tensor
    """[rows, width]"""
    position_ids: Tensor
    """[rows, width]"""
    tree_ids: Tensor
    """[rows, width]; -1 is padding."""
    branch_ids: Tensor
    """[rows, width]; 0 is the prompt, 1.. the tree's branches, -1 padding."""
    source: Tensor
    """[scored], index into the flattened rows."""
    label: Tensor
    """[scored]"""
    branch: Tensor
    """[scored], index into the branches of the batch."""
    prompt: Tensor
    """[branches, 2], flat index of the first token of a branch's prompt, and the prompt's length."""
    first: Tensor
    """[branches], flat index of a branch's first token."""
    num_tokens: Tensor
    """[branches], scored tokens of a branch."""

    def to(self, device: torch.device | str) -> TreeRows:
        """The same rows on another device."""
        return TreeRows(**{f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)})

    @property
    def last(self) -> Tensor:
        """[branches], flat index of a branch's last token."""
        return self.first + self.num_tokens - 1


def lay_out(
    trees: Sequence[TokenTree], rows: Sequence[Sequence[int]] | None = None, *, multiple_of: int = 1
) -> TreeRows:
    """Lay out trees; branches are numbered in the order of `trees`.

    Args:
        rows: indices of the trees of each row; by default one tree a row.
        multiple_of: what the width is rounded up to, for kernels that are compiled for each width.
    """
    rows = rows if rows is not None else [[index] for index in range(len(trees))]
    width = max(sum(len(trees[index]) for index in row) for row in rows)
    width = -(-width // multiple_of) * multiple_of
    num_branches = [len(tree.branches) for tree in trees]
    first_branch = np.cumsum([0, *num_branches])
    flat = np.zeros((4, len(rows) * width), dtype=np.int64)
    flat[2:] = PADDING
    prompt = np.zeros((sum(num_branches), 2), dtype=np.int64)
    first = np.zeros(sum(num_branches), dtype=np.int64)
    for r, row in enumerate(rows):
        cursor = r * width
        for index in row:
            tree, start = trees[index], cursor
            for b, ids in enumerate([tree.prompt, *tree.branches]):
                depth = len(tree.prompt) if b else 0
                span = slice(cursor, cursor + len(ids))
                flat[0, span], flat[1, span] = ids, np.arange(depth, depth + len(ids))
                flat[2, span], flat[3, span] = index, b
                if b:
                    number = first_branch[index] + b - 1
                    prompt[number], first[number] = (start, len(tree.prompt)), cursor
                cursor += len(ids)
    input_ids, position_ids, tree_ids, branch_ids = torch.from_numpy(flat.reshape(4, len(rows), width))
    num_tokens = np.array([len(ids) for tree in trees for ids in tree.branches])
    before_first = prompt.sum(axis=1) - 1
    source = [np.r_[b, f : f + n - 1] for b, f, n in zip(before_first, first, num_tokens, strict=True)]
    return TreeRows(
        input_ids=input_ids,
        position_ids=position_ids,
        tree_ids=tree_ids,
        branch_ids=branch_ids,
        source=torch.from_numpy(np.concatenate(source)),
        label=torch.from_numpy(np.concatenate([ids for tree in trees for ids in tree.branches]).astype(np.int64)),
        branch=torch.from_numpy(np.repeat(np.arange(len(num_tokens)), num_tokens)),
        prompt=torch.from_numpy(prompt),
        first=torch.from_numpy(first),
        num_tokens=torch.from_numpy(num_tokens),
    )
