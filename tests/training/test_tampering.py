"""Checkpoints and policies that were cut off, mixed up or poisoned: refused with a remedy, and never executed."""

import json
import os
import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from multifaceted.training.checkpoint import CheckpointError, checkpoints
from multifaceted.training.folder import RunFolderError
from tests.training.test_invariance import SignalAt

TWO_OF_FOUR = ["max_steps=4", "checkpoint.every_steps=1", "validation.times=1"]


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.fixture
def marker(tmp_path):
    """What a payload would leave; it must not be there at the end."""
    path = tmp_path / "executed"
    pickle.loads(pickle.dumps(Payload(path)))
    path.rmdir()  # there: the payload works
    yield path
    assert not path.exists()


@pytest.fixture
def stopped(trained, tmp_path, monkeypatch):
    """`stopped()` continues a run that has made two of its four steps; `stopped.checkpoint` is its folder."""

    class Stopped:
        def __init__(self, name="run", *overrides):
            self.folder, self.overrides = tmp_path / name, [*TWO_OF_FOUR, *overrides]
            with monkeypatch.context() as patched:
                SignalAt(patched, step=1, number=15)
                self()
            [self.checkpoint] = [c.folder for c in checkpoints(self.folder / "checkpoints")]

        def __call__(self, *overrides):
            return trained("orpo", *self.overrides, *overrides, folder=self.folder)

        @property
        def shard(self):
            return next(self.checkpoint.glob("*.safetensors"))

        def refused(self, problem):
            with pytest.raises(CheckpointError, match=problem) as refusal:
                self()
            assert str(self.checkpoint) in str(refusal.value) and "delete this folder" in str(refusal.value)

    return Stopped


def test_a_truncated_shard(stopped):
    run = stopped()
    run.shard.write_bytes(run.shard.read_bytes()[:-1])
    run.refused(r"shard-\S+ has \d+ bytes of \d+")


def test_a_missing_shard_and_a_missing_state(stopped):
    run = stopped()
    shard = run.shard
    hidden = shard.rename(shard.with_suffix(".away"))
    run.refused("No such file")
    hidden.rename(shard)
    (run.checkpoint / "state.json").unlink()
    run.refused("does not exist")


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (lambda text: text[: len(text) // 2], "is not JSON"),
        (lambda text: text.replace('"global_step": 2', '"global_step": 3'), "was edited"),
        (lambda text: "[]", "broken"),
        (lambda text: "{}", "broken"),
        (lambda text: text.replace('"version": 1', '"version": 7'), "record version 7"),
    ],
)
def test_an_edited_state(edit, problem, stopped):
    run = stopped()
    state = run.checkpoint / "state.json"
    state.write_text(edit(state.read_text()))
    run.refused(problem)


def test_a_folder_of_another_name(stopped):
    run = stopped()
    run.checkpoint = run.checkpoint.rename(run.checkpoint.with_name("step-00000003"))
    run.refused("it holds step 2")


def test_a_shard_of_another_model(stopped):
    run, other = stopped(), stopped("other", "seed=1")
    assert other.shard.stat().st_size == run.shard.stat().st_size
    shutil.copy(other.shard, run.shard)
    run.refused("not those that were written")
    shutil.copy(stopped("wider", "model.config.intermediate_size=48").shard, run.shard)
    run.refused("bytes of")


def test_a_shard_too_many(stopped):
    run = stopped()
    save_file({"model.model.norm.weight": torch.zeros(16)}, run.checkpoint / "extra.safetensors")
    run.refused("not those that were written")


def test_a_pickle_in_the_place_of_any_file(stopped, marker):
    run = stopped()
    for path in list(run.checkpoint.iterdir()):
        before = path.read_bytes()
        for padded in (False, True):
            poison = pickle.dumps(Payload(marker))
            path.write_bytes(poison.ljust(len(before), b"\0") if padded else poison)
            run.refused("")
        path.write_bytes(before)
    assert run().summary["steps"] == 4


def test_a_pickle_beside_the_files_is_not_looked_at(stopped, marker):
    run = stopped()
    for name in (".metadata", "pytorch_model.bin", "model.pt", "__0_0.distcp", "optimizer.pt", "state.json.pkl"):
        (run.checkpoint / name).write_bytes(pickle.dumps(Payload(marker)))
        (run.checkpoint.parent / name).write_bytes(pickle.dumps(Payload(marker)))
    assert run().summary["steps"] == 4


