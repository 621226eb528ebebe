"""What a coroutine gives, one by one, to code that is not asynchronous."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")
Give = Callable[[T], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _End:
    error: BaseException | None


def stream(produce: Callable[[Give[T]], Coroutine[Any, Any, None]], backlog: int) -> Iterator[T]:
    """Iterate over what a coroutine gives, which runs in a thread and an event loop of its own.

    The loop goes on while the caller works, and works inside another event loop as well. The coroutine waits once
    `backlog` items are not fetched yet. It is cancelled when the caller stops iterating; its error
    becomes the caller's.
    """
    items: queue.SimpleQueue[T | _End] = queue.SimpleQueue()
    loop = asyncio.new_event_loop()
    room = asyncio.Semaphore(backlog)

    async def give(item: T) -> None:
        await room.acquire()
        items.put(item)

    task = loop.create_task(produce(give))

    def run() -> None:
        error: BaseException | None = None
        try:
            loop.run_until_complete(task)
        except (Exception, asyncio.CancelledError) as raised:
            error = raised
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()
            items.put(_End(error))

    thread = threading.Thread(target=run, name="multifaceted-inference", daemon=True)
    thread.start()
    try:
        while not isinstance(item := items.get(), _End):
            with contextlib.suppress(RuntimeError):  # the loop is closed: there is nobody left to wait
                loop.call_soon_threadsafe(room.release)
            yield item
        if item.error is not None:
            raise item.error
    finally:
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(task.cancel)
        thread.join()
