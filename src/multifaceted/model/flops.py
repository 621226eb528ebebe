"""FLOPs of a decoder-only model on preference trees: products of matrices, exactly; what is elementwise is not counted.

A product of [m, k] and [k, n] is 2 m k n FLOPs. What counts is useful work: `Work` has no padding and each shared
prompt token once, and a layer that is recomputed in the backward pass has computed nothing new.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

from torch import nn
from transformers import PreTrainedModel

from multifaceted.work import Work


@dataclass(frozen=True, kw_only=True, slots=True)
class Flops:
    """What a model computes, in FLOPs of a forward pass.

    Attributes:
        frozen: of a token, by matrices that are not trained, over all layers.
        trained: of a token, by matrices that are.
        pair: of a pair of query and key, over all layers: the product of the two, and its weight times the value.
        head: of a scored position, or of a branch where a reward is read.
        head_is_trained: whether the head's weights are.
        reads_rewards: whether the head is read once a branch.
    """

    frozen: int
    trained: int
    pair: int
    head: int
    head_is_trained: bool
    reads_rewards: bool

    @classmethod
    def of(cls, model: PreTrainedModel) -> Flops:
        """Those of a model whose layers are linear maps and attention, with its adapter; weights are not read.

        Raises:
            ValueError: it has other matrices, such as a mixture of experts, of which a token uses some.
        """
        backbone = cast(nn.Module, model.base_model)
        frozen = trained = known = 0
        for module in backbone.modules():
            if isinstance(module, nn.Linear):
                known += module.weight.numel()
                products = 2 * module.in_features * module.out_features  # a weight in 4 bits has another shape
                frozen, trained = (
                    (frozen, trained + products) if module.weight.requires_grad else (frozen + products, trained)
                )
            elif isinstance(module, nn.Embedding):
                known += module.weight.numel()
        if known != sum(parameter.numel() for parameter in backbone.parameters() if parameter.ndim >= 2):
            raise ValueError(
                f"FLOPs of a {model.config.model_type} model are not known: it has matrices beside linear layers"
            )
        head = getattr(model, "score", None) or model.get_output_embeddings()
        config = model.config
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return cls(
            frozen=frozen,
            trained=trained,
            pair=4 * config.num_attention_heads * head_dim * config.num_hidden_layers,
            head=2 * head.in_features * head.out_features,
            head_is_trained=head.weight.requires_grad,
            reads_rewards=hasattr(model, "score"),
        )

    def forward(self, work: Work) -> int:
        """FLOPs of a forward pass."""
        return self.layers(work) + self.head * self._positions(work)

    def layers(self, work: Work) -> int:
        """FLOPs of a forward pass without the head: what activation checkpointing computes a second time."""
        return (self.frozen + self.trained) * work.tokens + self.pair * work.pairs

    def training(self, work: Work) -> int:
        """FLOPs of a forward and a backward pass.

        The backward pass of a product is two: the gradients of either factor. That of a frozen weight is not needed.
        """
        head = self.head * self._positions(work) * (3 if self.head_is_trained else 2)
        return (2 * self.frozen + 3 * self.trained) * work.tokens + 3 * self.pair * work.pairs + head

    def computed(self, work: Work, *, checkpointing: bool) -> int:
        """FLOPs as they are computed: on padding too, with logits twice forward, and layers if checkpointing."""
        rows = replace(work, tokens=work.laid_out)
        again = self.head * self._positions(work) * (not self.reads_rewards) + self.layers(rows) * checkpointing
        return self.training(rows) + again

    def _positions(self, work: Work) -> int:
        return work.branches if self.reads_rewards else work.scored
