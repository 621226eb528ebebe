"""Scores of branches: summed log-probabilities under the language-model head, or rewards."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import PreTrainedModel

from multifaceted.model.attention import tree_mask
from multifaceted.model.vocabulary import Projection, label_logps
from multifaceted.trees import TreeRows


def hidden_states(model: PreTrainedModel, rows: TreeRows) -> Tensor:
    """Last hidden states of all positions, [rows * width, hidden]."""
    backbone = cast(nn.Module, model.base_model)
    output = backbone(
        input_ids=rows.input_ids,
        position_ids=rows.position_ids,
        tree_mask=tree_mask(rows),
        use_cache=False,
    )
    return cast(Tensor, output.last_hidden_state).flatten(0, 1)


def token_logps(model: PreTrainedModel, rows: TreeRows, projection: Projection = Projection.CHUNKED) -> Tensor:
    """Log-probability of every scored token, [scored], in fp32. Only scored positions are projected."""
    head = cast(nn.Linear, model.get_output_embeddings())
    scored = hidden_states(model, rows)[rows.source]
    return label_logps(scored, head.weight, head.bias, rows.label, projection=projection)


def branch_logps(model: PreTrainedModel, rows: TreeRows, projection: Projection = Projection.CHUNKED) -> Tensor:
    """Log-probability of every branch given its prompt, summed over its tokens, [branches], in fp32."""
    logps = token_logps(model, rows, projection)
    return logps.new_zeros(rows.first.shape[0]).index_add(0, rows.branch, logps)


def branch_rewards(model: PreTrainedModel, rows: TreeRows) -> Tensor:
    """Reward of every branch, read at its last token, [branches], in fp32."""
    head = cast(nn.Linear, model.score)
    return linear(hidden_states(model, rows)[rows.last], head.weight).float()[:, 0]


class Scorer(nn.Module):
    """Scores of branches as one module: what sharding wraps, so that its hooks run around the head as well.

    Attributes:
        reward: whether a branch's score is its reward, read from a scalar head, or its log-probability.
        projection: what computes log-probabilities from hidden states.
    """

    def __init__(self, model: PreTrainedModel, *, reward: bool, projection: Projection = Projection.CHUNKED) -> None:
        super().__init__()
        self.model = model
        self.reward = reward
        self.projection = projection

    def forward(self, rows: TreeRows) -> Tensor:
        """Score every branch, [branches], in fp32."""
        if self.reward:
            return branch_rewards(self.model, rows)
        return branch_logps(self.model, rows, self.projection)
