"""Asking a model: a bounded number of requests at once, each claimed in the ledger, tried again, and kept."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt

from multifaceted.inference.background import Give
from multifaceted.inference.entries import Claim, Entry, Kept
from multifaceted.inference.faults import Kind, SendError, remedy_of, seconds_to_wait, shown
from multifaceted.inference.ledger import Ledger
from multifaceted.inference.replies import reply_of
from multifaceted.inference.requests import EngineError, RefusedError, Reply, Request, named
from multifaceted.inference.sending import Sender
from multifaceted.inference.spend import Price, most_tokens

POLL = 0.1
"""Seconds between looks at a reply that another process waits for, or at reserved money that may come free."""
MOST_UNREADABLE = 2
"""Answers to one request that cannot be read: they may be paid for, so it is not asked on and on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """See `RemoteEngine`; `max_completion` is the most tokens of a reply."""

    in_flight: int
    attempts: int
    max_completion: int
    max_requests: int | None
    max_spend: float | None


@dataclass(kw_only=True, slots=True)
class Counts:
    """What this run has done so far.

    Attributes:
        lost: sends that may be paid for and gave nothing.
        unanswered: requests that were given up.
    """

    answered: int = 0
    kept: int = 0
    retries: int = 0
    lost: int = 0
    unanswered: int = 0
    spent: float = 0.0

    def __str__(self) -> str:
        done = f"{self.answered:,} answered, {self.kept:,} kept, {self.retries:,} retries"
        failed = {"sent in vain": self.lost, "without an answer": self.unanswered}
        return f"{done}{''.join(f', {n:,} {what}' for what, n in failed.items() if n)}, spent {self.spent:,.4f}"


@dataclass(kw_only=True, slots=True)
class _Sending:
    """A request on its way.

    Attributes:
        answered_before: replies that had come to others when it set out.
        sends: how often it was sent in this run.
        unreadable: how often what came back could not be read.
    """

    request: Request
    body: dict[str, Any]
    entry: Entry
    answered_before: int
    sends: int = 0
    unreadable: int = 0

    def is_worth_another(self, error: BaseException) -> bool:
        """Whether to try again after this error, which is to be told once."""
        if not isinstance(error, SendError):
            return False
        self.unreadable += error.kind is Kind.UNREADABLE
        return error.kind is Kind.PASSES or (error.kind is Kind.UNREADABLE and self.unreadable < MOST_UNREADABLE)


