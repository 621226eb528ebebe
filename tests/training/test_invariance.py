"""Loss, gradients and metrics do not depend on how an optimizer step is cut; golden curves; exact continuation."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from multifaceted.records import METRICS, read_jsonl

GOLDEN = Path(__file__).parents[1] / "golden"
CURVES = {"sft": [], "orpo": [], "dpo": ["optimizer.lr=1e-2"], "reward_model": ["optimizer.lr=1e-2"]}


def curve(outcome, key="train/loss"):
    return [row[key] for row in read_jsonl(outcome.folder / METRICS) if key in row]


def start_of(experiment, tiny_run):
    return [f"start={tiny_run.folder}"] if experiment in ("dpo", "reward_model") else []


@pytest.mark.parametrize("experiment", CURVES)
@pytest.mark.parametrize("num_rejected", [1, 2])
def test_a_step_is_the_same_however_it_is_cut(experiment, num_rejected, trained, tiny_run, tmp_path):
    curves = {}
    for micro in (1, 2, 4):
        outcome = trained(
            experiment, f"batch.micro_examples={micro}", f"data.source.num_rejected={num_rejected}", "batch.examples=4",
            *start_of(experiment, tiny_run), *CURVES[experiment], folder=tmp_path / f"{experiment}{micro}",
        )  # fmt: skip
        curves[micro] = (curve(outcome), outcome.summary)
    for micro in (1, 2):
        assert curves[micro][0] == pytest.approx(curves[4][0], rel=1e-4)
        for key, value in curves[4][1].items():
            if key.startswith("val/"):
                assert curves[micro][1][key] == pytest.approx(value, rel=1e-3, abs=1e-4), key


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


@pytest.mark.parametrize("export", ["best", "last"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_continues_to_the_same_bytes(number, export, trained, tmp_path, monkeypatch):
    settings = [
        "batch.micro_examples=2",
        "batch.examples=4",
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
    timeless = {key: value for key, value in whole.summary.items() if "second" not in key}
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
    batches = EvaluationBatches(trees=trees, micro_examples=3)
    with torch.no_grad():
        losses = torch.cat([module(batches[i]).loss for i in range(len(batches))])
    assert losses.mean().item() == pytest.approx(outcome.summary["val/loss"], rel=1e-5)
