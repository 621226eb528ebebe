"""What a run says when memory runs out."""

import pytest
import torch

from multifaceted.app import FAILED, _guarded
from multifaceted.config import build
from multifaceted.training.config import TrainConfig
from multifaceted.training.out_of_memory import OutOfMemoryError, memory_advice, memory_explained
from multifaceted.training.ranks import Ranks
from tests.conftest import composed

USED = ["activation_checkpointing=true", "optimizer=adamw_8bit", "optimizer.lr=1e-3", "strategy=fsdp"]


def config_of(*overrides):
    return build(composed("train", ["data.max_length=300", "batch.max_tokens=1000", *overrides]), TrainConfig)


@pytest.mark.parametrize(
    ("overrides", "advised"),
    [
        (
            ["optimizer=adamw", "optimizer.lr=1e-3"],
            "activation_checkpointing=true; batch.max_tokens=500; optimizer.eight_bit=true;"
            " strategy=fsdp trainer.devices=2",
        ),
        (["batch.max_tokens=850", *USED], "add, in this order: batch.max_tokens=425; trainer.devices=2"),
        (["batch.max_tokens=400", *USED], "add, in this order: trainer.devices=2"),
        (["batch.examples=null", "batch.tokens=1000", "optimizer=adamw", "optimizer.lr=1e-3"], "batch.max_tokens=500"),
    ],
)
def test_advice_names_what_the_run_does_not_use_yet(overrides, advised):
    assert advised in memory_advice(config_of(*overrides), 1, longest_tree=410)


def allocate_too_much():
    torch.empty(2**50)


def fail_on_a_gpu():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.mark.parametrize(("fail", "quoted"), [(allocate_too_much, "tried to allocate"), (fail_on_a_gpu, "2.00 GiB")])
def test_running_out_is_said_with_what_to_lower(fail, quoted, capsys):
    def stage():
        with memory_explained(config_of(), Ranks()):
            fail()

    with pytest.raises(OutOfMemoryError, match=quoted):
        stage()
    assert _guarded(stage) == FAILED
    said = capsys.readouterr().err
    assert said.startswith("error: out of memory on cpu") and "activation_checkpointing=true" in said


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match=r"^shapes do not match$"), memory_explained(config_of(), Ranks()):
        raise RuntimeError("shapes do not match")


@pytest.mark.parametrize("experiment", ["sft", "dpo"])
def test_a_run_that_runs_out_says_so(experiment, trained, tiny_run, monkeypatch):
    """While it trains, and in the reference pass, the first forward pass of DPO."""
    monkeypatch.setattr("multifaceted.model.score.Scorer.forward", lambda scorer, rows: torch.empty(2**50))
    with pytest.raises(OutOfMemoryError, match=r"(?s)each device needs 0.\d GiB: weights .* logits .*To need less"):
        trained(experiment, *([f"start={tiny_run.folder}"] if experiment == "dpo" else []))
