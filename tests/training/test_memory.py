"""Memory by part, without allocating it."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from multifaceted.model.adapter import Adapter
from multifaceted.model.attention import TREE_ATTENTION
from multifaceted.model.score import hidden_states
from multifaceted.training.activations import Pass, usage, usage_of_layers
from multifaceted.trees import TokenTree, lay_out

WIDTH = 256
SHAPES = {
    "mistral": {"sliding_window": None},
    "qwen3": {"head_dim": 16},
}


def model_of(architecture="mistral", num_layers=4):
    shape = dict(vocab_size=64, hidden_size=64, intermediate_size=160, num_attention_heads=4, num_key_value_heads=2)
    config = AutoConfig.for_model(architecture, **shape, **SHAPES[architecture], num_hidden_layers=num_layers)
    return AutoModelForCausalLM.from_config(config, attn_implementation=TREE_ATTENTION)


def kept_by_torch(model, autocast):
    """Bytes of the storages that a real forward pass saves for its backward pass, the model's own left out."""
    storages = {}
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}

    def note(tensor):
        storage = tensor.untyped_storage()
        is_mask = tensor.shape[-2:] == (WIDTH, WIDTH)  # dense on CPU; a block mask on GPU is small
        if storage.data_ptr() not in own and not is_mask:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    rows = lay_out([TokenTree(id="a", prompt=[3] * (WIDTH // 2), branches=[[5] * (WIDTH // 2)], source="s")])
    hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16, enabled=autocast, cache_enabled=False):
        kept_alive = hidden_states(model.train(), rows)
    assert kept_alive.requires_grad
    return sum(storages.values())


@pytest.mark.parametrize("architecture", SHAPES)
@pytest.mark.parametrize(
    ("cast_to", "autocast", "adapter"),
    [
        (None, None, None),
        (torch.bfloat16, None, None),
        (None, torch.bfloat16, None),
        (None, None, Adapter(rank=4)),
    ],
    ids=["fp32", "bf16", "autocast", "lora"],
)
def test_what_layers_keep_is_what_torch_saves(architecture, cast_to, autocast, adapter):
    model = model_of(architecture)
    expected = usage(model, Pass(tokens=WIDTH, cast_to=cast_to, autocast=autocast, adapter=adapter)).kept
    if adapter is not None:
        adapter.inject(model)
    model.to(cast_to)
    assert kept_by_torch(model, autocast is not None) == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_each_layer_adds_as_much_as_the_one_before(checkpointing):
    model, how = model_of(num_layers=6), Pass(tokens=WIDTH, checkpointing=checkpointing, autocast=torch.bfloat16)
    assert usage(model, how) == usage_of_layers(model, how, 6)


def test_checkpointing_keeps_less():
    model = model_of(num_layers=6)
    plain, checkpointed = (usage(model, Pass(tokens=WIDTH, checkpointing=value)) for value in (False, True))
    assert checkpointed.kept < 0.2 * plain.kept
    assert checkpointed.peak < 0.5 * plain.peak
