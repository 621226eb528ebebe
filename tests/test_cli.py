"""The commands as a user types them, in processes of their own."""

import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import ROOT, TINY

pytestmark = pytest.mark.slow


def command(*arguments):
    return [sys.executable, *arguments]


def run(*arguments):
    return subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)


def test_train_then_evaluate(tmp_path):
    trained = run("train.py", "+experiment=orpo", *TINY, "max_steps=2", f"paths.outputs={tmp_path}")
    assert trained.returncode == 0, trained.stderr
    folder = next(tmp_path.iterdir())
    assert f"python eval.py policy={folder}/policy task=mini" in trained.stdout
    assert "16 examples, 2 steps" in (folder / "run.log").read_text()
    evaluated = run("eval.py", f"policy={folder}/policy", "task.num_prompts=3", "engine.max_tokens=8")
    assert evaluated.returncode == 0, evaluated.stderr
    assert "unseen_combinations" in evaluated.stdout and (folder / "eval/mini_test_seed-0/scores.json").exists()
    again = run("train.py", "+experiment=orpo", *TINY, "max_steps=2", f"paths.outputs={tmp_path}")
    assert again.returncode == 0 and "is finished; overwrite=true starts it anew" in again.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_the_same_command_continues(number, tmp_path):
    arguments = ["train.py", "+experiment=orpo", *TINY, "data.source.num_examples=4000", f"paths.outputs={tmp_path}"]
    arguments += ["validation.times=1", "max_steps=600"]
    process = subprocess.Popen(command(*arguments), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 200
    while not any(path.stat().st_size > 3000 for path in tmp_path.glob("*/metrics.jsonl")):
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()
        time.sleep(0.1)
    process.send_signal(number)
    output, errors = process.communicate(timeout=100)
    assert process.returncode == 128 + number, output + errors
    assert f"Stopped by {number.name}" in output and "The same command continues" in output
    continued = run(*arguments)
    assert continued.returncode == 0 and "resuming at step" in continued.stdout, continued.stderr


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("objective.lamb=1", "config error: unknown key 'objective.lamb'"),
        ("paths.outputs={file}/runs", "error: cannot write the run folder"),
        ("start={file}", "holds no model"),
    ],
)
def test_a_refusal_is_one_message_and_code_two(override, message, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    refused = run("train.py", "+experiment=orpo", *TINY, override.format(file=tmp_path / "file"))
    assert refused.returncode == 2 and message in refused.stderr
    assert "Traceback" not in refused.stderr + refused.stdout


def test_a_policy_that_is_none(tmp_path):
    refused = run("eval.py", f"policy={tmp_path}/nothing")
    assert refused.returncode == 2 and "is not a folder" in refused.stderr
