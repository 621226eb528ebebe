"""What engines have in common that ask a model elsewhere: settings, caps, prices, the ledger, progress."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from tqdm import tqdm

from multifaceted.inference.asking import Asking, Limits
from multifaceted.inference.background import Give, stream
from multifaceted.inference.entries import Entry
from multifaceted.inference.ledger import Ledger
from multifaceted.inference.requests import (
    MOST_TOKENS,
    Reply,
    Request,
    check_requests,
    in_user_turn,
    request_seed,
)
from multifaceted.inference.sending import Sender
from multifaceted.inference.spend import Price, Projection
from multifaceted.records import Sampling

log = logging.getLogger(__name__)

OMISSIBLE = ("temperature", "top_p", "repetition_penalty", "seed")
MOST_IN_FLIGHT = 1000
"""Connections that the openai client opens."""
HOW_ASKED = (
    *("ledger", "base_url", "key_variable", "in_flight", "timeout", "attempts"),
    *("price", "max_requests", "max_spend"),
)
"""Fields by which no reply changes: how it is asked and paid for."""


@dataclass(kw_only=True, slots=True)
class RemoteEngine(ABC):
    """Asks a model elsewhere, so many requests at a time, and keeps every reply in a ledger.

    Attributes:
        model: as whoever serves it calls it.
        revision: what tells weights apart that the server gives the same name; enters the ledger only.
        ledger: the file of all requests and replies; others may share it. Caps hold for a model's totals in it.
        temperature, top_p, repetition_penalty, max_tokens: None leaves it to the request, and to the server where that
            says nothing either; `MOST_TOKENS` of a reply at most.
        omits: settings that are never sent, for models that refuse them.
        top_logprobs: how many of the likeliest first tokens are asked for with their log-probabilities.
        system_in_user: put the system message into the user's turn, for models that take none.
        extra: further settings of a request.
        in_flight: requests at once.
        timeout: seconds for one attempt.
        attempts: how often a request is sent at most when faults pass.
        price: by which spend is counted.
        max_requests, max_spend: caps on what is sent, repeats included, and spent, requests in flight included.
    """

    ENDPOINT: ClassVar[str]
    """What tells the replies of different ways to ask apart in a ledger."""
    FIXED: ClassVar[tuple[str, ...]]
    """What `extra` may not hold beside the settings that are fields."""

    model: str
    ledger: Path
    revision: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None
    max_tokens: int | None = None
    omits: list[str] = field(default_factory=list)
    top_logprobs: int = 0
    system_in_user: bool = False
    extra: dict[str, Any] | None = None
    in_flight: int = 64
    timeout: float = 600.0
    attempts: int = 8
    price: Price = field(default_factory=Price)
    max_requests: int | None = None
    max_spend: float | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.in_flight <= MOST_IN_FLIGHT:
            raise ValueError(f"in_flight is {self.in_flight}; it must be 1 to {MOST_IN_FLIGHT}")
        if self.attempts < 1 or (self.max_tokens is not None and self.max_tokens < 1) or self.timeout <= 0:
            raise ValueError(
                f"attempts={self.attempts} and max_tokens={self.max_tokens} must be at least 1,"
                f" and timeout={self.timeout} above 0"
            )
        if self.max_spend is not None and self.price == Price():
            raise ValueError(f"max_spend={self.max_spend} caps nothing while price.input and price.output are 0")
        if unknown := sorted({*self.omits} - {*OMISSIBLE}):
            raise ValueError(f"omits holds {', '.join(unknown)}; what can be left out is {', '.join(OMISSIBLE)}")
        if not 0 <= self.top_logprobs <= 20:
            raise ValueError(f"top_logprobs is {self.top_logprobs}; servers give 0 to 20")
        fixed = {"model", "messages", "logprobs", "top_logprobs", "max_tokens", *OMISSIBLE, *self.FIXED}
        if clash := sorted(fixed & set(self.extra or ())):
            raise ValueError(f"extra holds {', '.join(clash)}: use the field of that name, or leave it out")

    @abstractmethod
    def _sender(self) -> Callable[[], Sender]:
        """What makes the sender, in the event loop in which it is to be used.

        Raises:
            EngineError: the key cannot be used.
        """

    def check(self) -> None:
        """Refuse what would fail at the first request, without asking anything.

        Raises:
            EngineError: the ledger or the key cannot be used.
        """
        self._sender()
        with Ledger(self.ledger):
            pass

    def answer(self, requests: Sequence[Request], seed: int) -> Iterator[Reply]:
        """One reply a request, each once it is kept; those of earlier runs are given back.

        Raises:
            EngineError: the ledger or the key cannot be used; a cap is reached; the model is not served. What was in
                flight has then been waited for, given and kept. Or single requests are refused or fail too often: the
                others have then been answered.
        """
        check_requests(requests)
        connect = self._sender()
        self._project(requests, seed)
        asking = Asking(
            connect=connect,
            ledger=self.ledger,
            price=self.price,
            limits=Limits(
                in_flight=self.in_flight,
                attempts=self.attempts,
                max_completion=self._most(requests),
                max_requests=self.max_requests,
                max_spend=self.max_spend,
            ),
            body_of=lambda request: self._body(request, seed),
            entry_of=lambda request, body: self._entry(request, body, seed),
        )

        async def run(give: Give[Reply]) -> None:
            await asking.run(requests, give)

        with tqdm(total=len(requests), desc=self.model, unit="request", disable=None) as bar:
            for reply in stream(run, backlog=self.in_flight):
                bar.set_postfix_str(str(asking.counts), refresh=False)
                bar.update()
                yield reply
        log.info("%s: %s", self.model, asking.counts)

    def _project(self, requests: Sequence[Request], seed: int) -> None:
        with Ledger(self.ledger) as ledger:
            wanted = (
                (request.messages, ledger.kept(self._entry(request, self._body(request, seed), seed)) is not None)
                for request in requests
            )
            projection = Projection.over(wanted, self._most(requests), self.price)
            before = ledger.totals(self.model)
        log.info("%s: %s", self.model, projection)
        if self.max_spend is not None and before.spent + projection.price > self.max_spend:
            log.warning(
                "%s may not suffice: %.2f of max_spend=%.2f is spent, and this costs at most %.2f",
                self.model, before.spent, self.max_spend, projection.price,
            )  # fmt: skip

    def _body(self, request: Request, seed: int) -> dict[str, Any]:
        """What is sent, in the form of chat completions."""
        sampling = self._sampling(request)
        settings = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "repetition_penalty": sampling.repetition_penalty,
            "seed": self._seed(request, seed),
        }
        likeliest = {"logprobs": True, "top_logprobs": self.top_logprobs} if self.top_logprobs else {}
        return {
            "model": self.model,
            "messages": in_user_turn(request.messages) if self.system_in_user else list(request.messages),
            "max_tokens": sampling.max_tokens,
            **{name: value for name, value in settings.items() if value is not None and name not in self.omits},
            **likeliest,
            **(self.extra or {}),
        }

    def _sampling(self, request: Request) -> Sampling:
        own = Sampling(
            temperature=self.temperature,
            top_p=self.top_p,
            repetition_penalty=self.repetition_penalty,
            max_tokens=self.max_tokens,
        )
        return own.or_else(request.sampling).or_else(Sampling(max_tokens=MOST_TOKENS))

    def _most(self, requests: Sequence[Request]) -> int:
        """The most tokens of any reply."""
        return max((self._sampling(request).max_tokens or MOST_TOKENS for request in requests), default=MOST_TOKENS)

    def _entry(self, request: Request, body: dict[str, Any], seed: int) -> Entry:
        decides = {"endpoint": self.ENDPOINT, "body": body, "sample": request.sample, "seed": self._seed(request, seed)}
        return Entry.of(self.model, decides | ({} if self.revision is None else {"revision": self.revision}))

    def _seed(self, request: Request, seed: int) -> int:
        return request_seed(seed, request) % 2**31  # servers differ in how many bits they take
