"""Throughput counts useful work, and no time in which nothing is trained."""

import time
from types import SimpleNamespace

import pytest

from multifaceted.model.flops import Flops
from multifaceted.record_files import read_jsonl
from multifaceted.records import METRICS
from multifaceted.training.hardware import Device
from multifaceted.training.ranks import Ranks
from multifaceted.training.throughput import Peak, Throughput
from multifaceted.work import Work
from tests.conftest import TINY
from tests.model.test_score import models
from tests.training.test_plan import config_of, planned_rows

FLOPS = Flops(frozen=0, trained=1000, pair=0, head=0, head_is_trained=True, reads_rewards=False)


class Log:
    def __init__(self):
        self.rows = []

    def log_metrics(self, values, step):
        self.rows.append((step, values))


def trainer(step, log, every=2):
    return SimpleNamespace(global_step=step, log_every_n_steps=every, loggers=[log])


def step_of(tokens, padding=0):
    work = Work(tokens=tokens, laid_out=tokens + padding, padding=padding)
    return SimpleNamespace(examples=4, work=work)


def test_rates_are_of_the_steps_since_the_last_log():
    log, throughput = Log(), Throughput(Ranks(), Peak(flops=FLOPS, per_second=1e6))
    throughput.on_train_start(trainer(0, log), None)
    for step, tokens in enumerate((10, 20, 30, 40), start=1):
        time.sleep(0.02)
        throughput.on_train_batch_end(trainer(step, log), None, None, step_of(tokens, padding=tokens), step)
    assert [step for step, _ in log.rows] == [2, 4]
    for (_, values), tokens in zip(log.rows, (30, 70), strict=True):
        seconds = 8 / values["throughput/examples_per_second"]
        assert seconds >= 0.04
        assert values["throughput/tokens_per_second"] == pytest.approx(tokens / seconds)
        assert values["throughput/mfu"] == pytest.approx(3 * 1000 * tokens / seconds / 1e6)
        assert values["throughput/padding_share"] == 0.5


def test_validation_and_checkpoints_take_no_time():
    log, throughput = Log(), Throughput(Ranks())
    throughput.on_train_start(trainer(0, log), None)
    throughput.on_train_batch_end(trainer(1, log), None, None, step_of(10), 0)
    with throughput.paused():
        time.sleep(0.2)
    throughput.on_validation_start(trainer(1, log), None)
    with throughput.paused():
        time.sleep(0.2)
    time.sleep(0.2)
    throughput.on_validation_end(trainer(1, log), None)
    throughput.on_train_end(trainer(1, log), None)
    assert throughput.total.seconds < 0.19
    assert "throughput/mfu" not in throughput.summary(), "no peak is known"


def test_a_peak_is_that_of_a_known_device():
    model, _ = models("llama")
    known = Device(name="h100", memory_gib=80, tflops=989)
    assert Peak.of(model, known, Ranks(world_size=2)).per_second == pytest.approx(2 * 989e12)
    assert Peak.of(model, Device(name="cpu", memory_gib=8), Ranks()) is None


def test_a_run_logs_and_sums_up_its_throughput(trained):
    outcome = trained("orpo", "validation.times=2", "trainer.log_every_n_steps=2")
    rows = [row for row in read_jsonl(outcome.folder / METRICS) if "throughput/tokens_per_second" in row]
    names = {f"throughput/{name}" for name in ("examples_per_second", "tokens_per_second", "padding_share")}
    assert all(names | {"throughput/peak_memory_gb"} == row.keys() - {"step"} for row in rows)
    summary, rows = outcome.summary, planned_rows(config_of(*TINY))
    seconds = summary["examples"] / summary["throughput/examples_per_second"]
    assert summary["throughput/tokens_per_second"] * seconds == pytest.approx(rows["tokens"])
    assert 0 < seconds < summary["wall_seconds"]