def test_a_policy_of_pickles(trained, tiny_run, tmp_path, marker):
    policy = tmp_path / "policy"
    shutil.copytree(tiny_run.exported, policy)
    torch.save(Payload(marker), policy / "pytorch_model.bin")
    (policy / "training_args.bin").write_bytes(pickle.dumps(Payload(marker)))
    assert trained("dpo", f"start={policy}", "max_steps=1").summary["steps"] == 1
    (policy / "model.safetensors").write_bytes(pickle.dumps(Payload(marker)))
    with pytest.raises(ValueError, match=r"model\.safetensors is not a safetensors file"):
        trained("dpo", f"start={policy}", "max_steps=1", folder=tmp_path / "renamed")
    (policy / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"lacks \*\.safetensors.*pytorch_model\.bin is a pickle.*save_pretrained"):
        trained("dpo", f"start={policy}", "max_steps=1", folder=tmp_path / "pickled")


@pytest.mark.parametrize("text", ["", "a: [", "\0", "!!python/object/apply:os.mkdir [{marker}]"])
def test_a_broken_config(text, stopped, marker):
    run = stopped()
    (run.folder / "config.yaml").write_text(text.format(marker=marker))
    with pytest.raises(RunFolderError, match=r"config\.yaml is broken .*overwrite=true"):
        run()
    assert run("overwrite=true").summary["steps"] == 4


def test_checkpoints_without_a_config(stopped):
    run = stopped()
    (run.folder / "config.yaml").unlink()
    with pytest.raises(RunFolderError, match=r"holds checkpoints but no config\.yaml.*delete"):
        run()


def test_where_and_how_a_run_is_kept_may_change(stopped):
    run = stopped()
    run("checkpoint.keep=3", "logger.group=other", "paths.cache=/nowhere", "trainer.devices=1", "strategy=fsdp")
    assert len(checkpoints(run.folder / "checkpoints")) == 3


def test_data_that_changed_under_the_same_config(trained, tmp_path, monkeypatch):
    rows = [{"prompt": f"What is {i}?", "chosen": f"It is {i}.", "rejected": "No."} for i in range(12)]
    train, validation = tmp_path / "train.jsonl", tmp_path / "validation.jsonl"
    files = [f"data.source.train_file={train}", f"data.source.validation_file={validation}", "data.max_length=64"]
    files.append("data=preference_files")

    def attempt():
        for path, part in ((train, rows[:8]), (validation, rows[8:])):
            path.write_text("".join(f"{json.dumps(row)}\n" for row in part))
        return trained("orpo", *files, "num_epochs=2", folder=tmp_path / "run", without=["data."])

    with monkeypatch.context() as patched:
        SignalAt(patched, step=1, number=15)
        attempt()
    rows[3]["chosen"] = "It is four."
    with pytest.raises(RunFolderError, match=r"began with other data \(data_fingerprint: \w+ -> \w+\)"):
        attempt()
    rows[3]["chosen"] = "It is 3."
    assert attempt().summary["steps"] == 4


def test_weights_that_changed_below_an_adapter(stopped, tiny_run, tmp_path):
    start = tmp_path / "start"
    shutil.copytree(tiny_run.exported, start)
    run = stopped("run", "adapter=lora", f"start={start}", "optimizer=adamw", "optimizer.lr=1e-3")
    weights = load_file(start / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in weights.items()}, start / "model.safetensors", {"format": "pt"})
    with pytest.raises(RunFolderError, match=r"began with other weights to start from \(base_fingerprint"):
        run()


def test_what_a_run_is_may_not_change(stopped):
    run = stopped()
    with pytest.raises(RunFolderError) as refusal:
        run("optimizer=adamw", "optimizer.lr=0.5", "seed=3", "batch.examples=2")
    for change in ("optimizer.lr: ", "seed: 0 -> 3", "batch.examples: 4 -> 2", "optimizer._target_"):
        assert change in str(refusal.value)
    assert "overwrite=true" in str(refusal.value)


def test_what_callbacks_keep_is_read_back(stopped):
    """EarlyStopping begins with an infinity, in a tensor."""
    stopping = "_target_:lightning.pytorch.callbacks.EarlyStopping,monitor:val/loss,check_on_train_epoch_end:false"
    run = stopped("run", f"+callbacks.early={{{stopping}}}")
    assert '"__float__": "inf"' in (run.checkpoint / "state.json").read_text()
    assert run().summary["steps"] == 4


def test_starting_anew_that_is_cut_off_leaves_nothing_to_continue(stopped, monkeypatch):
    run = stopped()
    with monkeypatch.context() as patched, pytest.raises(InterruptedError):
        patched.setattr("multifaceted.training.folder.shutil.rmtree", interrupted)
        run("overwrite=true")
    assert not run.folder.exists()
    assert run("overwrite=true").summary["steps"] == 4
    assert not list(run.folder.parent.glob(".run*"))


def interrupted(path, ignore_errors=False):
    if not ignore_errors:
        raise InterruptedError
