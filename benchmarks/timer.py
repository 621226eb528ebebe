"""Wall time of optimizer steps inside a trainer's own loop, in repeats that another process asks for."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from benchmarks.protocol import send, told_to_go_on


class Finished(Exception):  # noqa: N818 - nothing went wrong
    """Nobody wants another repeat: leaves the trainer's loop before it validates or saves."""


class Timer:
    """Measures repeats; between two of them the process waits, so that systems take turns.

    A trainer calls `start` when its loop begins and `step_done` where an optimizer step has ended. What a trainer does
    between two steps, such as loading data and logging, is part of the time.
    """

    def __init__(self, *, warmup_steps: int, steps_per_repeat: int, go_on: Callable[[], bool] = told_to_go_on) -> None:
        self.warmup_steps = warmup_steps
        self.steps_per_repeat = steps_per_repeat
        self.go_on = go_on
        self.seconds: list[float] = []
        self._steps = 0
        self._started = 0.0

    def start(self) -> None:
        """The loop begins; without warm-up, so does the first repeat."""
        self._started = time.perf_counter()

    def step_done(self) -> None:
        """An optimizer step has ended.

        Raises:
            Finished: no further repeat is wanted.
        """
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._steps += 1
        measured = self._steps - self.warmup_steps
        if measured == 0:
            send("ready")
        elif measured < 0 or measured % self.steps_per_repeat:
            return
        else:
            self.seconds.append(time.perf_counter() - self._started)
            send("repeat", seconds=self.seconds[-1])
        if not self.go_on():
            raise Finished
        self._started = time.perf_counter()
