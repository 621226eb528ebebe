"""The same losses from TRL 1.16's own trainers on the same tokens. TRL is an optional extra that CI installs."""

from types import SimpleNamespace

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from multifaceted.model.attention import TREE_ATTENTION
from multifaceted.model.score import branch_logps, branch_rewards
from multifaceted.model.tokenizer import train_tokenizer
from multifaceted.objective.dpo import DPO
from multifaceted.objective.ipo import IPO
from multifaceted.objective.orpo import ORPO
from multifaceted.objective.reward_model import RewardModel
from multifaceted.objective.simpo import SimPO
from multifaceted.trees import TokenTree, lay_out
from tests.objective.test_objectives import branches

pytestmark = pytest.mark.slow
PAIRS = [
    {"prompt": "[INST] What is winter like? [/INST]", "chosen": " It is cold.", "rejected": " No idea at all."},
    {"prompt": "[INST] Say hello. [/INST]", "chosen": " Hello to you, dear friend.", "rejected": " Go away."},
    {"prompt": "[INST] Count. [/INST]", "chosen": " One, two, three.", "rejected": " Why should anyone count?"},
]


@pytest.fixture(scope="module")
def trl():
    return pytest.importorskip("trl", reason="TRL is an optional extra: pip install -c constraints.txt -e '.[peers]'")


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([" ".join(pair.values()) for pair in PAIRS], 300)


def model(tokenizer, seed, kind=AutoModelForCausalLM, attention="eager", **extra):
    torch.manual_seed(seed)
    shape = dict(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2
    )
    config = AutoConfig.for_model(
        "llama", vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
        **shape, **extra,
    )  # fmt: skip
    made = kind.from_config(config, attn_implementation=attention).eval()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return made


def trees(tokenizer, start=()):
    def ids(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    eos = [tokenizer.eos_token_id]
    return [
        TokenTree(
            id=str(i),
            prompt=[*start, *ids(p["prompt"])],
            branches=[ids(p["chosen"]) + eos, ids(p["rejected"]) + eos],
            source="s",
        )
        for i, p in enumerate(PAIRS)
    ]


def trl_batch(trainer):
    return next(iter(trainer.get_train_dataloader()))


ARGUMENTS = dict(
    per_device_train_batch_size=3, report_to=[], use_cpu=True, bf16=False, max_length=None, save_strategy="no"
)


# One pair a batch: TRL's SFT term averages over the batch's tokens, and its sigmoid loss has no label smoothing, but
# AOT, which sorts pairs of a batch, is that loss for a single one.
DPO_LOSSES = {
    "dpo": (DPO(beta=0.3), dict(loss_type="sigmoid", beta=0.3)),
    "cdpo": (DPO(beta=0.3, label_smoothing=0.2), dict(loss_type="aot", beta=0.3, label_smoothing=0.2)),
    "rdpo": (
        DPO(beta=0.3, label_smoothing=0.2, robust=True),
        dict(loss_type="robust", beta=0.3, label_smoothing=0.2),
    ),
    "dpo_norm": (DPO(beta=5.0, length_normalized=True), dict(loss_type="sigmoid_norm", beta=5.0)),
    "dpo_sft": (DPO(beta=0.3, sft_weight=0.5), dict(loss_type=["sigmoid", "sft"], loss_weights=[1.0, 0.5], beta=0.3)),
    "ipo": (IPO(tau=0.3), dict(loss_type="ipo", beta=0.3)),
}


@torch.no_grad()
@pytest.mark.parametrize("ours, theirs", DPO_LOSSES.values(), ids=DPO_LOSSES)
def test_losses_with_a_reference(trl, tokenizer, tmp_path, ours, theirs):
    from datasets import Dataset

    args = trl.DPOConfig(
        output_dir=str(tmp_path), gradient_checkpointing=False, disable_dropout=True, **theirs,
        **ARGUMENTS | {"per_device_train_batch_size": 1},
    )  # fmt: skip
    trainer = trl.DPOTrainer(
        model=model(tokenizer, 1),
        ref_model=model(tokenizer, 2),
        args=args,
        train_dataset=Dataset.from_list(PAIRS),
        processing_class=tokenizer,
    )
    expected = [trainer.compute_loss(trainer.model, batch).item() for batch in trainer.get_train_dataloader()]
    rows = lay_out(trees(tokenizer))
    policy, reference = (branch_logps(model(tokenizer, seed, attention=TREE_ATTENTION), rows) for seed in (1, 2))
    losses = ours(branches(policy, rows.num_tokens.tolist(), groups=(2, 2, 2), reference=reference.tolist()))
    assert sorted(losses.loss.tolist()) == pytest.approx(sorted(expected), abs=1e-5)
    same = ours(branches(policy, rows.num_tokens.tolist(), groups=(2, 2, 2), reference=policy.tolist()))
    assert (same.loss - losses.loss).abs().min() > 1e-3, "the models differ, so the losses must not be those of equals"


@torch.no_grad()
def test_simpo(trl, tokenizer, tmp_path):
    from datasets import Dataset
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    args = CPOConfig(
        output_dir=str(tmp_path), loss_type="simpo", beta=2.0, simpo_gamma=1.6, cpo_alpha=0.0,
        gradient_checkpointing=False, **ARGUMENTS | {"max_length": 64},
    )  # fmt: skip
    trainer = CPOTrainer(
        model=model(tokenizer, 1), args=args, train_dataset=Dataset.from_list(PAIRS), processing_class=tokenizer
    )
    theirs = trainer.compute_loss(trainer.model, trl_batch(trainer))
    rows = lay_out(trees(tokenizer, start=[tokenizer.bos_token_id]))  # which CPOTrainer adds
    policy = branch_logps(model(tokenizer, 1, attention=TREE_ATTENTION), rows)
    ours = SimPO(beta=2.0, gamma=1.6)(branches(policy, rows.num_tokens.tolist(), groups=(2, 2, 2)))
    assert ours.loss.mean().item() == pytest.approx(theirs.item(), abs=1e-5)


@torch.no_grad()
def test_reward_model(trl, tokenizer, tmp_path):
    from datasets import Dataset

    kind = AutoModelForSequenceClassification
    args = trl.RewardConfig(output_dir=str(tmp_path), gradient_checkpointing=False, **ARGUMENTS)
    trainer = trl.RewardTrainer(
        model=model(tokenizer, 1, kind, num_labels=1),
        args=args,
        train_dataset=Dataset.from_list(PAIRS),
        processing_class=tokenizer,
    )
    theirs = trainer.compute_loss(trainer.model, trl_batch(trainer))
    rewards = branch_rewards(model(tokenizer, 1, kind, TREE_ATTENTION, num_labels=1), lay_out(trees(tokenizer)))
    ours = RewardModel()(branches(rewards, groups=(2, 2, 2)))
    assert ours.loss.mean().item() == pytest.approx(theirs.item(), abs=1e-5)


@pytest.mark.parametrize("means", [(-0.5, -1.5), (-3.0, -0.2), (-1e-4, -50.0)])
def test_orpo_odds_ratio_term(trl, means):
    from trl.experimental.orpo import ORPOTrainer

    settings = SimpleNamespace(beta=0.4, accelerator=SimpleNamespace(device="cpu"))
    theirs = ORPOTrainer.odds_ratio_loss(settings, *(torch.tensor([m]) for m in means))[0]
    ours = ORPO(lam=0.4)(branches([4 * means[0], 6 * means[1]], [4, 6]))
    ratio_term = (ours.loss - ours.metrics["nll"]).item()
    assert ratio_term == pytest.approx(-theirs.item(), rel=1e-4, abs=1e-6)
