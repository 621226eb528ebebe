"""Asking a server: a bounded number of requests at once, each claimed in the ledger, tried again, and kept."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt

from multifaceted.inference.background import Give
from multifaceted.inference.entries import Claim, Entry, Kept
from multifaceted.inference.faults import SendError, fault_of, passes, seconds_to_wait
from multifaceted.inference.ledger import Ledger
from multifaceted.inference.requests import EngineError, Reply, Request
from multifaceted.inference.spend import Price, most_tokens

POLL = 0.1
"""Seconds between looks at a reply that another process waits for, or at reserved money that may come free."""
NO_KEY = "none"
"""What the client sends to a server that wants no key; it insists on one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """See `ServerEngine`; `max_completion` is the most tokens of a reply."""

    in_flight: int
    timeout: float
    attempts: int
    max_completion: int
    max_requests: int | None
    max_spend: float | None


@dataclass(kw_only=True, slots=True)
class Counts:
    """What this run has done so far."""

    answered: int = 0
    kept: int = 0
    retries: int = 0
    lost: int = 0
    spent: float = 0.0

    def __str__(self) -> str:
        lost = f", {self.lost:,} without an answer" if self.lost else ""
        return (
            f"{self.answered:,} answered, {self.kept:,} kept, {self.retries:,} retries{lost}, spent {self.spent:,.4f}"
        )


@dataclass(kw_only=True, slots=True)
class Asking:
    """One run over some requests.

    Attributes:
        body_of: what is sent for a request.
        entry_of: the ledger's entry for a request and its body.
        failure: why no more is asked.
    """

    base_url: str
    key: str | None = field(repr=False)
    ledger: Path
    price: Price
    limits: Limits
    body_of: Callable[[Request], dict[str, Any]]
    entry_of: Callable[[Request, dict[str, Any]], Entry]
    counts: Counts = field(default_factory=Counts)
    failure: EngineError | None = None

    async def run(self, requests: Sequence[Request], give: Give[Reply]) -> None:
        """Give the reply to every request.

        Raises:
            EngineError: see `ServerEngine.answer`.
        """
        with Ledger(self.ledger) as ledger:
            ledger.lose_what_the_dead_asked()
            async with openai.AsyncOpenAI(
                api_key=self.key or NO_KEY, base_url=self.base_url, timeout=self.limits.timeout, max_retries=0
            ) as client:
                pending = iter(requests)
                number = min(self.limits.in_flight, len(requests))
                await asyncio.gather(*(self._work(pending, ledger, client, give) for _ in range(number)))
            if self.failure is not None:
                raise self._stopped(ledger, requests)

    async def _work(
        self, pending: Iterator[Request], ledger: Ledger, client: openai.AsyncOpenAI, give: Give[Reply]
    ) -> None:
        """Take requests, which other workers take too, until there are none or the run has failed."""
        for request in pending:
            if self.failure is not None:
                return
            try:
                reply = await self._reply(request, ledger, client)
            except (EngineError, sqlite3.Error) as error:
                self.failure = self.failure or _as_engine_error(error, self.ledger)
                return
            await give(reply)

    async def _reply(self, request: Request, ledger: Ledger, client: openai.AsyncOpenAI) -> Reply:
        """The reply to one request, after as many attempts as it takes."""
        body = self.body_of(request)
        entry = self.entry_of(request, body)
        retrying = AsyncRetrying(
            stop=stop_after_attempt(self.limits.attempts),
            wait=seconds_to_wait,
            retry=retry_if_exception(passes),
            before_sleep=self._count_retry,
            reraise=True,
        )
        try:
            return await retrying(self._attempt, request, body, entry, ledger, client)
        except SendError as fault:
            often = f" {self.limits.attempts} times" if fault.passes else ""
            reason = fault.reason.replace(self.key, "***") if self.key else fault.reason
            raise EngineError(f"request {request.id!r} failed{often}: {reason}") from None  # the cause may hold the key

    async def _attempt(
        self, request: Request, body: dict[str, Any], entry: Entry, ledger: Ledger, client: openai.AsyncOpenAI
    ) -> Reply:
        if (found := await self._claim(request, entry, ledger)) is not None:
            self.counts.kept += 1
            return reply_of(request.id, found.reply, was_kept=True)
        try:
            response = await client.chat.completions.with_raw_response.create(
                model=body["model"],
                messages=body["messages"],
                extra_body={name: value for name, value in body.items() if name not in ("model", "messages")},
            )
            reply = reply_of(request.id, response.text)
        except (openai.OpenAIError, SendError) as error:
            fault = error if isinstance(error, SendError) else fault_of(error)
            (ledger.lose if fault.may_be_paid else ledger.refuse)(entry)
            self.counts.lost += fault.may_be_paid
            raise fault from None
        cost = self._cost(reply)
        ledger.settle(entry, response.text, cost)
        self.counts.answered += 1
        self.counts.spent += self._most(request) if cost is None else cost
        return reply

    async def _claim(self, request: Request, entry: Entry, ledger: Ledger) -> Kept | None:
        """Wait until the request may be sent, or until somebody else has the reply."""
        limits = self.limits
        while True:
            if self.failure is not None:
                raise self.failure
            claim = ledger.claim(
                entry, self._most(request), max_requests=limits.max_requests, max_spend=limits.max_spend
            )
            if isinstance(claim, Kept):
                return claim
            if claim is Claim.GRANTED:
                return None
            if claim is Claim.TOO_MANY:
                raise EngineError(f"max_requests={limits.max_requests} is reached; raise it to go on")
            if claim is Claim.TOO_DEAR:
                raise EngineError(
                    f"max_spend={limits.max_spend} could be exceeded by the next reply; raise it to go on"
                )
            ledger.lose_what_the_dead_asked()
            await asyncio.sleep(POLL)

    def _most(self, request: Request) -> float:
        return self.price.of(most_tokens(request.messages), self.limits.max_completion)

    def _cost(self, reply: Reply) -> float | None:
        """What a reply costs; None where the server does not count tokens."""
        if reply.prompt_tokens is None or reply.completion_tokens is None:
            return None
        return self.price.of(reply.prompt_tokens, reply.completion_tokens)

    def _count_retry(self, state: RetryCallState) -> None:
        self.counts.retries += 1

    def _stopped(self, ledger: Ledger, requests: Sequence[Request]) -> EngineError:
        done = self.counts.answered + self.counts.kept
        totals = ledger.totals(self.entry_of(requests[0], self.body_of(requests[0])).model)
        lost = f", {totals.lost:,} of them without an answer," if totals.lost else ""
        return EngineError(
            f"{self.failure}\n{done:,} of {len(requests):,} requests are answered, and every reply is kept in"
            f" {self.ledger}, which counts {totals.sends:,} sent{lost} and {totals.spent:,.4f} spent on this model."
            " The same command goes on from there"
        )


