"""What a run starts from: a model, whole or sharded, and an adapter on it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from multifaceted.model.adapter import initialise_adapter
from multifaceted.model.adapter_files import Base, read_adapter, resolve_adapter
from multifaceted.model.build import Dtype, ModelSource, PretrainedModel, decoder_layers
from multifaceted.model.folder import resolve_start
from multifaceted.model.score import Scorer
from multifaceted.training.config import TrainConfig
from multifaceted.training.folder import require_space
from multifaceted.training.module import stream_seed
from multifaceted.training.ranks import Ranks

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """Where the weights come from.

    Attributes:
        base: what the adapter is added to; None where there is no adapter.
        adapter: the folder of the adapter to continue; None where a new one is trained, or none at all.
    """

    source: ModelSource
    base: Base | None = None
    adapter: Path | None = None

    @classmethod
    def of(cls, config: TrainConfig, ranks: Ranks) -> Start:
        """The start that a config means: its `start` wins over its `model`.

        Raises:
            ValueError: there is no model, or no adapter that belongs to it.
        """
        source = source_of(config)
        if config.adapter is None:
            return cls(source=source)
        config.adapter.check_device(ranks.device_type)
        base = ranks.from_first(source.base)
        return cls(source=source, base=base, adapter=resolve_adapter(config.adapter, base))


def source_of(config: TrainConfig) -> ModelSource:
    """The model that a config starts from.

    Raises:
        ValueError: `start` names none.
    """
    if config.start is None:
        return config.model
    return PretrainedModel(name=resolve_start(config.start), dtype=getattr(config.model, "dtype", Dtype.FLOAT32))


def load_scorer(
    config: TrainConfig, start: Start, tokenizer: PreTrainedTokenizerBase, folder: Path, ranks: Ranks
) -> Scorer:
    """The model to train with its adapter, laid out over the ranks."""
    torch.manual_seed(stream_seed(config.seed, "weights"))
    model = start.source.load_model(
        tokenizer,
        reward=config.has_reward_head,
        max_length=config.data.max_length,
        empty=config.strategy.shards,
        four_bit=config.adapter is not None and config.adapter.four_bit,
    )
    if config.adapter is not None:
        config.adapter.inject(model)
    if config.activation_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if config.compile:
        for layer in decoder_layers(model):  # after checkpointing and before sharding, and in place: names stay
            layer.compile()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    checkpoint = sum(p.numel() * p.element_size() for p in trained) + config.optimizer.state_bytes(model)
    exported = model.num_parameters() * model.dtype.itemsize
    require_space(folder, num_bytes=round(checkpoint) * (config.checkpoint.keep + 2) + exported)
    if ranks.is_first:
        adapted = f", {sum(p.numel() for p in trained) / 1e6:.2f} M of them trained" if config.adapter else ""
        log.info("%.1f M parameters%s", model.num_parameters() / 1e6, adapted)
    scorer = Scorer(model, reward=config.has_reward_head, projection=config.projection)
    config.strategy.lay_out(scorer, ranks, config.precision)
    if config.strategy.shards:
        start.source.fill(scorer.model)
    if start.adapter is not None:
        read_adapter(scorer.model, start.adapter)
    elif config.adapter is not None:
        initialise_adapter(scorer.model, stream_seed(config.seed, "adapter"))
    return scorer
