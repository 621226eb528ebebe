"""N ranks from one command: the composing process starts them, passes signals on, and waits."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, TypeVar, cast

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from multifaceted.training.ranks import STOP_SIGNALS

T = TypeVar("T")

LOST = ("by peer", "remote process exited")
"""What gloo and NCCL say on a rank that misses another."""


class RankFailedError(RuntimeError):
    """A rank died; all have stopped, and the last checkpoint is kept."""


class RankRefusedError(ValueError):
    """A rank refused its input."""


def launch(num_ranks: int, entry: Callable[..., T], *arguments: Any) -> T:
    """Call `entry(*arguments)` in `num_ranks` processes on this machine; returns what the first rank returned.

    Stop signals are for the ranks, which save and return. Before they train or after it, a signal ends them, and then
    this process too.

    Raises:
        RankRefusedError: with the message of a rank's ValueError or OSError, which the user can mend.
        RankFailedError: names the first rank that failed, and its error.
    """
    with tempfile.TemporaryDirectory(prefix="multifaceted-ranks-") as logs:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=num_ranks,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            run_id=uuid.uuid4().hex,
            max_restarts=0,
            signals_to_handle="SIGQUIT",  # torch's handlers would kill the ranks; ours let them save
            logs_specs=DefaultLogsSpecs(log_dir=logs),
        )
        try:
            with _signals_passed_on() as received:
                results: dict[int, T] = elastic_launch(config, _as_rank)(entry, *arguments)
        except ChildFailedError as error:
            if received:
                signal.raise_signal(received[0])
                raise KeyboardInterrupt from None  # a shell starts what it runs in the background with SIGINT ignored
            rank, failure = error.get_first_failure()
            message = _message(failure)
            if message.startswith(RankRefusedError.__name__):
                raise RankRefusedError(message.partition(": ")[2]) from None
            raise RankFailedError(
                f"rank {rank} of {num_ranks} failed, so all were stopped: {message}. The last checkpoint is kept; the"
                " same command continues"
            ) from None
    return results[0]


def _as_rank(entry: Callable[..., T], *arguments: Any) -> T:
    """What runs in each process."""
    os.setsid()  # a terminal's Ctrl-C then comes once, passed on
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # torch takes KeyboardInterrupt for success
    try:
        return entry(*arguments)
    except (ValueError, OSError) as error:
        raise RankRefusedError(str(error)) from error
    except RuntimeError as error:
        if any(words in str(error) for words in LOST):
            time.sleep(2)  # the rank that was lost is the one to report, and its process may take a moment to end
        raise


def _message(failure: Any) -> str:
    """The error that a rank recorded, or how its process ended."""
    try:
        text = json.loads(failure.message)["message"] if isinstance(failure.message, str) else failure.message
    except (ValueError, KeyError, TypeError):
        text = failure.message
    if isinstance(text, dict):
        text = text.get("message", text)
    return str(text).strip().rstrip(".")


@contextmanager
def _signals_passed_on() -> Iterator[list[int]]:
    """Send stop signals to the ranks instead of acting on them; yields those received so far."""
    received: list[int] = []
    before = {number: signal.getsignal(number) for number in (*STOP_SIGNALS, signal.SIGQUIT)}

    def pass_on(number: int, frame: FrameType | None) -> None:
        received.append(number)
        for process in multiprocessing.active_children():
            with suppress(ProcessLookupError):
                os.kill(cast(int, process.pid), number)

    for number in STOP_SIGNALS:
        signal.signal(number, pass_on)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