def reply_of(name: str, text: str, *, was_kept: bool = False) -> Reply:
    """The reply in what a server sent.

    Raises:
        SendError: it is no chat completion.
    """
    try:
        completion = json.loads(text)
        choice = completion["choices"][0]
        content = choice["message"].get("content") or choice["message"].get("refusal") or ""
        usage = completion.get("usage") or {}
        return Reply(
            id=name,
            text=content.encode("utf-16", "surrogatepass").decode("utf-16", "replace"),  # half a character is none
            finished=choice.get("finish_reason") not in ("length", "content_filter"),
            prompt_tokens=usage.get("prompt_tokens"),
            completion_tokens=usage.get("completion_tokens"),
            was_kept=was_kept,
            first_token=_first_token(choice.get("logprobs")),
        )
    except (ValueError, LookupError, TypeError, AttributeError):
        raise SendError(reason=f"no chat completion: {text[:200]!r}", passes=True, may_be_paid=True) from None


def _first_token(logprobs: Any) -> dict[str, float] | None:
    """What could have come first, by text: several tokens may have the same."""
    positions = (logprobs or {}).get("content")
    if not positions:
        return None
    found: dict[str, float] = {}
    for alternative in positions[0]["top_logprobs"]:
        found.setdefault(alternative["token"], float(alternative["logprob"]))
    return found


def _as_engine_error(error: EngineError | sqlite3.Error, ledger: Path) -> EngineError:
    return error if isinstance(error, EngineError) else EngineError(f"{ledger} cannot be written: {error}")
