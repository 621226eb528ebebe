"""The same losses from TRL 1.16's own trainers on the same tokens. TRL is an optional extra that CI installs."""

from types import SimpleNamespace

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from multifaceted.model.attention import TREE_ATTENTION
from multifaceted.model.score import branch_logps, branch_rewards
from multifaceted.model.tokenizer import train_tokenizer
from multifaceted.objective.dpo import DPO
from multifaceted.objective.orpo import ORPO
from multifaceted.objective.reward_model import RewardModel
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


def trees(tokenizer):
    def ids(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    eos = [tokenizer.eos_token_id]
    return [
        TokenTree(
            id=str(i), prompt=ids(p["prompt"]), branches=[ids(p["chosen"]) + eos, ids(p["rejected"]) + eos], source="s"
        )
        for i, p in enumerate(PAIRS)
    ]


def trl_batch(trainer):
    return next(iter(trainer.get_train_dataloader()))


ARGUMENTS = dict(
    per_device_train_batch_size=3, report_to=[], use_cpu=True, bf16=False, max_length=None, save_strategy="no"
)


@torch.no_grad()
def test_dpo(trl, tokenizer, tmp_path):
    from datasets import Dataset

    args = trl.DPOConfig(
        output_dir=str(tmp_path), beta=0.3, gradient_checkpointing=False, disable_dropout=True, **ARGUMENTS
    )
    trainer = trl.DPOTrainer(
        model=model(tokenizer, 1),
        ref_model=model(tokenizer, 2),
        args=args,
        train_dataset=Dataset.from_list(PAIRS),
        processing_class=tokenizer,
    )
    theirs = trainer.compute_loss(trainer.model, trl_batch(trainer))
    rows = lay_out(trees(tokenizer))
    policy, reference = (branch_logps(model(tokenizer, seed, attention=TREE_ATTENTION), rows) for seed in (1, 2))
    ours = DPO(beta=0.3)(branches(policy, rows.num_tokens.tolist(), groups=(2, 2, 2), reference=reference.tolist()))
    assert ours.loss.mean().item() == pytest.approx(theirs.item(), abs=1e-5)
    assert abs(theirs.item() - 0.6931) > 1e-3, "the models differ, so the loss must not be that of equal ones"


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
