"""A run that is killed again and again ends with the bytes of one that is not, having seen the same examples."""

import json
import multiprocessing
import os
import random
import signal
import time
from functools import reduce
from importlib import import_module

import pytest

from multifaceted.config import build, to_plain
from multifaceted.record_files import read_json, read_jsonl
from multifaceted.records import METRICS, SUMMARY
from multifaceted.training.checkpoint import checkpoints
from multifaceted.training.config import TrainConfig
from multifaceted.training.module import PreferenceModule
from multifaceted.training.run import run
from tests.conftest import TINY, composed

POINTS = {
    "between two passes of a step": "training.module:PreferenceModule.share_of_step",
    "after an optimizer step, before anything is saved": "training.callbacks:StopOnSignal.on_train_batch_end",
    "when the shards are written": "training.checkpoint:write_json",
    "before the checkpoint has its name": "training.checkpoint:put_in_place",
    "before old checkpoints are pruned": "training.saving:best_of",
    "while an old checkpoint is deleted": "training.checkpoint:shutil.rmtree",
    "while earlier metrics are cut off": "training.callbacks:put_in_place",
    "between the last checkpoint and the export": "training.run:export_model",
    "before the export has its name": "model.export:put_in_place",
    "between the export and the summary": "training.run:write_json",
}
"""What is called at the moment that a test is about."""

ONCE_A_RUN = list(POINTS)[-4:]
FAST = [
    "between two passes of a step",
    "before the checkpoint has its name",
    "while earlier metrics are cut off",
    "before the export has its name",
]

IS_MOMENT = {
    "between two passes of a step": lambda arguments: arguments[1] is arguments[2].passes[1],
    "while an old checkpoint is deleted": lambda arguments: arguments[0].name.endswith(".deleted"),
    "between the export and the summary": lambda arguments: arguments[0].name == SUMMARY,
}
"""Which of its calls are meant, by their arguments, where not all are."""

THREE_EPOCHS = [
    "num_epochs=3",
    "data.source.num_examples=54",  # 40.5 steps; the first epoch ends inside a step, the second with step 27
    "batch.max_tokens=700",
    "checkpoint.every_steps=3",
    "validation.times=4",
]
TWO_EPOCHS = [
    "num_epochs=2",
    "data.source.num_examples=14",  # seven steps
    "batch.max_tokens=700",
    "checkpoint.every_steps=2",
    "validation.times=2",
]


class Killed(BaseException):
    """Stands in for SIGKILL where a test must survive it."""


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def die_here():
    raise Killed


def strike(patch, point, step, death):
    """Have `death` come at a point, once an optimizer step is under way; 0 is before the first."""
    under_way = [0]
    training_step = PreferenceModule.training_step

    def tracked(module, batch, index):
        under_way[0] = module.global_step + 1
        return training_step(module, batch, index)

    patch(PreferenceModule, "training_step", tracked)
    module, path = POINTS[point].split(":")
    *holders, name = path.split(".")
    owner = reduce(getattr, holders, import_module(f"multifaceted.{module}"))
    original = getattr(owner, name)

    def deadly(*arguments, **named):
        if under_way[0] >= step and IS_MOMENT.get(point, lambda _: True)(arguments):
            death()
        return original(*arguments, **named)

    patch(owner, name, deadly)


def train(plain, folder, seen, *kill):
    """Train in a process of its own; the ids of every step go to `seen`."""
    original = PreferenceModule.training_step

    def recorded(module, batch, index):
        with seen.open("a") as stream:
            stream.write(json.dumps([index, [part.ids for part in batch.passes], time.monotonic()]) + "\n")
        return original(module, batch, index)

    PreferenceModule.training_step = recorded
    if kill:
        strike(setattr, *kill, die)
    run(build({key: value for key, value in plain.items() if key != "_target_"}, TrainConfig), plain, folder)


