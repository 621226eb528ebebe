"""Every experiment, one optimizer step, through the code that users run, in one process."""

import json
from itertools import combinations

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from multifaceted.config import build
from multifaceted.data.bad_rows import DataError
from multifaceted.record_files import read_json, read_jsonl
from multifaceted.records import CONFIG, METRICS, RUN, SUMMARY
from multifaceted.training.checkpoint import checkpoints
from multifaceted.training.config import TrainConfig
from multifaceted.training.folder import RunFolderError
from multifaceted.training.module import NonFiniteLossError
from tests.conftest import CONF, composed

EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
STARTS_FROM_SFT = {"dpo", "dpo_contrast", "reward_model"}
"""The janus recipes have a file of their own."""


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_takes_a_step(experiment, trained, tiny_run):
    start = [f"start={tiny_run.folder}"] if experiment in STARTS_FROM_SFT else []
    outcome = trained(experiment, "max_steps=1", *start)
    assert outcome.summary["steps"] == 1
    assert outcome.summary["val/loss"] > 0 and "val/pair_accuracy/style" in outcome.summary
    assert {f.name for f in outcome.folder.iterdir()} >= {
        CONFIG,
        RUN,
        METRICS,
        SUMMARY,
        "checkpoints",
        outcome.exported.name,
    }
    kind = AutoModelForSequenceClassification if experiment == "reward_model" else AutoModelForCausalLM
    model = kind.from_pretrained(outcome.exported)
    tokenizer = AutoTokenizer.from_pretrained(outcome.exported)
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi."}], add_generation_prompt=True, return_tensors="pt"
    )
    assert torch.isfinite(model(ids["input_ids"]).logits).all()


def test_starting_from_nothing_says_what_to_train_first(trained, tmp_path):
    with pytest.raises(ValueError, match=r"does not exist.*python train.py \+experiment=sft"):
        trained("dpo", f"start={tmp_path}/outputs/sft")


def test_dpo_begins_at_log_two_and_reuses_its_reference(trained, tiny_run, tmp_path):
    overrides = [f"start={tiny_run.folder}", "max_steps=1"]
    first = trained("dpo", *overrides)
    rows = list(read_jsonl(first.folder / METRICS))
    assert next(r["train/loss"] for r in rows if "train/loss" in r) == pytest.approx(0.693147, abs=1e-5)
    cache = tmp_path / "cache" / "reference"
    cached = {path: path.stat().st_mtime_ns for path in cache.iterdir()}
    assert len(cached) == 2, "of training and of validation"
    trained("dpo", *overrides, "overwrite=true")
    assert {path: path.stat().st_mtime_ns for path in cache.iterdir()} == cached
    trained("dpo", *overrides, "data.source.num_examples=15", "overwrite=true")
    assert len(list(cache.iterdir())) == 3, "other training data is a miss, the same validation data a hit"


def test_a_finished_run_is_returned_and_a_changed_one_refused(trained):
    first = trained("sft", "max_steps=1")
    again = trained("sft", "max_steps=1")
    assert again.was_finished and again.summary == first.summary
    with pytest.raises(RunFolderError) as refusal:
        trained("sft", "max_steps=2", "schedule.floor=0.5")
    assert "max_steps: 1 -> 2" in str(refusal.value) and "schedule.floor: 0.0 -> 0.5" in str(refusal.value)
    assert trained("sft", "max_steps=2", "overwrite=true").summary["steps"] == 2


