"""Asking a server, measured: rate, memory, processor time, and what a kill costs. The server is a local one."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from benchmarks.data import in_repeats
from benchmarks.job import OURS, Job
from benchmarks.process import ROOT, Result, Worker, take_turns
from benchmarks.stages import Bench, stage

if TYPE_CHECKING:
    from multifaceted.inference.requests import Request

CALLS = {"tiny": 320, "cpu": 921 * 4 * 3}
"""At full size those of a judge for one model: prompts, rubrics, runs (arXiv 2405.17977)."""
DELAY = 1.0
"""Seconds until the server answers."""
IN_FLIGHT = 64
FAULTS = 0.05
TIMEOUT = 5.0
WORDS = 700
"""Of a prompt: about 4,000 characters."""
MODEL = "judge"


@contextlib.contextmanager
def server(delay: float, faults: float = 0.0) -> Iterator[str]:
    """A server in a process of its own; gives its address."""
    command = [sys.executable, "-m", "tests.inference.server", "--delay", str(delay), "--faults", str(faults)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


def counts(address: str) -> dict[str, Any]:
    """What the server has seen."""
    with urllib.request.urlopen(address.replace("/v1", "/counts"), timeout=30) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def _job(bench: Bench, address: str, ledger: Path) -> Job:
    number = CALLS[bench.size]
    settings = {"address": address, "ledger": str(ledger), "in_flight": IN_FLIGHT}
    return bench.job(
        OURS, "none", task="calls", examples=number, step_examples=number, max_repeats=1, settings=settings
    )


def _record(bench: Bench, workload: str, result: Result, **settings: Any) -> None:
    bench.record.row(workload, result)
    found = {"in_flight": IN_FLIGHT, **settings, **result.facts.get("found", {})}
    bench.record.content["rows"][-1]["settings"] = found
    if result.error:
        raise RuntimeError(result.error)


def steady(bench: Bench, budget: float) -> None:
    """A server that answers after a while: the rate that so many calls in flight allow, and the memory it takes."""
    with server(DELAY) as address, tempfile.TemporaryDirectory() as folder:
        (result,) = take_turns([_job(bench, address, Path(folder) / "ledger.sqlite")], budget)
    _record(bench, f"{CALLS[bench.size]} calls, answered after {DELAY:g} s", result)
    bench.record.figure("calls_rate", [rate * DELAY / IN_FLIGHT for rate in result.rates])
    bench.record.figure("calls_memory", [result.facts["peak_gb"] / result.facts["peak_gb_at_tenth"]])
    bench.record.figure("calls_memory_later", [result.facts["peak_gb"] / result.facts["peak_gb_at_half"]])


def ceiling(bench: Bench, budget: float) -> None:
    """A server that answers at once: what the client itself can do, beside the server on the same machine."""
    with server(0.0) as address, tempfile.TemporaryDirectory() as folder:
        (result,) = take_turns([_job(bench, address, Path(folder) / "ledger.sqlite")], budget)
    _record(bench, f"{CALLS[bench.size]} calls, answered at once", result)
    bench.record.figure("calls_ceiling", result.rates)
    bench.record.figure("calls_processor", [result.facts["found"]["processor_ms_a_call"]])


def killed(bench: Bench, budget: float) -> None:
    """Faults, and a kill in the middle; then the same again, which ends it.

    An answer that the server computed and we did not get may be paid for twice. The ledger has it as lost: what was in
    flight at the kill, and what came too late. Beyond that nothing is paid for twice, and nothing that came is lost.
    """
    from multifaceted.inference.ledger import Ledger

    number, began = CALLS[bench.size], time.monotonic()
    with server(DELAY, FAULTS) as address, tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.sqlite"
        job = _job(bench, address, path)
        _kill_at(job, number // 2, address, budget)
        with Ledger(path) as ledger:
            before = ledger.totals(MODEL)
        (result,) = take_turns([job], budget / 2)
        result.seconds = [time.monotonic() - began]  # of both halves, and of starting twice
        seen = counts(address)
        with Ledger(path) as ledger:
            after = ledger.totals(MODEL)
    timeouts = seen["met"].get("timeout", 0)
    found = {
        "kept_at_kill": before.replies,
        "in_flight_at_kill": before.sends - before.replies - before.refused - before.lost,
        "lost": after.lost,
        "too_late": timeouts,
        "paid": seen["paid"],
        "paid_again": seen["paid_again"],
        "sends": after.sends,
    }
    _record(bench, f"{number} calls, {FAULTS:.0%} faults, killed at half, resumed", result, **found)
    bench.record.figure("calls_not_answered", [number - after.replies])
    bench.record.figure("calls_not_kept", [before.replies - result.facts["found"]["kept"]])
    bench.record.figure("calls_paid_again", [seen["paid_again"] - timeouts])
    bench.record.figure("calls_paid_unaccounted", [seen["paid_again"] - after.lost])


def _kill_at(job: Job, number: int, address: str, budget: float) -> None:
    """Start a job, and kill its process once the server was asked so often."""
    worker = Worker(job)
    deadline = time.monotonic() + 2 * budget + 60
    try:
        worker.next_event(deadline)
        worker.tell("go")
        while counts(address)["asked"] < number:
            if time.monotonic() > deadline:
                raise TimeoutError("half of the calls took longer than the time that was left")
            time.sleep(0.1)
    finally:
        worker.end()


class Verdicts(Sequence["Request"]):
    """Requests that are written when they are looked at, so that their number takes no memory."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __len__(self) -> int:
        return self._number

    @overload
    def __getitem__(self, place: int) -> Request: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Request]: ...
    def __getitem__(self, place: int | slice) -> Request | Sequence[Request]:
        from multifaceted.inference.requests import Request

        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(self._number))]
        if place >= self._number:
            raise IndexError(place)
        text = f"Response {place}. " + "words " * WORDS
        return Request(id=f"verdict-{place}", messages=[{"role": "user", "content": text}])


def measure(job: Job) -> dict[str, Any]:
    """In a process of its own: every call, and what it took."""
    from benchmarks.memory import peak_gb
    from multifaceted.inference.server import ServerEngine

    engine = ServerEngine(
        model=MODEL,
        ledger=Path(job.settings["ledger"]),
        base_url=job.settings["address"],
        in_flight=job.settings["in_flight"],
        timeout=TIMEOUT,
    )
    facts: dict[str, Any] = {"kept": 0}

    def ask() -> None:
        for number, reply in enumerate(engine.answer(Verdicts(job.examples), seed=0), start=1):
            facts["kept"] += reply.was_kept
            if number == job.examples // 10:
                facts["peak_gb_at_tenth"] = peak_gb("cpu")
            if number == job.examples // 2:
                facts["peak_gb_at_half"] = peak_gb("cpu")

    _, processor_seconds = in_repeats(ask)
    found = {"kept": facts["kept"], "processor_ms_a_call": round(1000 * min(processor_seconds) / job.examples, 2)}
    return {"found": found, **{name: facts[name] for name in ("peak_gb_at_tenth", "peak_gb_at_half")}}


INFERENCE_STAGES = [
    stage("calls: the client's own ceiling", 1, ceiling),
    stage("calls: a server that takes its time", 4, steady),
    stage("calls: faults and a kill", 5, killed),
]