@dataclass(kw_only=True, slots=True)
class Asking:
    """One run over some requests.

    Attributes:
        connect: what sends them.
        body_of: what is sent for a request.
        entry_of: the ledger's entry for a request and its body.
        unanswered: by what a request without an answer is called, why.
        refused: by id, those that would get none another time either.
        failure: why no more is asked.
    """

    connect: Callable[[], Sender]
    ledger: Path
    price: Price
    limits: Limits
    body_of: Callable[[Request], dict[str, Any]]
    entry_of: Callable[[Request, dict[str, Any]], Entry]
    counts: Counts = field(default_factory=Counts)
    unanswered: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    failure: EngineError | None = None

    async def run(self, requests: Sequence[Request], give: Give[Reply]) -> None:
        """Give the reply to every request.

        Raises:
            EngineError: see `RemoteEngine.answer`.
        """
        with Ledger(self.ledger) as ledger:
            ledger.lose_what_the_dead_asked()
            async with contextlib.aclosing(self.connect()) as sender:
                pending = iter(requests)
                number = min(self.limits.in_flight, len(requests))
                work = (self._work(pending, ledger, sender, give) for _ in range(number))
                outcomes = await asyncio.gather(*work, return_exceptions=True)  # each keeps what it has in flight
                for error in filter(None, outcomes):
                    raise error
            if self.failure is not None or self.unanswered:
                raise self._stopped(ledger, requests)

    async def _work(self, pending: Iterator[Request], ledger: Ledger, sender: Sender, give: Give[Reply]) -> None:
        """Take requests, which other workers take too, until there are none or the run has failed."""
        for request in pending:
            if self.failure is not None:
                return
            try:
                reply = await self._reply(request, ledger, sender)
            except (EngineError, sqlite3.Error) as error:
                self.failure = self.failure or _as_engine_error(error, self.ledger)
                return
            except Exception as error:
                self.failure = self.failure or EngineError(f"request {request.shown!r}: {type(error).__name__}")
                raise
            if reply is not None:
                await give(reply)

    async def _reply(self, request: Request, ledger: Ledger, sender: Sender) -> Reply | None:
        """The reply to one request, after as many attempts as it takes; None where others may fare better."""
        body = self.body_of(request)
        sending = _Sending(
            request=request,
            body=body,
            entry=self.entry_of(request, body),
            answered_before=self.counts.answered,
        )
        retrying = AsyncRetrying(
            stop=stop_after_attempt(self.limits.attempts),
            wait=seconds_to_wait,
            retry=retry_if_exception(sending.is_worth_another),
            before_sleep=self._count_retry,
            reraise=True,
        )
        try:
            return await retrying(self._attempt, sending, ledger, sender)
        except SendError as fault:
            reason = self._reason(fault, sending, sender)
            if self._is_of_all(fault, sending):
                raise EngineError(reason) from None  # the cause may hold the key
            self.unanswered[request.shown] = reason
            if fault.kind is Kind.REFUSED:
                self.refused[request.id] = reason
            self.counts.unanswered += 1
            return None

    def _is_of_all(self, fault: SendError, sending: _Sending) -> bool:
        """Whether other requests would fail too: by its kind, or because none was answered since this one set out."""
        if fault.kind in (Kind.ENDS, Kind.REFUSED):
            return fault.kind is Kind.ENDS
        return self.counts.answered == sending.answered_before

    def _reason(self, fault: SendError, sending: _Sending, sender: Sender) -> str:
        often = f" {sending.sends} times" if sending.sends > 1 else ""
        remedy = remedy_of(fault, sending.body["messages"])
        said = shown(fault.reason, sender.secrets)
        return f"request {sending.request.shown!r} failed{often}: {said}" + (f"; {remedy}" if remedy else "")

    async def _attempt(self, sending: _Sending, ledger: Ledger, sender: Sender) -> Reply:
        request, entry = sending.request, sending.entry
        if (found := await self._claim(request, entry, ledger)) is not None:
            reply = reply_of(request.id, found.reply, was_kept=True)
            self.counts.kept += 1
            return reply
        sending.sends += 1
        try:
            text = await sender.send(sending.body)
            reply = reply_of(request.id, text)
        except SendError as fault:
            (ledger.lose if fault.may_be_paid else ledger.refuse)(entry)
            self.counts.lost += fault.may_be_paid
            raise
        cost = self._cost(reply)
        ledger.settle(entry, text, cost)
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
        why = [] if self.failure is None else [str(self.failure)]
        if self.unanswered:
            first = next(iter(self.unanswered.values()))
            why.append(f"{len(self.unanswered):,} have no answer, {named(list(self.unanswered))}; the first: {first}")
        done = self.counts.answered + self.counts.kept
        totals = ledger.totals(self.entry_of(requests[0], self.body_of(requests[0])).model)
        lost = f", {totals.lost:,} of them without an answer," if totals.lost else ""
        message = (
            "\n".join(why) + f"\n{done:,} of {len(requests):,} requests are answered, and every reply is kept in"
            f" {self.ledger}, which counts {totals.sends:,} sent{lost} and {totals.spent:,.4f} spent on this model."
            " The same command goes on from there"
        )
        return EngineError(message) if self.failure is not None else RefusedError(message, self.refused)


def _as_engine_error(error: EngineError | sqlite3.Error, ledger: Path) -> EngineError:
    return error if isinstance(error, EngineError) else EngineError(f"{ledger} cannot be written: {error}")
