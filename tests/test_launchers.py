"""One command under every launcher: the same curve, one voice, exit codes, and what is left when it ends early."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from multifaceted.record_files import read_jsonl
from multifaceted.records import METRICS
from multifaceted.training.checkpoint import checkpoints
from tests.conftest import ROOT, TINY

pytestmark = pytest.mark.slow

STEPS = 200
TRAIN = ["train.py", "+experiment=orpo", *TINY, "data.source.num_examples=800", "validation.times=1"]
TORCHRUN = ["-m", "torch.distributed.run"]


def start(*arguments, **environment):
    """A process that leads a group, as one that a terminal starts."""
    return subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, env={**os.environ, **environment}, start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def finish(*processes):
    """What the processes printed, and their exit codes."""
    try:
        printed = [process.communicate(timeout=200) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [*printed, [process.returncode for process in processes]]


def free_port():
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def train(root, *overrides):
    return [*TRAIN, f"paths.outputs={root}", *overrides]


def folder_in(root):
    [folder] = root.iterdir()
    return folder


def losses(root):
    return {row["step"]: row["train/loss"] for row in read_jsonl(folder_in(root) / METRICS) if "train/loss" in row}


def wait_for_steps(root, *processes):
    deadline = time.monotonic() + 150
    while not any(path.stat().st_size > 5000 for path in root.glob(f"*/{METRICS}")):
        assert time.monotonic() < deadline and all(process.poll() is None for process in processes), finish(*processes)
        time.sleep(0.05)


def ranks_of(process):
    """Process ids of the ranks below a launcher."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(pid) for pid in children if "resource_tracker" not in Path(f"/proc/{pid}/cmdline").read_text()]


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """The curve of one process."""
    root = tmp_path_factory.mktemp("single")
    _, codes = finish(start(*train(root)))
    assert codes == [0]
    return losses(root)


def assert_same_curve(root, single):
    ours = losses(root)
    assert sorted(ours) == list(range(1, STEPS + 1))
    assert [ours[step] for step in range(1, 31)] == pytest.approx([single[step] for step in range(1, 31)], abs=1e-4)
    assert ours[STEPS] == pytest.approx(single[STEPS], rel=0.05), "rounding grows over two hundred steps"


def assert_one_voice(*printed):
    """Tables and progress came from the first rank alone."""
    everything = "".join(output + errors for output, errors in printed)
    assert everything.count("is ready. Next:") == 1
    assert len(re.findall(rf"{STEPS}/{STEPS}", everything)) == 1
    assert "Traceback" not in everything


def test_devices(tmp_path, single):
    printed, codes = finish(start(*train(tmp_path, "strategy=fsdp", "trainer.devices=2")))
    assert codes == [0], printed
    assert_one_voice(printed)
    assert_same_curve(tmp_path, single)


def test_torchrun_on_one_node(tmp_path, single):
    torchrun = [*TORCHRUN, "--standalone", "--nproc-per-node", "2"]
    printed, codes = finish(start(*torchrun, *train(tmp_path, "strategy=fsdp")))
    assert codes == [0], printed
    assert_one_voice(printed)
    assert_same_curve(tmp_path, single)


def test_torchrun_on_two_nodes(tmp_path, single):
    """Two agents that meet through one end point stand in for two hosts."""
    nodes = ["--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-id", "job"]
    torchrun = [*TORCHRUN, *nodes, "--rdzv-endpoint", f"localhost:{free_port()}"]
    agents = [start(*torchrun, *train(tmp_path, "strategy=fsdp")) for _ in range(2)]
    *printed, codes = finish(*agents)
    assert codes == [0, 0], printed
    assert_one_voice(*printed)
    assert_same_curve(tmp_path, single)


def srun(*arguments):
    """Two tasks, each on a node of its own, as srun would start them."""
    step = {
        "SLURM_JOB_ID": "7",
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_NUM_NODES": "2",
        "SLURM_NTASKS": "2",
        "SLURM_NNODES": "2",
        "SLURM_LOCALID": "0",
        "MASTER_PORT": str(free_port()),
    }
    return [start(*arguments, **step, SLURM_PROCID=str(rank), SLURM_NODEID=str(rank)) for rank in range(2)]


def test_srun_that_runs_out_of_time_and_again(tmp_path, single):
    arguments = train(tmp_path, "strategy=fsdp")
    tasks = srun(*arguments)
    wait_for_steps(tmp_path, *tasks)
    for task in tasks:
        task.send_signal(signal.SIGUSR1)
    *printed, codes = finish(*tasks)
    assert codes == [128 + signal.SIGUSR1] * 2, printed
    assert "Stopped by SIGUSR1" in printed[0][0] and "Stopped" not in printed[1][0]
    *printed, codes = finish(*srun(*arguments))
    assert codes == [0, 0], printed
    assert "resuming at step" in printed[0][0]
    assert_one_voice(*printed)
    assert_same_curve(tmp_path, single)


