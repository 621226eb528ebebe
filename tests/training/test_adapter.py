"""Adapters: what is trained, merged and written; the same on two ranks and after an interruption."""

import json
import shutil
import signal

import peft
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from multifaceted.config import ConfigError, build
from multifaceted.model.adapter import Adapter
from multifaceted.record_files import read_json, read_jsonl
from multifaceted.records import METRICS
from multifaceted.training.config import TrainConfig
from multifaceted.training.launch import launch
from multifaceted.training.run import run
from tests.conftest import composed
from tests.training import test_sharding as sharding
from tests.training.test_invariance import SignalAt

OBJECTIVES = {
    "sft": ["optimizer=adamw", "optimizer.lr=1e-2"],
    "orpo": [],
    "dpo": ["optimizer.lr=1e-2"],
    "reward_model": [],
}
PROMPT = torch.arange(3, 43)[None]


def curve(outcome):
    return [row["train/loss"] for row in read_jsonl(outcome.folder / METRICS) if "train/loss" in row]


def loaded(experiment, folder):
    """A folder's model as anybody loads it."""
    if experiment == "reward_model":
        return AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1).eval()
    return AutoModelForCausalLM.from_pretrained(folder).eval()


@pytest.fixture
def adapted(monkeypatch):
    """Catches the logits of the adapted model just before it is merged."""
    from multifaceted.training import run as module

    merge, caught = module.merge_adapter, []

    def catching(model):
        model.eval().set_attn_implementation("sdpa")
        with torch.no_grad():
            caught.append(model(PROMPT).logits)
        merge(model)

    monkeypatch.setattr(module, "merge_adapter", catching)
    return caught


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("experiment", OBJECTIVES)
def test_only_the_adapter_is_trained_and_the_export_does_what_it_did(
    experiment, kind, trained, tiny_run, adapted, tmp_path
):
    outcome = trained(experiment, f"start={tiny_run.folder}", f"adapter={kind}", *OBJECTIVES[experiment])
    (checkpoint,) = (outcome.folder / "checkpoints").glob("step-*4/*.safetensors")
    names = [name for name in load_file(checkpoint) if name.startswith("model.")]
    heads = [name for name in names if ".lora_" not in name]
    assert heads == (["model.score.weight"] if experiment == "reward_model" else [])
    assert len(names) - len(heads) == 7 * {"lora": 2, "dora": 3}[kind]
    before, after = (load_file(folder / "model.safetensors") for folder in (tiny_run.exported, outcome.exported))
    assert before.keys() - {"lm_head.weight"} == after.keys() - {"lm_head.weight", "score.weight"}
    for name in before.keys() & after.keys():
        assert torch.equal(before[name], after[name]) is not name.endswith("_proj.weight"), name
    merged = loaded(experiment, outcome.exported)
    by_peft = peft.PeftModel.from_pretrained(loaded(experiment, tiny_run.exported), outcome.folder / "adapter")
    with torch.no_grad():
        for logits in (merged(PROMPT).logits, by_peft(PROMPT).logits):
            torch.testing.assert_close(logits, adapted[0], atol=1e-5, rtol=0)
    by_peft.save_pretrained(tmp_path / "theirs")
    ours, theirs = (
        load_file(f / "adapter_model.safetensors") for f in (outcome.folder / "adapter", tmp_path / "theirs")
    )
    assert {n: t.shape for n, t in ours.items()} == {n: t.shape for n, t in theirs.items()}
    assert not list(outcome.folder.rglob("*.bin")) and not list(outcome.folder.rglob("*.pt"))


def test_the_reference_is_the_base_whatever_is_trained_on_it(trained, tiny_run, tmp_path):
    start = [f"start={tiny_run.folder}", "max_steps=1"]
    variants = [["adapter=lora"], ["adapter=lora", "adapter.rank=4"], ["adapter=dora"], []]
    for number, variant in enumerate(variants):
        outcome = trained("dpo", *start, *variant, folder=tmp_path / str(number))
        assert curve(outcome) == pytest.approx([0.693147], abs=1e-5), variant
    kept = list((tmp_path / "cache" / "reference").iterdir())
    assert len(kept) == 2, "of training and of validation, each once"


