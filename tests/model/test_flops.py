"""FLOPs agree with what torch counts."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from multifaceted.model.adapter import Adapter
from multifaceted.model.attention import block_mask
from multifaceted.model.flops import Flops
from multifaceted.model.score import Scorer
from multifaceted.trees import PADDING, lay_out
from multifaceted.work import Work
from tests.model.test_score import ARCHITECTURES, models, random_trees

ATTENTION = ("flash_attention", "efficient_attention", "scaled_dot_product", "bmm")


def counted(model, trees, *, reward=False, training=True):
    """FLOPs that torch counts, those of attention apart."""
    with FlopCounterMode(display=False) as counter:
        scores = Scorer(model, reward=reward)(lay_out(trees))
        if training:
            scores.sum().backward()
    by_operation = counter.get_flop_counts()["Global"]
    return sum(n for operation, n in by_operation.items() if not any(name in str(operation) for name in ATTENTION))


def single_tree():
    """Without padding, so that all that is computed is useful."""
    return random_trees(1)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_products_with_weights_are_those_that_torch_counts(architecture):
    model, _ = models(architecture)
    trees = single_tree()
    work, flops = Work.of(trees), Flops.of(model)
    attention = flops.pair * work.pairs
    assert flops.forward(work) - attention == counted(model, trees, training=False)
    # Logits are computed again in the backward pass, which is not useful.
    again = flops.head * work.scored
    assert flops.training(work) + again - 3 * attention == counted(model, trees)
    rows = replace(work, laid_out=work.tokens)
    assert flops.computed(rows, checkpointing=False) == flops.training(work) + again
    assert flops.computed(rows, checkpointing=True) == flops.training(work) + again + flops.layers(work)


def test_a_reward_is_read_once_a_branch():
    model, _ = models("llama", AutoModelForSequenceClassification, num_labels=1)
    trees = single_tree()
    work, flops = Work.of(trees), Flops.of(model)
    assert flops.head == 2 * model.config.hidden_size
    assert flops.forward(work) - flops.pair * work.pairs == counted(model, trees, reward=True, training=False)


def test_frozen_weights_have_no_gradient():
    model, _ = models("mistral", AutoModelForCausalLM)
    whole = Flops.of(model)
    Adapter(rank=2).inject(model)
    adapted, trees = Flops.of(model), single_tree()
    work = Work.of(trees)
    assert (adapted.frozen, adapted.head) == (whole.trained, whole.head)
    assert 0 < adapted.trained < whole.trained
    assert whole.training(Work(tokens=1)) == 3 * whole.trained
    # Nothing before the first layer is trained, so torch spares the gradients of what enters it.
    spared = 2 * model.config.hidden_size * (32 + 16 + 16) * work.tokens
    counts = counted(model, trees)
    expected = adapted.training(work) + adapted.head * work.scored - 3 * adapted.pair * work.pairs
    assert expected - 2 * spared <= counts <= expected


def test_pairs_are_those_of_the_tree_mask():
    trees = random_trees(4)
    rows = lay_out(trees, [[0, 1], [2, 3]])
    sees, places = block_mask(rows).mask_mod, torch.arange(rows.input_ids.shape[1])
    seen = torch.stack([sees(row, 0, places[:, None], places[None]) for row in range(2)])
    assert Work.of(trees).pairs == int((seen & (rows.tree_ids != PADDING)[:, :, None]).sum())
    assert Work.of(trees).scored == len(rows.label)


def test_experts_are_refused():
    model, _ = models("llama")
    model.model.layers[0].experts = torch.nn.Parameter(torch.zeros(2, 4, 4))
    with pytest.raises(ValueError, match="FLOPs of a llama model are not known"):
        Flops.of(model)
