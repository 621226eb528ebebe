"""Sweeps: a job that fails does not end one, the table says why, and a repeated one runs only what is missing."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from multifaceted.config import job_name
from multifaceted.record_files import read_json, write_json
from multifaceted.records import FAILURE, SCORES, SUMMARY, SWEEP, Estimate, Scores
from multifaceted.sweep import job_record, sweep_table
from tests.conftest import ROOT, TINY


def test_a_job_is_named_by_what_the_study_is_about():
    assert job_name("mix", ["+experiment=mix_sweep", "mix=style"]) == "style"
    assert job_name("mix", ["+experiment=mix_sweep", "mix=style", "seed=1"]) == "style_seed-1"
    assert job_name("mix", ["mix=all", "evaluate_after=mini", "logger.group=x"]) == "all"


def test_the_table_is_read_from_records(tmp_path):
    passed, failed = tmp_path / "style", tmp_path / "all"
    write_json(passed / SUMMARY, {"version": 1, "val/loss": 0.5})
    estimate = Estimate(value=0.75, low=0.7, high=0.8, n=4)
    write_json(passed / "eval" / "mini" / SCORES, Scores(task="mini", policy={}, metrics={"seen/adherence": estimate}))
    write_json(failed / FAILURE, {"version": 1, "code": 2, "error": "no such file"})
    rows = [job_record(passed, 3.0), job_record(failed, 1.0)]
    assert [row["state"] for row in rows] == ["passed", "failed"]
    table = sweep_table(rows, ["val/loss", "seen/adherence", "val/never"])
    assert "0.75" in table and "all: no such file" in table and "never" not in table


EVALUATED = 'evaluate_after=["task=mini","task.num_prompts=4","engine.max_tokens=8"]'


def sweep(folder, *overrides):
    paths = [f"hydra.sweep.dir={folder}", "hydra.sweep.subdir=${hydra:job.num}", f"paths.cache={folder}/cache"]
    command = [sys.executable, "train.py", "-m", "+experiment=mix_sweep", "mix=style", *TINY, *paths, EVALUATED]
    return [*command, *overrides]


@pytest.mark.slow
def test_a_sweep_survives_a_failing_job_and_repeated_runs_what_is_missing(tmp_path):
    arguments = sweep(tmp_path, "max_steps=2", f"start=null,{tmp_path}/later")
    first = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert first.returncode == 1 and "1 of 2 jobs failed" in first.stdout, first.stdout + first.stderr
    assert re.search(r"1: error: start=.*does not exist", first.stdout) and "Traceback" not in first.stderr
    shutil.copytree(tmp_path / "0" / "policy", tmp_path / "later")
    again = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert again.returncode == 0, again.stdout + again.stderr
    assert again.stdout.count("is finished") == 1
    jobs = read_json(tmp_path / SWEEP)["jobs"]
    assert [(job["job"], job["state"], job["error"]) for job in jobs] == [("0", "passed", None), ("1", "passed", None)]
    assert all("one_dimension/adherence/style" in job["metrics"] for job in jobs)


@pytest.mark.slow
def test_ctrl_c_saves_the_job_and_ends_the_sweep(tmp_path):
    arguments = sweep(tmp_path, "seed=0,1", "max_steps=600", "data.source.num_examples=2400", "validation.times=1")
    process = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "0" / "metrics.jsonl"
    deadline = time.monotonic() + 200
    while not (metrics.exists() and metrics.stat().st_size > 3000):
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=100)
    assert process.returncode == 128 + signal.SIGINT, output + errors
    assert "The same command continues" in output and not (tmp_path / "1").exists()
    assert list((tmp_path / "0" / "checkpoints").glob("step-*"))
    continued = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False, timeout=400)
    assert continued.returncode == 0 and "resuming at step" in continued.stdout, continued.stdout + continued.stderr


@pytest.mark.slow
def test_a_sweep_under_a_launcher_is_refused(tmp_path):
    launched = {**os.environ, "TORCHELASTIC_RUN_ID": "a", "RANK": "0", "WORLD_SIZE": "2"}
    refused = subprocess.run(
        sweep(tmp_path, "seed=0,1"), cwd=ROOT, env=launched, capture_output=True, text=True, check=False, timeout=100
    )
    assert refused.returncode == 2 and "leave torchrun or srun out" in refused.stderr
    assert not (tmp_path / "1").exists()
