"""Starting ranks: again and again in one process, what their failures look like, and who SLURM says they are."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from multifaceted.training.launch import RankFailedError, RankRefusedError, launch
from multifaceted.training.ranks import Ranks, adopt_slurm, joined, launched_externally

ROOT = Path(__file__).parents[2]


def rank_entry(what):
    """What a launched rank does."""
    with joined("cpu", alone=True) as ranks:
        if what == "dies" and ranks.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "breaks" and ranks.rank == 1:
            raise RuntimeError("a bug")
        ranks.from_first(lambda: refuse() if what == "refuses" else None)
        return ranks.gather(ranks.rank)


def refuse():
    raise FileNotFoundError("no such data")


@pytest.mark.slow
def test_jobs_follow_one_another_in_one_process_whatever_became_of_the_last():
    handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGQUIT)]
    with pytest.raises(RankFailedError, match=r"rank 1 of 2 failed, so all were stopped: .*SIGKILL.*same command"):
        launch(2, rank_entry, "dies")
    assert launch(2, rank_entry, "works") == [0, 1]
    with pytest.raises(RankRefusedError, match=r"^no such data$"):
        launch(2, rank_entry, "refuses")
    with pytest.raises(RankFailedError, match="rank 1 of 2 failed, so all were stopped: RuntimeError: a bug"):
        launch(2, rank_entry, "breaks")
    assert launch(2, rank_entry, "works") == [0, 1]
    assert not launched_externally()
    assert handlers == [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGQUIT)]


LAUNCHING = """
    import os, time
    from multifaceted.training.launch import launch

    def wait(path):
        open(path + str(os.environ["RANK"]), "w").close()
        time.sleep(60)

    if __name__ == "__main__":
        launch(2, wait, "{path}")
"""


@pytest.mark.slow
@pytest.mark.parametrize("in_background", [False, True])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_outside_of_training_ends_ranks_and_launcher_by_that_signal(number, in_background, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(LAUNCHING.format(path=tmp_path / "started")))
    # A shell starts what it runs in the background with Ctrl-C ignored, and children inherit that.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN if in_background else signal.default_int_handler)
    process = subprocess.Popen([sys.executable, script], start_new_session=True)
    signal.signal(signal.SIGINT, before)
    while len(list(tmp_path.glob("started*"))) < 2:
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, number)
    assert process.wait(timeout=30) in (-number, 128 + number)


@pytest.fixture
def python_signals():
    """Ctrl-C as Python has it: a shell starts what it runs in the background with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_second_ctrl_c_and_a_late_one_are_not_held_back(python_signals):
    from multifaceted.training.callbacks import StopOnSignal

    stop, before = StopOnSignal(Ranks()), signal.getsignal(signal.SIGINT)
    stop.setup(None, None, "fit")
    stop.on_train_start(None, None)
    signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL, "a second one would end the process"
    stop.teardown(None, None, "fit")
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(KeyboardInterrupt):
        stop.pass_on_late()


def slurm(**changes):
    return {
        "SLURM_JOB_ID": "4242",
        "SLURM_STEP_ID": "1",
        "SLURM_STEP_NODELIST": "node[07-08]",
        "SLURM_PROCID": "3",
        "SLURM_LOCALID": "1",
        "SLURM_NTASKS": "4",
        "SLURM_NNODES": "2",
        "SLURM_STEP_NUM_TASKS": "4",
        "SLURM_STEP_NUM_NODES": "2",
        **changes,
    }


def test_srun_is_adopted():
    environment = slurm()
    adopt_slurm(environment)
    assert environment.items() >= {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}.items()
    assert (environment["MASTER_ADDR"], environment["MASTER_PORT"]) == ("node07", "16243")
    assert launched_externally(environment)
    given = slurm(MASTER_ADDR="there", MASTER_PORT="1234")
    adopt_slurm(given)
    assert (given["MASTER_ADDR"], given["MASTER_PORT"]) == ("there", "1234")


def test_a_batch_script_without_srun_is_one_process():
    script = slurm(SLURM_PROCID="0", SLURM_LOCALID="0")
    del script["SLURM_STEP_NUM_TASKS"]
    before = dict(script)
    adopt_slurm(script)
    assert script == before and not launched_externally(script)


def test_unequal_nodes_are_refused():
    with pytest.raises(ValueError, match=r"3 tasks on 2 nodes.*--ntasks-per-node"):
        adopt_slurm(slurm(SLURM_STEP_NUM_TASKS="3"))


def test_what_the_first_rank_does_is_everyones():
    assert Ranks().from_first(lambda: 7) == 7
    with pytest.raises(FileNotFoundError):
        Ranks().from_first(refuse)


def test_a_rank_that_sees_one_gpu_takes_it(monkeypatch):
    rank = Ranks(rank=3, world_size=4, local_rank=3, local_world_size=4, device_type="cuda")
    for visible, index in ((4, 3), (1, 0)):
        monkeypatch.setattr("torch.cuda.device_count", lambda visible=visible: visible)
        assert rank.device.index == index


@pytest.mark.parametrize(("code", "is_requeued"), [(0, False), (1, False), (138, True), (143, False)])
def test_the_slurm_script_requeues_a_job_that_ran_out_of_time(code, is_requeued, tmp_path):
    for name, body in {
        "srun": f'echo "$@" > {tmp_path}/started; exit {code}',
        "scontrol": f'echo "$@" > {tmp_path}/asked',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    job = {"SLURM_JOB_ID": "42", "SLURM_CPUS_PER_TASK": "8", "SLURM_SUBMIT_DIR": str(tmp_path)}
    script = ROOT / "docs" / "slurm.sbatch"
    done = subprocess.run(
        ["bash", script, "+experiment=orpo", "seed=1"],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", **job},
        check=False,
    )
    assert done.returncode == code
    assert (tmp_path / "started").read_text().endswith("train.py strategy=fsdp trainer=gpu +experiment=orpo seed=1\n")
    assert (tmp_path / "asked").exists() == is_requeued
    if is_requeued:
        assert (tmp_path / "asked").read_text() == "requeue 42\n"
