"""Preference trees as tokens: a prompt once, then its branches, each continuing the prompt.

The layout is the contract between data (which packs), model (which attends and scores) and training. A row may
hold several trees; positions restart after each prompt, so every branch continues its own prompt, and a token
sees its tree's prompt and its own branch, nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

PADDING = -1


@dataclass(kw_only=True, slots=True)
class TokenTree:
    """One example as token ids. `prompt` begins with BOS; a branch ends with EOS unless it was cut."""

    id: str
    prompt: list[int]
    branches: list[list[int]]
    """The chosen branch first, then the rejected ones."""
    source: str
    dimensions: tuple[str, ...] = ()
    """The dimensions in which chosen and rejected differ."""
    margin: float | None = None

    def __len__(self) -> int:
        return len(self.prompt) + sum(map(len, self.branches))


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
    last: Tensor
    """[branches], flat index of a branch's last token."""
    num_tokens: Tensor
    """[branches], scored tokens of a branch."""

    def to(self, device: torch.device | str) -> TreeRows:
        """The same rows on another device."""
        return TreeRows(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    @property
    def useful_tokens(self) -> int:
        """Tokens that are not padding."""
        return int((self.tree_ids != PADDING).sum())


def lay_out(trees: Sequence[TokenTree], rows: Sequence[Sequence[int]] | None = None) -> TreeRows:
    """Lay out trees; branches are numbered in the order of `trees`.

    Args:
        rows: indices of the trees of each row; by default one tree a row.
    """
    rows = rows if rows is not None else [[index] for index in range(len(trees))]
    width = max(sum(len(trees[index]) for index in row) for row in rows)
    first_branch = [0]
    for tree in trees:
        first_branch.append(first_branch[-1] + len(tree.branches))
    num_branches = first_branch[-1]

    input_ids = torch.zeros(len(rows), width, dtype=torch.long)
    position_ids = torch.zeros_like(input_ids)
    tree_ids = torch.full_like(input_ids, PADDING)
    branch_ids = torch.full_like(input_ids, PADDING)
    source: list[int] = []
    label: list[int] = []
    branch: list[int] = []
    last = [0] * num_branches
    for r, row in enumerate(rows):
        cursor = 0
        for index in row:
            tree = trees[index]
            start, prompt = cursor, len(tree.prompt)
            tokens, positions, members = list(tree.prompt), list(range(prompt)), [0] * prompt
            for b, ids in enumerate(tree.branches):
                begin = r * width + start + len(tokens)
                source += [r * width + start + prompt - 1, *range(begin, begin + len(ids) - 1)]
                label += ids
                branch += [first_branch[index] + b] * len(ids)
                last[first_branch[index] + b] = begin + len(ids) - 1
                tokens += ids
                positions += range(prompt, prompt + len(ids))
                members += [b + 1] * len(ids)
            cursor += len(tokens)
            span = slice(start, cursor)
            input_ids[r, span] = torch.tensor(tokens)
            position_ids[r, span] = torch.tensor(positions)
            tree_ids[r, span] = index
            branch_ids[r, span] = torch.tensor(members)
    return TreeRows(
        input_ids=input_ids,
        position_ids=position_ids,
        tree_ids=tree_ids,
        branch_ids=branch_ids,
        source=torch.tensor(source),
        label=torch.tensor(label),
        branch=torch.tensor(branch),
        last=torch.tensor(last),
        num_tokens=torch.tensor([len(ids) for tree in trees for ids in tree.branches]),
    )


def balanced_rows(lengths: Sequence[int], num_rows: int) -> list[list[int]]:
    """Deal trees to rows, the longest first, each to the shortest row so far (Graham 1969): little padding is left."""
    rows: list[list[int]] = [[] for _ in range(min(num_rows, len(lengths)))]
    filled = [0] * len(rows)
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        row = filled.index(min(filled))
        rows[row].append(index)
        filled[row] += lengths[index]
    return rows


def tree_mask(tree_ids: Tensor, branch_ids: Tensor) -> Tensor:
    """Which position may attend to which: [rows, 1, width, width], true where the query (dim 2) sees the key (dim 3).

    Padding sees itself alone, so that its softmax stays finite; nothing else sees padding.
    """
    width = tree_ids.shape[1]
    same_tree = tree_ids[:, :, None] == tree_ids[:, None, :]
    on_path = (branch_ids[:, None, :] == 0) | (branch_ids[:, None, :] == branch_ids[:, :, None])
    earlier = torch.ones(width, width, dtype=torch.bool, device=tree_ids.device).tril()
    is_real = (tree_ids != PADDING)[:, :, None]
    itself = torch.eye(width, dtype=torch.bool, device=tree_ids.device)
    return ((same_tree & on_path & earlier & is_real) | itself)[:, None]
