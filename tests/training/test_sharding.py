"""FSDP2 on two CPU ranks (gloo): the curve of one process, checkpoints that change hands, and a rank that dies."""

import os
import signal

import pytest
import torch
from safetensors.torch import load_file

from multifaceted.config import build, to_plain
from multifaceted.record_files import read_jsonl
from multifaceted.records import METRICS
from multifaceted.training.checkpoint import checkpoints
from multifaceted.training.config import TrainConfig
from multifaceted.training.launch import RankFailedError, launch
from multifaceted.training.module import PreferenceModule
from multifaceted.training.prepare import _refuse_idle_ranks
from multifaceted.training.ranks import Ranks, joined
from multifaceted.training.run import run
from tests.conftest import TINY, composed
from tests.test_config import choices

TEN_STEPS = ["data.source.num_examples=40", "data.source.num_validation=8", "validation.times=2"]
STARTED = ("dpo", "reward_model")
OBJECTIVES = ["sft", "orpo", *STARTED]


def compose_run(root, start, experiment, *overrides):
    """The typed and plain config of a ten-step run."""
    paths = [f"paths.outputs={root}/outputs", f"paths.cache={root}/cache"]
    started = [f"start={start}", "optimizer.lr=1e-2"] if experiment in STARTED else []
    config = build(
        composed("train", [f"+experiment={experiment}", *TINY, *TEN_STEPS, *paths, *started, *overrides]), TrainConfig
    )
    return config, to_plain(config)


def on_each_rank(jobs):
    """What a launched rank does: several runs one after the other, because importing takes longer than they do."""
    outcomes = []
    with joined("cpu", alone=True):
        for plain, folder, kill in jobs:
            config = build({key: value for key, value in plain.items() if key != "_target_"}, TrainConfig)
            with_signal = SignalAt(kill) if kill else None
            outcomes.append(run(config, plain, folder))
            if with_signal:
                with_signal.restore()
    return outcomes


class SignalAt:
    """Sends this process a signal once: `kill` is (rank, optimizer step, signal)."""

    def __init__(self, kill):
        rank, step, number = kill
        self.original, sent = PreferenceModule.training_step, []

        def training_step(module, batch, index):
            if module.global_step == step and module.ranks.rank == rank and not sent:
                sent.append(True)
                os.kill(os.getpid(), number)
            return self.original(module, batch, index)

        PreferenceModule.training_step = training_step

    def restore(self):
        PreferenceModule.training_step = self.original


def curve(folder):
    return [row["train/loss"] for row in read_jsonl(folder / METRICS) if "train/loss" in row]


def validations(folder):
    return [row for row in read_jsonl(folder / METRICS) if "val/loss" in row]


def weights(exported):
    return {name: tensor for path in exported.glob("*.safetensors") for name, tensor in load_file(path).items()}


def assert_same_run(sharded, single):
    assert curve(sharded.folder) == pytest.approx(curve(single.folder), abs=1e-5)
    assert len(curve(single.folder)) == 10
    for ours, theirs in zip(validations(sharded.folder), validations(single.folder), strict=True):
        # A margin is a difference of sums of some hundred nats, whose last digit in fp32 is 3e-5.
        assert ours == pytest.approx(theirs, abs=3e-5, rel=2e-6)
    ours, theirs = weights(sharded.exported), weights(single.exported)
    assert ours.keys() == theirs.keys()
    for name in theirs:
        # Steps of AdamW and Muon have one size, so where a gradient is nearly zero its rounding is not.
        assert torch.allclose(ours[name], theirs[name], atol=3e-4), name


FSDP = ["strategy=fsdp", "trainer.devices=2"]


