"""What a model is asked and what it answers, whatever engine carries it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable


class EngineError(ValueError):
    """A request, a model or a server that cannot be served; says what to do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One conversation to be answered.

    Attributes:
        id: unique among the requests that are asked together.
        messages: `{"role", "content"}`, the last one the user's.
        sample: which answer to the same messages, for those who want several; each has a stream of its own.
    """

    id: str
    messages: Sequence[dict[str, str]]
    sample: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """An answer.

    Attributes:
        id: of the request.
        finished: whether the model ended it; false when it was cut at the token limit.
        prompt_tokens, completion_tokens: as the engine counts them; None where it does not.
        was_kept: read from a ledger: nothing was asked, and nothing paid.
    """

    id: str
    text: str
    finished: bool
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    was_kept: bool = False


@runtime_checkable
class Engine(Protocol):
    """Turns requests into replies."""

    def answer(self, requests: Sequence[Request], seed: int) -> Iterator[Reply]:
        """One reply a request, in any order, each as soon as it is there.

        Raises:
            EngineError: nothing can be asked, or no more; what was answered before has been given.
        """
        ...