def test_a_folder_that_cannot_be_written_is_refused_early(trained, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(RunFolderError, match="cannot write the run folder"):
        trained("sft", folder=tmp_path / "file" / "run")


def test_a_full_disk_is_refused_early(trained, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(RunFolderError, match="GB free"):
        trained("sft")


def test_a_prompt_longer_than_the_context_is_refused_before_training(trained):
    with pytest.raises(DataError, match="prompt_too_long"):
        trained("sft", "data.max_length=10")


def test_a_context_that_the_model_lacks_is_refused(trained):
    with pytest.raises(ValueError, match=r"512 positions, fewer than data\.max_length=600"):
        trained("sft", "data.max_length=600")


def test_a_diverging_loss_names_step_and_examples_and_keeps_the_checkpoint(trained, monkeypatch, tmp_path):
    from multifaceted.objective.orpo import ORPO

    original, calls = ORPO.__call__, []

    def diverging(self, branches):
        losses = original(self, branches)
        calls.append(None)
        # Each of the first three steps is followed by a validation of one batch; the seventh call trains.
        return losses if len(calls) < 7 else type(losses)(loss=losses.loss * float("nan"), weight=losses.weight)

    monkeypatch.setattr(ORPO, "__call__", diverging)
    with pytest.raises(NonFiniteLossError, match=r"nan at optimizer step 3, in examples mini-0-") as error:
        trained("orpo", "validation.times=4", "data.source.num_validation=4", "batch.max_tokens=1500")
    assert "The last checkpoint is kept" in str(error.value)
    kept = checkpoints(tmp_path / "outputs" / "orpo" / "checkpoints")
    assert kept[-1].step == 3
    for checkpoint in kept:
        for shard in checkpoint.folder.glob("*.safetensors"):
            assert all(torch.isfinite(tensor).all() for tensor in load_file(shard).values())


def test_records_carry_versions_and_no_secret(trained, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "secret-key-of-40-letters")
    monkeypatch.setenv("WANDB_MODE", "offline")
    outcome = trained("sft", "max_steps=1")
    facts = read_json(outcome.folder / RUN)
    assert facts["version"] == 1 and facts["seed"] == 0 and facts["packages"]["torch"]
    for path in outcome.folder.rglob("*"):
        if path.is_file():
            assert b"secret-key" not in path.read_bytes(), path


def test_wandb_offline_writes_a_run_and_needs_no_account(trained, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    outcome = trained("sft", "max_steps=1")
    assert list((outcome.folder / "wandb").glob("offline-run-*"))


def test_wandb_mode_wins_then_the_config_then_the_key(monkeypatch, tmp_path):
    from multifaceted.tracking import Wandb

    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert Wandb(mode="offline").resolved_mode() == "disabled"
    monkeypatch.delenv("WANDB_MODE")
    assert (Wandb(mode="online").resolved_mode(), Wandb().resolved_mode()) == ("online", "offline")
    monkeypatch.setenv("WANDB_API_KEY", "k")
    assert Wandb().resolved_mode() == "online"


def test_bf16(trained):
    outcome = trained("orpo", "trainer.precision=bf16-mixed", "max_steps=2")
    assert 0 < outcome.summary["val/loss"] < 10


def test_muon_refuses_bf16_weights_before_anything_loads(trained):
    with pytest.raises(ValueError, match=r"Muon on weights in bf16 .*model.dtype=float32.*optimizer=adamw"):
        trained("orpo", "trainer.precision=bf16-true")


@pytest.mark.parametrize("settings", [["optimizer.eight_bit=true"], ["trainer.precision=bf16-true"]])
def test_a_missing_torchao_is_refused_before_anything_loads(settings, trained, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"torchao, which is not installed: pip install --editable '.\[torchao\]'"):
        trained("orpo", "optimizer=adamw", "optimizer.lr=1e-2", *settings)


def test_a_reward_model_is_not_read_as_a_policy(trained, tiny_run, tmp_path):
    reward = trained("reward_model", f"start={tiny_run.folder}", "max_steps=1")
    with pytest.raises(ValueError, match="is a reward model"):
        trained("dpo", f"start={reward.folder}", folder=tmp_path / "dpo")


def test_the_written_config_rebuilds_the_run(trained):
    import yaml

    outcome = trained("sft", "max_steps=1")
    written = yaml.safe_load((outcome.folder / CONFIG).read_text())
    written.pop("_target_")
    assert build(written, TrainConfig).max_steps == 1
    json.dumps(written)


def test_composing_is_enough_to_name_a_run():
    assert composed("train", ["+experiment=dpo"]).start == "outputs/sft"


def test_a_job_started_again_by_its_launcher_does_not_overwrite_again(trained, monkeypatch):
    first = trained("orpo", "max_steps=2")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert trained("orpo", "max_steps=2", "overwrite=true").was_finished
    monkeypatch.setenv("SLURM_RESTART_COUNT", "0")
    assert not trained("orpo", "max_steps=2", "overwrite=true").was_finished and first.summary


def test_a_gpu_that_is_not_there_is_refused_at_once(trained):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ValueError, match="torch sees no NVIDIA GPU here; set trainer=cpu"):
        trained("sft", "trainer=gpu", without=["trainer."])
    with pytest.raises(ValueError, match="projection=liger needs an NVIDIA GPU, and this run is on cpu"):
        trained("sft", "projection=liger")


def test_a_start_that_changed_underneath_is_refused(trained, tiny_run, tmp_path):
    import shutil

    start = tmp_path / "start"
    shutil.copytree(tiny_run.exported, start)
    outcome = trained("dpo", f"start={start}", "max_steps=2")
    (outcome.folder / SUMMARY).unlink()
    other = trained("sft", "seed=5", "max_steps=1", folder=tmp_path / "other")
    shutil.copy(other.exported / "model.safetensors", start / "model.safetensors")
    with pytest.raises(RunFolderError, match=r"began with other weights to start from \(base_fingerprint"):
        trained("dpo", f"start={start}", "max_steps=2")


def test_the_reference_is_computed_as_the_policy_is(trained, tiny_run, tmp_path):
    """In bf16 as in fp32 a policy that equals its reference has no margin; each arithmetic has a file of its own."""
    for precision in ("32-true", "bf16-mixed"):
        settings = [
            f"start={tiny_run.folder}",
            "max_steps=1",
            f"trainer.precision={precision}",
            "batch.max_tokens=1500",
        ]
        outcome = trained("dpo", *settings, "objective.beta=1", folder=tmp_path / precision)
        margin = next(row["train/margin"] for row in read_jsonl(outcome.folder / METRICS) if "train/margin" in row)
        assert margin == pytest.approx(0, abs=1e-4 if precision == "32-true" else 0.5), precision
    written = [json.loads(path.read_text())["logps"] for path in (tmp_path / "cache" / "reference").rglob("*.json")]
    assert len(written) == 4, "of training and of validation, each in its own arithmetic"
    assert all(one != other for one, other in combinations(written, 2))
