"""The length of a context, wherever a config has it."""

import pytest
from transformers import BloomConfig, Gemma3Config, GPT2Config, LlamaConfig, XLNetConfig

from multifaceted.model.context import context_length


@pytest.mark.parametrize(
    ("config", "length"),
    [
        (LlamaConfig(max_position_embeddings=77), 77),
        (GPT2Config(n_positions=77), 77),
        (Gemma3Config(text_config={"max_position_embeddings": 77}), 77),
        (BloomConfig(), None),
        (XLNetConfig(), None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_config_says_it_under_several_names_or_not_at_all(config, length):
    assert context_length(config) == length