@pytest.mark.parametrize(
    ("number", "to_group"), [(signal.SIGINT, True), (signal.SIGINT, False), (signal.SIGTERM, False)]
)
def test_a_signal_to_the_launching_process(number, to_group, tmp_path, single):
    """Ctrl-C goes to the whole group of a terminal, `kill` and a scheduler's signal to the process alone."""
    arguments = train(tmp_path, "strategy=fsdp", "trainer.devices=2")
    process = start(*arguments)
    wait_for_steps(tmp_path, process)
    (os.killpg if to_group else os.kill)(process.pid, number)
    printed, codes = finish(process)
    assert codes == [128 + number], printed
    assert printed[0].count(f"Stopped by {number.name}") == 1 and "Traceback" not in printed[1]
    stopped_at = checkpoints(folder_in(tmp_path) / "checkpoints")[-1].step
    assert max(losses(tmp_path)) == stopped_at < STEPS
    printed, codes = finish(start(*arguments))
    assert codes == [0], printed
    assert f"resuming at step {stopped_at} of {STEPS}" in printed[0]
    assert_same_curve(tmp_path, single)


def test_a_rank_that_is_killed(tmp_path, single):
    arguments = train(tmp_path, "strategy=fsdp", "trainer.devices=2", "checkpoint.every_steps=10")
    process = start(*arguments)
    wait_for_steps(tmp_path, process)
    victim = ranks_of(process)[1]
    os.kill(victim, signal.SIGKILL)
    printed, codes = finish(process)
    assert codes == [1], printed
    assert re.search(r"error: rank 1 of 2 failed, so all were stopped: .*SIGKILL.*The same command", printed[1], re.I)
    assert checkpoints(folder_in(tmp_path) / "checkpoints")[-1].step % 10 == 0
    printed, codes = finish(start(*arguments))
    assert codes == [0], printed
    assert "resuming at step" in printed[0], printed
    assert_same_curve(tmp_path, single)


def test_a_signal_to_torchrun(tmp_path, single):
    """It passes SIGTERM on to the ranks, which have 30 seconds (--shutdown-timeout) to finish a step and save."""
    torchrun = [*TORCHRUN, "--standalone", "--nproc-per-node", "2"]
    process = start(*torchrun, *train(tmp_path, "strategy=fsdp"))
    wait_for_steps(tmp_path, process)
    process.send_signal(signal.SIGTERM)
    printed, codes = finish(process)
    assert codes == [1], printed
    assert "Stopped by SIGTERM" in printed[0]
    stopped_at = checkpoints(folder_in(tmp_path) / "checkpoints")[-1].step
    assert max(losses(tmp_path)) == stopped_at < STEPS
    printed, codes = finish(start(*torchrun, *train(tmp_path, "strategy=fsdp")))
    assert codes == [0] and f"resuming at step {stopped_at}" in printed[0], printed
    assert_same_curve(tmp_path, single)


def test_torchrun_restarts_a_rank_that_is_killed(tmp_path, single):
    torchrun = [*TORCHRUN, "--standalone", "--nproc-per-node", "2", "--max-restarts", "1"]
    arguments = train(tmp_path, "strategy=fsdp", "checkpoint.every_steps=10")
    # Without it new ranks may read the old ones' addresses: https://github.com/pytorch/pytorch/issues/135712
    process = start(*torchrun, *arguments, TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1")
    wait_for_steps(tmp_path, process)
    os.kill(ranks_of(process)[1], signal.SIGKILL)
    printed, codes = finish(process)
    assert codes == [0], printed
    assert "resuming at step" in printed[0], printed
    assert_same_curve(tmp_path, single)


def test_a_refusal_under_every_launcher_is_one_message(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    overrides = [f"paths.outputs={tmp_path}/file/runs", "strategy=fsdp"]
    printed, codes = finish(start(*TRAIN, *overrides, "trainer.devices=2"))
    assert codes == [2] and "error: cannot write the run folder" in printed[1], printed
    assert "same command continues" not in printed[1]
    overrides = [f"paths.outputs={tmp_path}", "strategy=fsdp", "batch.examples=1"]
    *printed, codes = finish(*srun(*TRAIN, *overrides))
    assert codes == [2, 2], printed
    for (_, errors), who in zip(printed, ("", "rank 1: "), strict=True):
        assert f"{who}error: 2 ranks share 800 training rows, 1 a step" in errors and "Traceback" not in errors
