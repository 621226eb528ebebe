"""Low-rank adapters: trained in place of the weights they are added to, and merged into them for the export.

Layers of PEFT replace the linear layers in place; the model's class stays what it is. PEFT is imported where it is
used, because that takes seconds and most runs have no adapter.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Replicate
from transformers import PreTrainedModel

from multifaceted.model.weights import laid_out_like

if TYPE_CHECKING:
    from peft import LoraConfig
    from peft.tuners.lora import LoraLayer

NAME = "default"
"""PEFT's name of a model's only adapter."""


@dataclass(kw_only=True, slots=True)
class Adapter:
    """LoRA: W + alpha / rank B A, of which B and A are trained (Hu et al. 2021, arXiv 2106.09685).

    Attributes:
        rank: columns of B and rows of A.
        dropout: on the input of A.
        target_modules: names of linear layers, such as q_proj; "all-linear" means all but the head.
        dora: train the length of every row of W beside it (DoRA; Liu et al. 2024, arXiv 2402.09353).
        four_bit: keep W in 4 bits (QLoRA; Dettmers et al. 2023, arXiv 2305.14314). Needs an NVIDIA GPU.
        start: an adapter to continue: a run folder with `adapter/`, or an adapter folder.
    """

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    target_modules: list[str] | Literal["all-linear"] = "all-linear"
    dora: bool = False
    four_bit: bool = False
    start: str | None = None

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha < 1 or not 0 <= self.dropout < 1:
            raise ValueError(
                f"rank={self.rank} and alpha={self.alpha} must be at least 1, and dropout={self.dropout} in [0, 1)"
            )

    def check_device(self, device_type: str) -> None:
        """Refuse 4-bit weights where they cannot be computed with.

        Raises:
            ValueError: says what is missing.
        """
        if not self.four_bit:
            return
        if device_type != "cuda":
            # Evaluating on some CPUs, bitsandbytes 0.50 packs the weights anew; what a merge then reads is noise.
            raise ValueError(
                f"adapter.four_bit=true needs an NVIDIA GPU, and this run is on {device_type}; set trainer=gpu on a"
                " machine with one, or adapter=lora"
            )
        if importlib.util.find_spec("bitsandbytes") is None:
            raise ValueError(
                "adapter.four_bit=true needs bitsandbytes, which is not installed: pip install --editable '.[qlora]'"
            )

    def inject(self, model: PreTrainedModel) -> None:
        """Put the adapter, in fp32, into the linear layers, and freeze all else but a reward head.

        It has no weights before `initialise_adapter` or `read_adapter`: the model may be empty, to be sharded first.

        Raises:
            ValueError: the model has no layer of a name in `target_modules`.
        """
        from peft import inject_adapter_in_model
        from peft.tuners.tuners_utils import cast_adapter_dtype

        inject_adapter_in_model(self._peft_config(model), model, NAME)
        cast_adapter_dtype(model, NAME)
        head = getattr(model, "score", None)
        if head is not None:
            head.requires_grad_(True)

    def _peft_config(self, model: PreTrainedModel) -> LoraConfig:
        from peft import LoraConfig

        return LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=self._targets(model),
            use_dora=self.dora,
        )

    def _targets(self, model: PreTrainedModel) -> list[str]:
        backbone = cast(nn.Module, model.base_model)
        linear = [name for name, module in backbone.named_modules() if isinstance(module, nn.Linear)]
        known = sorted({name.rpartition(".")[2] for name in linear})
        if self.target_modules == "all-linear":
            return known
        unknown = sorted({*self.target_modules} - {*known})
        if unknown or not self.target_modules:
            raise ValueError(
                f"adapter.target_modules={self.target_modules}: {type(model).__name__} has no linear layer"
                f" {' or '.join(unknown) or 'of no name'}; it has {', '.join(known)}"
            )
        return list(self.target_modules)


@torch.no_grad()
def initialise_adapter(model: nn.Module, seed: int) -> None:
    """Give a new adapter its first weights, alike in every layout of the model; the model's outputs stay as they are.

    A is uniform as in PEFT and B zero; DoRA's lengths are those of the rows of W.
    """
    generator = torch.Generator().manual_seed(seed)
    for _, layer in adapted_layers(model):
        down = layer.lora_A[NAME].weight
        bound = down.shape[1] ** -0.5
        down.copy_(laid_out_like(down, torch.empty(down.shape).uniform_(-bound, bound, generator=generator)))
        layer.lora_B[NAME].weight.zero_()
        if NAME in layer.lora_magnitude_vector:
            layer.lora_magnitude_vector[NAME].weight.copy_(_base_weight(layer).norm(dim=1))


@torch.no_grad()
def merge_adapter(model: PreTrainedModel) -> None:
    """Add the adapter to the weights, layer by layer, each rank to its rows, and leave an ordinary model.

    A base in 4 bits becomes one in the type that its other weights have.
    """
    if getattr(model, "hf_quantizer", None) is not None:
        cast(Any, model).dequantize()
    for name, layer in list(adapted_layers(model)):
        layer.get_base_layer().weight.copy_(merged_weight(layer))
        model.set_submodule(name, layer.get_base_layer())
    del model.peft_config


def merged_weight(layer: LoraLayer) -> Tensor:
    """The weight that does what base and adapter do together, [out, in], in fp32.

    W + s B A (Hu et al. 2021, equation 3); DoRA gives every row its learned length (Liu et al. 2024, equation 5).
    """
    down, up = layer.lora_A[NAME].weight, layer.lora_B[NAME].weight
    if isinstance(down, DTensor):  # sharded by rows: those of A are few, and every row of B needs all of them
        down = down.redistribute(placements=[Replicate()])
    merged: Tensor = _base_weight(layer) + layer.scaling[NAME] * (up.float() @ down.float())
    if NAME in layer.lora_magnitude_vector:
        merged *= (layer.lora_magnitude_vector[NAME].weight / merged.norm(dim=1))[:, None]
    return merged


def adapted_layers(model: nn.Module) -> Iterator[tuple[str, LoraLayer]]:
    """The layers that an adapter was put into, by name."""
    from peft.tuners.lora import LoraLayer

    return ((name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer))


def _base_weight(layer: LoraLayer) -> Tensor:
    from peft.utils.integrations import dequantize_module_weight

    return cast(Tensor, dequantize_module_weight(layer.get_base_layer())).float()
