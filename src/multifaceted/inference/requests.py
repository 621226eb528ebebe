"""What a model is asked and what it answers, whatever engine carries it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from multifaceted.records import Sampling

PAPER = Sampling(temperature=1.0, top_p=0.9, repetition_penalty=1.03, max_tokens=4096)
"""How responses are drawn in the paper (arXiv 2405.17977, appendix); its code stops at 1,024 tokens."""
MOST_TOKENS = 4096
"""Of an answer, where nobody says anything else."""


class EngineError(ValueError):
    """A request, a model or a server that cannot be served; says what to do."""


class RefusedError(EngineError):
    """Some requests got no answer and the others have theirs.

    Attributes:
        refused: by id of a request that would be refused again, why. Others failed in another way.
    """

    def __init__(self, message: str, refused: Mapping[str, str]) -> None:
        super().__init__(message)
        self.refused = refused


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One conversation to be answered.

    Attributes:
        id: unique among the requests that are asked together.
        messages: `{"role", "content"}`, the last one the user's.
        sample: which answer to the same messages, for those who want several; each has a stream of its own.
        sampling: how to answer, where the engine's own settings leave that open.
        label: what messages call it where its id is not for people; no reply depends on it.
    """

    id: str
    messages: Sequence[dict[str, str]]
    sample: int = 0
    sampling: Sampling = field(default_factory=Sampling)
    label: str = ""

    @property
    def shown(self) -> str:
        """What messages call it."""
        return self.label or self.id

    @property
    def turn(self) -> int:
        """How many answers the conversation has already."""
        return sum(message["role"] == "assistant" for message in self.messages)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """An answer.

    Attributes:
        id: of the request.
        text: empty where the model said nothing, which is an answer too.
        finished: whether the model ended it; false when it was cut at the token limit.
        prompt_tokens, completion_tokens: as the engine counts them; None where it does not.
        was_kept: read from a ledger: nothing was asked, and nothing paid.
        first_token: the likeliest first tokens, as text, to their log-probabilities; None where that was not asked for.
    """

    id: str
    text: str
    finished: bool
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    was_kept: bool = False
    first_token: Mapping[str, float] | None = None


@runtime_checkable
class Engine(Protocol):
    """Turns requests into replies."""

    def answer(self, requests: Sequence[Request], seed: int) -> Iterator[Reply]:
        """One reply a request, in any order, each as soon as it is there.

        Raises:
            EngineError: nothing can be asked, or no more; what was answered before has been given.
        """
        ...


def request_seed(seed: int, request: Request) -> int:
    """The seed of one request's stream, below 2**48: by the run's seed, the request's id, its sample and its turn."""
    turn = f".{request.turn}" if request.turn else ""
    digest = hashlib.sha256(f"generation:{seed}:{request.sample}{turn}:{request.id}".encode()).digest()
    return int.from_bytes(digest[:6], "big")


def in_user_turn(messages: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    r"""The same conversation for a model whose template has no place for a system message.

    The system message begins the first user's message, before a line break, as Janus's template has it.

    >>> in_user_turn([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is snow?"}])
    [{'role': 'user', 'content': 'Be brief.\nWhat is snow?'}]
    """
    stated = [message["content"] for message in messages if message["role"] == "system" and message["content"]]
    rest = [dict(message) for message in messages if message["role"] != "system"]
    first = next((message for message in rest if message["role"] == "user"), None)
    if first is not None:
        first["content"] = "\n".join([*stated, first["content"]])
    return rest


def whole_characters(text: str) -> str:
    r"""A text that can be written: JSON can hold half a character, which is none.

    >>> whole_characters("\ud83d\ude00 and \ud83d")
    '😀 and �'
    """
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def check_requests(requests: Iterable[Request]) -> None:
    """Refuse what no engine could answer or tell apart.

    Raises:
        EngineError: an id that occurs twice; a conversation whose last message is not the user's; half a character.
    """
    ids: Counter[str] = Counter()
    for request in requests:
        ids[request.id] += 1
        last = request.messages[-1]["role"] if request.messages else "nobody"
        if last != "user":
            raise EngineError(f"request {request.shown!r}: the last message is by {last}; an answer follows the user's")
        for message in request.messages:
            if whole_characters(message["content"]) != message["content"]:
                raise EngineError(
                    f"request {request.shown!r}: the {message['role']}'s message holds half a character (half of a"
                    " surrogate pair, such as \\ud83d alone), which cannot be sent; mend or remove it"
                )
    if twice := [name for name, number in ids.items() if number > 1]:
        raise EngineError(f"{named(twice)} asked twice in one call; give every request an id of its own")


def named(ids: Sequence[str], most: int = 5) -> str:
    """Ids in words, the first few of many.

    >>> named(["a", "b", "c"], most=2)
    "'a', 'b' and 1 more"
    """
    shown = ", ".join(map(repr, ids[:most]))
    return shown if len(ids) <= most else f"{shown} and {len(ids) - most:,} more"
