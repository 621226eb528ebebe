"""Branch log-probabilities equal those of separate sequences, and a branch depends on its own path alone."""

import copy

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from multifaceted.model.attention import TREE_ATTENTION, refuse_unservable, tree_mask
from multifaceted.model.score import branch_logps, branch_rewards, token_logps
from multifaceted.model.weights import parameter_fingerprint
from multifaceted.trees import TokenTree, lay_out

SHAPE = dict(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4)
SHAPE |= dict(num_key_value_heads=2, max_position_embeddings=128, pad_token_id=0)
ARCHITECTURES = {"mistral": {"sliding_window": None}, "llama": {}, "qwen2": {}, "qwen3": {"head_dim": 8}}


def models(architecture, kind=AutoModelForCausalLM, **extra):
    """The same weights with tree attention and with transformers' own."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(architecture, **SHAPE, **ARCHITECTURES[architecture], **extra)
    ours = kind.from_config(copy.deepcopy(config), attn_implementation=TREE_ATTENTION).eval()
    plain = kind.from_config(copy.deepcopy(config), attn_implementation="eager").eval()
    assert (ours.config._attn_implementation, plain.config._attn_implementation) == (TREE_ATTENTION, "eager")
    for parameter in ours.parameters():  # away from the initial values, where much is symmetric
        torch.nn.init.normal_(parameter, std=0.3)
    plain.load_state_dict(ours.state_dict())
    return ours, plain


def path_of(tree, branch):
    return [*tree.prompt.tolist(), *branch.tolist()]


def random_trees(num, branches=3):
    generator = torch.Generator().manual_seed(1)

    def ids():
        return torch.randint(3, 64, (int(torch.randint(2, 12, (), generator=generator)),), generator=generator).tolist()

    return [
        TokenTree(id=str(n), prompt=[1, *ids()], branches=[[*ids(), 2] for _ in range(branches)], source="s")
        for n in range(num)
    ]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("packing", [None, [[0, 1], [2, 3]]], ids=["one tree a row", "two trees a row"])
@torch.no_grad()
def test_branch_logps_equal_separate_sequences(architecture, packing):
    ours, plain = models(architecture)
    trees = random_trees(4)
    together = branch_logps(ours, lay_out(trees, packing))
    separate = []
    for tree in trees:
        for branch in tree.branches:
            logits = plain(torch.tensor([path_of(tree, branch)])).logits[0].log_softmax(-1)
            positions = torch.arange(len(tree.prompt) - 1, len(tree.prompt) + len(branch) - 1)
            separate.append(logits[positions, torch.tensor(branch, dtype=torch.long)].sum())
    torch.testing.assert_close(together, torch.stack(separate), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_rewards_equal_transformers_on_padded_sequences(architecture):
    ours, plain = models(architecture, AutoModelForSequenceClassification, num_labels=1)
    trees = random_trees(3)
    paths = [path_of(tree, branch) for tree in trees for branch in tree.branches]
    width = max(map(len, paths))
    padded = torch.tensor([path + [0] * (width - len(path)) for path in paths])
    expected = plain(padded, attention_mask=(padded != 0).long()).logits[:, 0]
    torch.testing.assert_close(branch_rewards(ours, lay_out(trees)), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_change_outside_its_path_changes_nothing_of_a_branch():
    ours, _ = models("mistral")
    trees = random_trees(2)
    packing = [[0, 1]]
    before = branch_logps(ours, lay_out(trees, packing))
    trees[0].branches[1][0] = (trees[0].branches[1][0] + 1) % 60 + 3
    after = branch_logps(ours, lay_out(trees, packing))
    unchanged = [index for index in range(6) if index != 1]
    assert torch.equal(before[unchanged], after[unchanged])
    assert before[1] != after[1]
    trees[0].prompt[1] = (trees[0].prompt[1] + 1) % 60 + 3
    moved = branch_logps(ours, lay_out(trees, packing))
    assert (moved[:3] != after[:3]).all() and torch.equal(moved[3:], after[3:])


def test_gradients_equal_those_of_separate_sequences():
    ours, plain = models("llama")
    trees = random_trees(2, branches=2)
    branch_logps(ours, lay_out(trees)).sum().backward()
    for tree in trees:
        for branch in tree.branches:
            logits = plain(torch.tensor([path_of(tree, branch)])).logits[0].log_softmax(-1)
            positions = torch.arange(len(tree.prompt) - 1, len(tree.prompt) + len(branch) - 1)
            logits[positions, torch.tensor(branch, dtype=torch.long)].sum().backward()
    for (name, ours_p), plain_p in zip(ours.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours_p.grad, plain_p.grad, atol=1e-4, rtol=1e-4, msg=name)


class ProductsWith(TorchDispatchMode):
    """Numbers of rows that are multiplied by a weight, or by a part of it."""

    def __init__(self, weight):
        super().__init__()
        self.weight, self.num_rows = weight, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm):
            left, right = args[-2:]
            if right.untyped_storage().data_ptr() == self.weight.untyped_storage().data_ptr():
                self.num_rows.append(left.shape[0])
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def test_only_scored_positions_are_projected():
    ours, _ = models("mistral")
    rows = lay_out(random_trees(2))
    with ProductsWith(ours.lm_head.weight) as products:
        token_logps(ours, rows)
        assert products.num_rows == [len(rows.source)] and len(rows.source) < rows.input_ids.numel()
        ours(rows.input_ids, tree_mask=tree_mask(rows))
        assert products.num_rows[1:] == [rows.input_ids.numel()]


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (AutoConfig.for_model("mistral"), "sliding window of 4096"),
        (AutoConfig.for_model("bloom"), "ALiBi"),
        (AutoConfig.for_model("mamba"), "recurrent"),
        (AutoConfig.for_model("llama", max_position_embeddings=1024), "1024 positions"),
        (AutoConfig.for_model("cohere"), "changes its logits"),
        (AutoConfig.for_model("llama", max_position_embeddings=8192, attention_dropout=0.1), "drops attention weights"),
    ],
)
def test_a_model_that_cannot_serve_trees_is_refused(config, reason):
    with pytest.raises(ValueError, match=reason):
        refuse_unservable(config, max_length=8192)


def test_fingerprint_sees_every_weight():
    ours, _ = models("mistral")
    before = parameter_fingerprint(ours)
    assert before == parameter_fingerprint(models("mistral")[1])
    with torch.no_grad():
        next(ours.parameters())[0, 0] += 1e-3
    assert parameter_fingerprint(ours) != before