def test_two_ranks_give_the_curve_of_one_process(tmp_path, tiny_run):
    variants = {name: (name, []) for name in OBJECTIVES}
    variants |= {name: ("dpo", [f"objective={name}"]) for name in choices("objective") if name not in OBJECTIVES}
    variants["accumulating"] = ("orpo", ["batch.examples=5", "batch.max_tokens=400", "data.source.num_examples=50"])
    variants["checkpointed"] = (
        "orpo",
        ["activation_checkpointing=true", "clip_norm=0.1", "optimizer=adamw", "optimizer.lr=1e-2"],
    )
    single = {
        name: run(*compose_run(tmp_path, tiny_run.folder, experiment, *extra), tmp_path / "single" / name)
        for name, (experiment, extra) in variants.items()
    }
    jobs = [
        (compose_run(tmp_path, tiny_run.folder, experiment, *extra, *FSDP)[1], tmp_path / "sharded" / name, None)
        for name, (experiment, extra) in variants.items()
    ]
    for name, outcome in zip(variants, launch(2, on_each_rank, jobs), strict=True):
        assert_same_run(outcome, single[name])


def test_a_checkpoint_changes_hands(tmp_path, tiny_run):
    """Interrupted on two ranks (by a signal to the second alone) and continued on one, and the reverse.

    A step is two forward passes on one rank and one on two.
    """
    accumulating = "batch.max_tokens=700"
    config, plain = compose_run(tmp_path, None, "orpo", accumulating)
    whole = run(config, plain, tmp_path / "whole")
    two_plain = compose_run(tmp_path, None, "orpo", accumulating, *FSDP)[1]
    one_sharded = compose_run(tmp_path, None, "orpo", accumulating, "strategy=fsdp")
    hands = SignalAt((0, 4, signal.SIGTERM))
    started_on_one = run(config, plain, tmp_path / "one_then_two")
    hands.restore()
    assert started_on_one.interrupted_by == signal.SIGTERM
    interrupted = (two_plain, tmp_path / "two_then_one", (1, 4, signal.SIGTERM))
    again = (two_plain, tmp_path / "two_then_fsdp_one", (0, 6, signal.SIGINT))
    outcomes = launch(2, on_each_rank, [interrupted, again, (two_plain, tmp_path / "one_then_two", None)])
    assert [o.interrupted_by for o in outcomes] == [signal.SIGTERM, signal.SIGINT, None]
    assert [c.step for c in checkpoints(tmp_path / "two_then_one" / "checkpoints")] == [5]
    assert_same_run(run(config, plain, tmp_path / "two_then_one"), whole)
    assert_same_run(run(*one_sharded, tmp_path / "two_then_fsdp_one"), whole)
    assert_same_run(outcomes[2], whole)


def test_a_rank_that_dies_stops_all_and_the_checkpoint_is_kept(tmp_path):
    plain = compose_run(tmp_path, None, "orpo", *FSDP, "checkpoint.every_steps=1")[1]
    with pytest.raises(RankFailedError, match=r"rank 1 of 2 failed, so all were stopped.*SIGKILL"):
        launch(2, on_each_rank, [(plain, tmp_path / "run", (1, 3, signal.SIGKILL))])
    assert checkpoints(tmp_path / "run" / "checkpoints")[-1].step == 3
    config, plain = compose_run(tmp_path, None, "orpo")
    whole = run(config, plain, tmp_path / "whole")
    assert_same_run(run(config, plain, tmp_path / "run"), whole)


@pytest.mark.parametrize(
    ("overrides", "ranks", "message"),
    [
        (FSDP, Ranks(world_size=4, local_world_size=4), "trainer.devices=2, but the launcher started 4 processes"),
        ([], Ranks(world_size=2, local_world_size=2), "2 processes with strategy=single: set strategy=fsdp"),
        (["strategy=fsdp"], Ranks(world_size=5, local_world_size=5), "5 ranks share 40 training rows, 4 a step"),
        (["strategy=fsdp", "batch.examples=64"], Ranks(world_size=41), "41 ranks share 40 training rows"),
    ],
)
def test_ranks_that_do_not_fit_are_refused_with_both_numbers(overrides, ranks, message, tmp_path):
    config, _ = compose_run(tmp_path, None, "orpo", *overrides)
    with pytest.raises(ValueError, match=message):
        config.check_ranks(ranks)
        _refuse_idle_ranks(40, config, ranks)