def test_an_adapter_continues(trained, tiny_run, tmp_path):
    """SFT, then DPO, on one adapter: the second starts from what the first reached, and that is its reference."""
    settings = [f"start={tiny_run.folder}", "adapter=lora", "optimizer.lr=1e-2"]
    first = trained("sft", *settings, "optimizer=adamw")
    second = trained("dpo", *settings, f"adapter.start={first.folder}")
    assert curve(second)[0] == pytest.approx(0.693147, abs=1e-5)
    merged = trained("dpo", f"start={first.folder}", *settings[1:], folder=tmp_path / "merged")
    assert curve(second)[0] == pytest.approx(curve(merged)[0], abs=1e-5)
    assert read_json(second.folder / "adapter" / "base.json") == read_json(first.folder / "adapter" / "base.json")
    scores = trained("reward_model", *settings[:2], f"adapter.start={first.folder}", "max_steps=1")
    assert scores.exported.exists(), "an adapter of a language model also starts a reward model"


def test_an_interrupted_run_continues_to_the_same_bytes(trained, tiny_run, tmp_path, monkeypatch):
    settings = [f"start={tiny_run.folder}", "adapter=dora", "adapter.dropout=0.1", "batch.max_tokens=700"]
    whole = trained("orpo", *settings, folder=tmp_path / "whole")
    SignalAt(monkeypatch, step=2, number=signal.SIGTERM)
    stopped = trained("orpo", *settings, folder=tmp_path / "stopped")
    assert stopped.interrupted_by == signal.SIGTERM
    continued = trained("orpo", *settings, folder=tmp_path / "stopped")
    assert curve(continued) == curve(whole)
    for name in ("policy/model.safetensors", "adapter/adapter_model.safetensors", "adapter/adapter_config.json"):
        assert (continued.folder / name).read_bytes() == (whole.folder / name).read_bytes(), name


@pytest.mark.slow
def test_two_ranks_train_and_export_what_one_process_does(tmp_path, tiny_run):
    """And a checkpoint of two ranks continues on one, and the reverse."""
    first = run(*sharding.compose_run(tmp_path, tiny_run.folder, "dpo", "adapter=lora"), tmp_path / "first")
    variants = {
        "orpo": ["adapter=lora", f"start={tiny_run.folder}"],
        "dpo": ["adapter=lora", f"adapter.start={first.folder}"],
        "reward_model": ["adapter=dora"],
    }

    def composed_for(experiment, *extra):
        return sharding.compose_run(tmp_path, tiny_run.folder, experiment, *variants[experiment], *extra)

    single = {name: run(*composed_for(name), tmp_path / "single" / name) for name in variants}
    hands = sharding.SignalAt((0, 4, signal.SIGTERM))
    stopped = run(*composed_for("orpo"), tmp_path / "one_then_two")
    hands.restore()
    assert stopped.interrupted_by == signal.SIGTERM
    sharded = {name: composed_for(name, *sharding.FSDP)[1] for name in variants}
    jobs = [(plain, tmp_path / "sharded" / name, None) for name, plain in sharded.items()]
    jobs += [(sharded["orpo"], tmp_path / "one_then_two", None)]
    jobs += [(sharded["orpo"], tmp_path / "two_then_one", (1, 4, signal.SIGTERM))]
    *outcomes, one_then_two, interrupted = launch(2, sharding.on_each_rank, jobs)
    assert interrupted.interrupted_by == signal.SIGTERM
    two_then_one = run(*composed_for("orpo"), tmp_path / "two_then_one")
    for ours, theirs in zip(
        [*outcomes, one_then_two, two_then_one], [*single.values(), single["orpo"], single["orpo"]], strict=True
    ):
        sharding.assert_same_run(ours, theirs)
        a, b = (sharding.weights(outcome.folder / "adapter") for outcome in (ours, theirs))
        assert a.keys() == b.keys()
        assert all(torch.allclose(a[name], b[name], atol=1e-4) for name in b)


