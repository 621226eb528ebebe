"""A server that answers OpenAI's chat completions after a delay, with faults, and counts what it was asked.

`python -m tests.inference.server --delay 1 --faults 0.05` prints its address; `GET /counts` says what it has seen.
A conversation always gets the same text. Whether a send meets a fault depends on the seed, the conversation and how
often it was sent, so a run is the same every time, whatever the order.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import random
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

# Also "garbage", which is no completion.
KINDS = ("rate_limit", "error", "timeout", "cut", "empty")
NEVER = 3600.0


@dataclass(kw_only=True)
class MockServer:
    """Attributes:
    faults: share of the sends that meet one of `kinds`.
    retry_after: what a rate limit asks to wait.
    refusal: status, code and message with which requests are refused.
    refuses: which of them, by the body; by default all.
    alter: makes another answer of a body and its completion.
    asked, paid: by conversation, how often it was sent, and how often an answer was computed.
    """

    delay: float = 0.0
    faults: float = 0.0
    kinds: tuple[str, ...] = KINDS
    seed: int = 0
    retry_after: float = 0.2
    refusal: tuple[int, str, str] | None = None
    refuses: Callable[[dict], bool] = lambda asked: True
    alter: Callable[[dict, dict], object] = lambda asked, answer: answer
    has_usage: bool = True
    port: int = 0
    asked: Counter = field(default_factory=Counter)
    paid: Counter = field(default_factory=Counter)
    met: Counter = field(default_factory=Counter)
    bodies: list = field(default_factory=list)
    headers: list = field(default_factory=list)
    keeps: int = 1000
    """How many of the bodies and headers are kept to look at."""
    in_flight: int = 0
    most_in_flight: int = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def serve(self, started) -> None:
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0, backlog=2048)
        self.port = server.sockets[0].getsockname()[1]
        started()
        async with server:
            await server.serve_forever()

    async def _connection(self, reader, writer) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                request, *lines = head.decode().split("\r\n")
                headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines if line)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                status, answer, extra = await self._answer(request.split()[1], headers, body)
                content = json.dumps(answer).encode()
                lines = [f"HTTP/1.1 {status} X", f"content-length: {len(content)}", "content-type: application/json"]
                writer.write("\r\n".join([*lines, *extra, "", ""]).encode() + content)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # who was asked is gone, or this server ends
        finally:
            writer.close()

    async def _answer(self, path, headers, body):
        if path == "/counts":
            return 200, self.counts(), []
        if path != "/v1/chat/completions":
            return 404, {"error": {"message": f"no {path} here"}}, []
        asked = json.loads(body)
        if len(self.bodies) < self.keeps:
            self.bodies.append(asked)
            self.headers.append(headers)
        key = hashlib.sha256(json.dumps(asked["messages"]).encode()).hexdigest()
        self.asked[key] += 1
        if self.refusal and self.refuses(asked):
            status, code, message = self.refusal
            return status, {"error": {"message": message, "code": code}}, []
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            return await self._fault_or_completion(key, asked)
        finally:
            self.in_flight -= 1

    async def _fault_or_completion(self, key, asked):
        chance = random.Random(f"{self.seed}:{key}:{self.asked[key]}")
        kind = chance.choice(self.kinds) if chance.random() < self.faults else None
        self.met[kind or "none"] += 1
        if kind == "rate_limit":
            return 429, {"error": {"message": "slow down", "code": "rate_limit"}}, [f"retry-after: {self.retry_after}"]
        if kind == "garbage":
            return 200, {"hello": "world"}, []
        if kind == "error":
            return 500, {"error": {"message": "out of order"}}, []
        self.paid[key] += 1
        await asyncio.sleep(NEVER if kind == "timeout" else self.delay)
        text = f"So it is. [RESULT] {int(key[:8], 16) % 5 + 1}"
        text = {"cut": text[:5], "empty": ""}.get(kind, text)
        message = {"role": "assistant", "content": text or None}
        choice = {"index": 0, "message": message, "finish_reason": "length" if kind == "cut" else "stop"}
        words = sum(len(message["content"].split()) for message in asked["messages"])
        usage = {"prompt_tokens": words, "completion_tokens": len(text.split())}
        usage["total_tokens"] = sum(usage.values())
        if asked.get("logprobs"):
            choice["logprobs"] = {"content": [position(text, asked["top_logprobs"])] if text else []}
        answer = {"id": key, "object": "chat.completion", "created": 0, "model": asked["model"], "choices": [choice]}
        return 200, self.alter(asked, answer | ({"usage": usage} if self.has_usage else {})), []

    def counts(self) -> dict:
        return {
            "asked": self.asked.total(),
            "paid": self.paid.total(),
            "conversations": len(self.paid),
            "paid_again": sum(number - 1 for number in self.paid.values()),
            "in_flight": self.in_flight,
            "most_in_flight": self.most_in_flight,
            "met": self.met,
        }

    def __enter__(self) -> MockServer:
        """Serve from a thread of this process."""
        started = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._task = self._loop.create_task(self.serve(started.set))

        def run() -> None:
            try:
                self._loop.run_until_complete(self._task)
            except asyncio.CancelledError:
                self._loop.run_until_complete(cancel_the_rest())
                self._loop.close()

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        assert started.wait(10)
        return self

    def __exit__(self, *_) -> None:
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(10)


def position(text, number):
    """Log-probabilities of so many first tokens, of which the first word is the likeliest."""
    tokens = [text.split()[0], *(f"<{place}>" for place in range(1, number))]
    likeliest = [{"token": token, "logprob": -0.1 - place} for place, token in enumerate(tokens)]
    return likeliest[0] | {"top_logprobs": likeliest}


async def cancel_the_rest() -> None:
    """End all connections of this loop."""
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--faults", type=float, default=0.0)
    parser.add_argument("--retry-after", type=float, default=1.0)
    arguments = parser.parse_args()
    server = MockServer(**vars(arguments), keeps=0)
    asyncio.run(server.serve(lambda: print(server.address, flush=True)))


if __name__ == "__main__":
    main()
