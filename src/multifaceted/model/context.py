"""How much a model reads."""

from __future__ import annotations

from transformers import PreTrainedConfig


def context_length(config: PreTrainedConfig) -> int | None:
    """The most tokens of a prompt with its answer; None where the config does not say, or says that there is no limit.

    A model that also sees, or hears, has it in the part of its config that is about text.
    """
    stated = getattr(config.get_text_config(), "max_position_embeddings", None)
    return stated if isinstance(stated, int) and stated > 0 else None
