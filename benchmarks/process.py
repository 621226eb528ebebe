"""Processes that measure: started, told to go on, read, and ended when they take too long."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.job import Job
from benchmarks.protocol import PREFIX

ROOT = Path(__file__).parents[1]


class WorkerError(Exception):
    """A process failed or took too long."""


class Worker:
    """One process with one job. Its other output goes to a file, of which an error shows the end."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - as long as self
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", job.to_json()],
            cwd=ROOT,
            env={**os.environ, "TQDM_DISABLE": "1", "TOKENIZERS_PARALLELISM": "false", "WANDB_MODE": "disabled"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self._events: queue.Queue[dict[str, Any] | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(PREFIX):
                self._events.put(json.loads(line.removeprefix(PREFIX)))
        self._events.put(None)

    def next_event(self, deadline: float) -> dict[str, Any]:
        """What the process says next.

        Args:
            deadline: in seconds of `time.monotonic`.

        Raises:
            WorkerError: it ended, or said nothing until then.
        """
        try:
            event = self._events.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            self.end()
            raise WorkerError("it took longer than the time that was left") from None
        if event is None:
            code = self._process.wait()
            raise WorkerError(f"exit status {code}: {self._last_error()}")
        return event

    def tell(self, word: str) -> None:
        """Answer a process that waits: "go" or "stop"."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{word}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise WorkerError(f"it ended early: {self._last_error()}") from None

    def end(self) -> None:
        """End the process if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def _last_error(self) -> str:
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors if line.strip()]
        return lines[-1] if lines else "no message"


@dataclass(kw_only=True, slots=True)
class Result:
    """What a job's process measured. With `error`, what it had measured until then."""

    job: Job
    seconds: list[float] = field(default_factory=list)
    """Of each repeat."""
    facts: dict[str, Any] = field(default_factory=dict)
    error: str | None = None

    @property
    def rates(self) -> list[float]:
        """Examples a second, of each repeat."""
        return [self.job.examples / seconds for seconds in self.seconds]


def take_turns(jobs: list[Job], budget: float, *, together: bool = True) -> list[Result]:
    """Measure jobs in turn, A B A B, for `budget` seconds, but at least once each.

    Args:
        together: keep all processes alive, so that the turns alternate; otherwise one process after the other, for
            models of which a device holds one.
    """
    if not together:
        return [result for job in jobs for result in take_turns([job], budget / len(jobs))]
    deadline = time.monotonic() + budget
    results = [Result(job=job) for job in jobs]
    workers: list[Worker | None] = []
    # The least time that a first repeat gets: a tight budget must not turn a slow start into an error.
    grace = 2 * budget + 60
    for result in results:
        workers.append(_started(result, time.monotonic() + grace))
    longest = 0.0
    for _ in range(min(job.max_repeats for job in jobs)):
        began = time.monotonic()
        if longest and began + longest > deadline:
            break
        for worker, result in zip(workers, results, strict=True):
            if worker is not None and result.error is None:
                _repeat(worker, result, time.monotonic() + grace)
        longest = max(longest, time.monotonic() - began)
    for worker, result in zip(workers, results, strict=True):
        if worker is not None:
            _finish(worker, result)
    return results


def _started(result: Result, deadline: float) -> Worker | None:
    """A process that has warmed up and waits."""
    worker = Worker(result.job)
    try:
        event = worker.next_event(deadline)
        if event["event"] != "ready":
            raise WorkerError(f"said {event['event']!r} before it was ready")
    except WorkerError as error:
        result.error = str(error)
        worker.end()
        return None
    return worker


def _repeat(worker: Worker, result: Result, deadline: float) -> None:
    try:
        worker.tell("go")
        result.seconds.append(worker.next_event(deadline)["seconds"])
    except (WorkerError, KeyError) as error:
        result.error = str(error)


def _finish(worker: Worker, result: Result) -> None:
    try:
        if result.error is None:
            worker.tell("stop")
            result.facts = worker.next_event(time.monotonic() + 60)
    except WorkerError as error:
        result.error = str(error)
    finally:
        worker.end()


def ask(job: Job, budget: float) -> tuple[list[dict[str, Any]], str | None]:
    """All that a job without repeats says within `budget` seconds, and an error if it did not come to its end."""
    worker, events = Worker(job), []
    deadline = time.monotonic() + max(budget, 60)  # less is not enough to import everything on a busy machine
    try:
        while (event := worker.next_event(deadline))["event"] != "done":
            if event["event"] == "candidate":
                events.append(event)
        events.append(event)
        return events, None
    except WorkerError as error:
        return events, str(error)
    finally:
        worker.end()