@pytest.fixture(scope="module")
def start():
    """Starts `train` in a process that begins with everything imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["multifaceted.training.run", "tests.conftest"])

    def process(*arguments):
        child = context.Process(target=train, args=arguments)
        child.start()
        return child

    return process


def plain_config(root, *overrides):
    paths = [f"paths.outputs={root}/outputs", f"paths.cache={root}/cache"]
    tiny = [override for override in TINY if not override.startswith("data.source.num_examples")]
    return to_plain(build(composed("train", ["+experiment=orpo", *tiny, *paths, *overrides]), TrainConfig))


def trained_on(seen):
    """Step to the ids, by forward pass, that the final weights were trained on: a rewind replaces what it repeats."""
    return {index: ids for index, ids, _ in map(json.loads, seen.read_text().splitlines())}


def rows(folder):
    """The curve, without what depends on the clock."""
    return [row for row in read_jsonl(folder / METRICS) if not any("per_second" in key for key in row)]


def left_behind(folder):
    """What a run leaves for others."""
    exported = {path.name: path.read_bytes() for path in (folder / "policy").iterdir()}
    measured = ("throughput/", "wall_seconds")
    summary = {k: v for k, v in read_json(folder / SUMMARY).items() if not k.startswith(measured)}
    return exported, summary, [(c.step, c.value) for c in checkpoints(folder / "checkpoints")]


def assert_same_run(killed, whole):
    assert rows(killed) == rows(whole)
    ours, theirs = left_behind(killed), left_behind(whole)
    assert [name for name in theirs[0] if ours[0].get(name) != theirs[0][name]] == []
    assert ours == theirs
    hidden = [*killed.glob(".*"), *killed.glob("checkpoints/.*")]
    assert hidden == [], "leftovers are cleared away"


@pytest.mark.slow
def test_ten_kills(start, tmp_path):
    plain = plain_config(tmp_path, *THREE_EPOCHS)
    whole, killed = tmp_path / "whole" / "run", tmp_path / "killed" / "run"
    child = start(plain, whole, tmp_path / "whole.jsonl")
    child.join()
    assert child.exitcode == 0
    moments = [time for *_, time in map(json.loads, (tmp_path / "whole.jsonl").read_text().splitlines())]
    seconds, rng, seen = moments[-1] - moments[0], random.Random(0), tmp_path / "killed.jsonl"

    for _ in range(3):
        before = seen.stat().st_size if seen.exists() else 0
        child = start(plain, killed, seen)
        while not (seen.exists() and seen.stat().st_size > before):
            assert child.is_alive()
            time.sleep(0.001)
        time.sleep(rng.uniform(0, seconds / 6))
        child.kill()
        child.join()
        assert child.exitcode == -signal.SIGKILL
    in_order = [
        ("between two passes of a step", 22),
        ("after an optimizer step, before anything is saved", 27),  # an epoch's end
        ("when the shards are written", 28),
        ("before the checkpoint has its name", 31),
        ("while an old checkpoint is deleted", 34),
        ("between the last checkpoint and the export", 0),
        ("before the export has its name", 0),
    ]
    for kill in in_order:
        child = start(plain, killed, seen, *kill)
        child.join()
        assert child.exitcode == -signal.SIGKILL, kill
    child = start(plain, killed, seen)
    child.join()
    assert child.exitcode == 0
    assert trained_on(seen) == trained_on(tmp_path / "whole.jsonl")
    assert len(trained_on(seen)) == 41
    assert_same_run(killed, whole)


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """Two epochs, not interrupted."""
    root = tmp_path_factory.mktemp("whole")
    plain = plain_config(root, *TWO_EPOCHS)
    run(build({key: value for key, value in plain.items() if key != "_target_"}, TrainConfig), plain, root / "run")
    return root / "run"


@pytest.mark.parametrize("point", [p if p in FAST else pytest.param(p, marks=pytest.mark.slow) for p in POINTS])
def test_killed_once(point, whole_run, trained, tmp_path, monkeypatch):
    def attempt(*kill):
        with monkeypatch.context() as patched:
            if kill:
                strike(patched.setattr, *kill, die_here)
            trained("orpo", *TWO_EPOCHS, folder=tmp_path / "run", without=["data.source.num_examples"])

    if point == "while earlier metrics are cut off":
        with pytest.raises(Killed):
            attempt("when the shards are written", 5)
    with pytest.raises(Killed):
        attempt(point, 0 if point in ONCE_A_RUN else 5)
    attempt()
    assert_same_run(tmp_path / "run", whole_run)
