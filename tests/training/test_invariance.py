"""Loss, gradients and metrics do not depend on how an optimizer step is cut; golden curves; exact continuation."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from multifaceted.record_files import read_jsonl
from multifaceted.records import METRICS
from tests.test_config import choices

GOLDEN = Path(__file__).parents[1] / "golden"
CURVES = {"sft": [], "orpo": [], "dpo": ["optimizer.lr=1e-2"], "reward_model": ["optimizer.lr=1e-2"]}


def curve(outcome, key="train/loss"):
    return [row[key] for row in read_jsonl(outcome.folder / METRICS) if key in row]


def steps_of(outcome):
    """What each step logged of training."""
    rows = [row for row in read_jsonl(outcome.folder / METRICS) if "train/loss" in row]
    return [{key: value for key, value in row.items() if key.startswith("train/")} for row in rows]


def start_of(experiment, tiny_run):
    return [f"start={tiny_run.folder}"] if experiment in ("dpo", "reward_model") else []


CUTS = {
    "one pass": [],
    "two trees a pass": ["batch.max_tokens=900"],
    "one tree a pass": ["batch.max_tokens=560"],
    "padded": ["batch.packing=false"],
    "padded, two passes": ["batch.packing=false", "batch.max_tokens=1200"],
    "prompts repeated": ["batch.share_prefix=false"],
    "prompts repeated and padded": ["batch.packing=false", "batch.share_prefix=false"],
}


@pytest.mark.parametrize("experiment", CURVES)
@pytest.mark.parametrize("num_rejected", [1, 2])
def test_a_step_is_the_same_however_it_is_cut(experiment, num_rejected, trained, tiny_run, tmp_path):
    """Ten steps: loss and every metric, so gradients too."""
    curves, summaries = {}, {}
    for name, cut in CUTS.items():
        outcome = trained(
            experiment, *cut, f"data.source.num_rejected={num_rejected}", "data.source.num_examples=40",
            *start_of(experiment, tiny_run), *CURVES[experiment], folder=tmp_path / name,
        )  # fmt: skip
        curves[name], summaries[name] = steps_of(outcome), outcome.summary
    whole = curves["one pass"]
    assert len(whole) == 10
    for name, rows in curves.items():
        for ours, theirs in zip(rows, whole, strict=True):
            assert ours["train/loss"] == pytest.approx(theirs["train/loss"], rel=1e-5), name
            # A reward is a difference of two sums of some hundred nats, each with seven digits.
            assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-5), name
        for key, value in summaries["one pass"].items():
            if key.startswith("val/"):
                assert summaries[name][key] == pytest.approx(value, rel=1e-5, abs=3e-5), (name, key)


@pytest.mark.parametrize("num_rejected", [1, 2])
@pytest.mark.parametrize("objective", choices("objective"))
def test_gradients_of_a_step_are_the_same_however_it_is_cut(objective, num_rejected):
    """Loss, gradients and metrics of one optimizer step, to 1e-5."""
    from multifaceted.config import build
    from multifaceted.data.batch import Batch
    from multifaceted.data.batches import TrainingBatches
    from multifaceted.model.score import Scorer
    from multifaceted.training.config import TrainConfig
    from multifaceted.training.module import PreferenceModule
    from multifaceted.training.prepare import prepare_data
    from tests.conftest import TINY, composed

    overrides = [f"objective={objective}", *TINY, f"data.source.num_rejected={num_rejected}"]
    config = build(composed("train", overrides), TrainConfig)
    data = prepare_data(config, config.model, check=lambda _: None)
    reward = config.has_reward_head
    torch.manual_seed(0)
    model = config.model.load_model(data.tokenizer, reward=reward, max_length=400)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)  # where branches differ, and their gradients cancel less
    module = PreferenceModule(Scorer(model, reward=reward), config.objective, config.optimizer, config.schedule, 1)
    generator = torch.Generator().manual_seed(0)
    trees = data.train.trees[:8]
    reference = {t.id: (-50 * torch.rand(len(t.branches), generator=generator)).tolist() for t in trees}
    results = {}
    for name, cut in CUTS.items():
        settings = {key.removeprefix("batch."): value for key, value in (entry.split("=") for entry in cut)}
        batch = Batch(examples=8, **{k: int(v) if v.isdigit() else v == "true" for k, v in settings.items()})
        sums = {}
        for rank in range(2):  # of whose two shares the gradient of a step is the sum
            step = next(
                iter(
                    TrainingBatches(
                        trees=trees, batch=batch, num_epochs=1, seed=0, rank=rank, world_size=2, reference=reference
                    )
                )
            )
            for part in step.passes:
                module.share_of_step(part, step, sums).backward()
        gradients = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        model.zero_grad()
        results[name] = (gradients, torch.stack([sums[key] for key in sorted(sums)]))
    for name, (gradients, values) in results.items():
        torch.testing.assert_close(values, results["one pass"][1], rtol=1e-5, atol=1e-6, msg=name)
        difference = (gradients - results["one pass"][0]).abs().max() / gradients.abs().max()
        assert difference < 1e-5, (name, float(difference))


@pytest.mark.parametrize("experiment", CURVES)
def test_golden_curve(experiment, trained, tiny_run):
    """Ten steps, number by number: a refactoring must not move them. UPDATE_GOLDEN=1 writes them anew."""
    outcome = trained(
        experiment, "data.source.num_examples=40", "data.source.num_validation=4", "validation.times=1",
        *start_of(experiment, tiny_run), *CURVES[experiment],
    )  # fmt: skip
    path = GOLDEN / f"{experiment}.json"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(json.dumps([round(v, 6) for v in curve(outcome)]) + "\n")
    assert curve(outcome) == pytest.approx(json.loads(path.read_text()), rel=2e-4), outcome.folder


class SignalAt:
    """Sends this process a signal once, when training reaches a step."""

    def __init__(self, monkeypatch, step, number):
        from multifaceted.training.module import PreferenceModule

        original = PreferenceModule.training_step

        def training_step(module, batch, index):
            if module.global_step == step and not self.sent:
                self.sent = True
                os.kill(os.getpid(), number)
            return original(module, batch, index)

        self.sent = False
        monkeypatch.setattr(PreferenceModule, "training_step", training_step)


@pytest.mark.parametrize(
    ("size", "export"),
    [("batch.examples=4", "best"), ("batch.examples=4", "last"), ("batch.examples=null batch.tokens=1400", "best")],
)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_continues_to_the_same_bytes(number, size, export, trained, tmp_path, monkeypatch):
    settings = [
        "batch.max_tokens=700",
        *size.split(),
        "batch.look_ahead=5",
        "data.source.num_examples=32",
        f"export={export}",
        "validation.times=3",
    ]
    whole = trained("orpo", *settings, folder=tmp_path / "whole")
    handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    SignalAt(monkeypatch, step=3, number=number)
    stopped = trained("orpo", *settings, folder=tmp_path / "stopped")
    assert stopped.interrupted_by == number and not stopped.summary and not stopped.exported.exists()
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == handlers
    continued = trained("orpo", *settings, folder=tmp_path / "stopped")
    assert curve(continued) == curve(whole)
    ours, theirs = (load_file(o.exported / "model.safetensors") for o in (continued, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    measured = ("throughput/", "wall_seconds")
    timeless = {key: value for key, value in whole.summary.items() if not key.startswith(measured)}
    assert {key: continued.summary[key] for key in timeless} == timeless


def test_a_run_killed_between_training_and_export_only_exports(trained, tmp_path):
    whole = trained("orpo", folder=tmp_path / "run")
    shutil.rmtree(whole.exported)
    (whole.folder / "summary.json").unlink()
    again = trained("orpo", folder=tmp_path / "run")
    assert again.exported.exists() and again.summary["val/loss"] == whole.summary["val/loss"]


def test_two_runs_of_one_seed_are_equal_and_of_two_are_not(trained, tmp_path):
    runs = [trained("sft", f"seed={seed}", folder=tmp_path / str(i)) for i, seed in enumerate((0, 0, 1))]
    assert curve(runs[0]) == curve(runs[1]) != curve(runs[2])


def test_validation_while_training_equals_scoring_the_export(trained):
    """The export is the model that was validated: its loss on the same pairs is the same number."""
    from multifaceted.config import build
    from multifaceted.data.batch import Batch
    from multifaceted.data.batches import EvaluationBatches
    from multifaceted.model.build import PretrainedModel
    from multifaceted.model.score import Scorer
    from multifaceted.training.config import TrainConfig
    from multifaceted.training.module import PreferenceModule
    from tests.conftest import TINY, composed

    outcome = trained("orpo")
    config = build(composed("train", ["+experiment=orpo", *TINY]), TrainConfig)
    source = PretrainedModel(name=str(outcome.exported), dtype=config.model.dtype)
    tokenizer = source.load_tokenizer([])
    _, validation = config.data.examples(config.mix, 0, needs_rejected=True)
    trees = config.data.encode(validation, config.mix, 0, tokenizer, with_rejected=True).trees
    model = source.load_model(tokenizer, reward=False, max_length=400).eval()
    module = PreferenceModule(Scorer(model, reward=False), config.objective, config.optimizer, config.schedule, 1)
    batches = EvaluationBatches(trees=trees, batch=Batch(examples=1, max_tokens=900))
    with torch.no_grad():
        losses = torch.cat([module(batches[i]).loss for i in range(len(batches))])
    assert losses.mean().item() == pytest.approx(outcome.summary["val/loss"], rel=1e-5)