@pytest.mark.parametrize("strategy", ["single", "fsdp"])
def test_a_base_in_bf16_keeps_its_adapter_in_fp32(strategy, trained, tiny_run):
    settings = ["adapter=dora", "model.dtype=bfloat16", "trainer.precision=bf16-mixed", f"strategy={strategy}"]
    outcome = trained("orpo", f"start={tiny_run.folder}", *settings, "max_steps=2")
    adapter = load_file(outcome.folder / "adapter" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in adapter.values()} == {torch.float32}
    assert loaded("orpo", outcome.exported).dtype == torch.bfloat16


def test_an_adapter_starts_on_its_own_base_in_its_own_shape(trained, tiny_run, tmp_path):
    base, settings = f"start={tiny_run.folder}", ["adapter=lora", "max_steps=1"]
    first = trained("orpo", base, *settings, folder=tmp_path / "first")
    start = f"adapter.start={first.folder}"
    other = trained("sft", "max_steps=1", "seed=1", folder=tmp_path / "other")
    refusals = {
        (f"start={other.folder}", start): r"trained on .*tiny.* and this run starts from .*other",
        (base, start, "adapter.rank=8"): r"rank=16, and this run adapter\.rank=8",
        (base, start, "adapter.dora=true"): r"dora=False, and this run adapter\.dora=True",
        (base, start, "adapter.target_modules=[q_proj]"): r"other layers than adapter\.target_modules",
        (base, f"adapter.start={tmp_path}"): r"must be a run folder with adapter/",
        (base, "adapter.target_modules=[q_proj,query]"): r"no linear layer query; it has down_proj, gate_proj",
        (base, "adapter.target_modules=[lm_head]"): r"no linear layer lm_head",
        (base, "adapter.four_bit=true"): r"needs an NVIDIA GPU, and this run is on cpu",
    }
    for number, (overrides, named) in enumerate(refusals.items()):
        with pytest.raises(ValueError, match=named):
            trained("orpo", *settings, *overrides, folder=tmp_path / str(number))
    config = first.folder / "adapter" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"r": 8}))
    with pytest.raises(ValueError, match=r"lora_\w\.weight is \["):
        trained("orpo", base, *settings, start, "adapter.rank=8", folder=tmp_path / "shape")
    shutil.copytree(first.folder / "adapter", tmp_path / "moved")
    (tmp_path / "moved" / "base.json").unlink()
    with pytest.raises(ValueError, match=r"base\.json, which names the weights"):
        trained("orpo", base, *settings, f"adapter.start={tmp_path}/moved", folder=tmp_path / "nameless")


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["adapter=lora"], "an adapter on random weights"),
        (["adapter=qlora", "start=x", "strategy=fsdp"], "FSDP2 shards by rows"),
        (["adapter=lora", "start=x", "adapter.rank=0"], "adapter: rank=0"),
        (["adapter=lora", "start=x", "adapter.target_modules=all"], "adapter.target_modules: 'all'"),
    ],
)
def test_impossible_adapters_are_refused_when_composed(overrides, named):
    with pytest.raises(ConfigError) as refusal:
        build(composed("train", overrides), TrainConfig)
    assert named in str(refusal.value)


def test_four_bits_need_bitsandbytes(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install --editable '\.\[qlora\]'"):
        Adapter(four_bit=True).check_device("cuda")


@pytest.mark.parametrize("experiment", ["dpo", "reward_model"])
def test_four_bits_train_and_merge(experiment, trained, tiny_run, adapted, monkeypatch):
    """On a CPU, without the packing that makes `check_device` refuse one: the rest of the code is that of a GPU."""
    pytest.importorskip("bitsandbytes")
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: False)
    monkeypatch.setattr(Adapter, "check_device", lambda self, device_type: None)
    outcome = trained(experiment, f"start={tiny_run.folder}", "adapter=qlora", *OBJECTIVES[experiment])
    assert curve(outcome)[0] == pytest.approx(0.693147, abs=1e-3)
    merged = loaded(experiment, outcome.exported)
    assert not hasattr(merged.config, "quantization_config")
    with torch.no_grad():
        torch.testing.assert_close(merged(PROMPT).logits, adapted[0], atol=1e-5, rtol=0)
