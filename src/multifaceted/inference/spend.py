"""What requests cost: prices, bounds, and a projection before anything is asked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

CHARACTERS_A_TOKEN = 4
"""By which tokens of a prompt are guessed for the projection: about right for English."""
TOKENS_A_MESSAGE = 16
"""More than any of the usual chat templates puts around a message."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Price:
    """Of a million tokens, in any currency."""

    input: float = 0.0
    output: float = 0.0

    def __post_init__(self) -> None:
        if self.input < 0 or self.output < 0:
            raise ValueError(f"input={self.input} and output={self.output} must be at least 0")

    def of(self, prompt_tokens: int, completion_tokens: int) -> float:
        """The price of so many tokens."""
        return (prompt_tokens * self.input + completion_tokens * self.output) / 1e6


def guessed_tokens(messages: Sequence[dict[str, str]]) -> int:
    """About how many tokens a prompt has: its characters over four, and four for each message."""
    return sum(-(-len(message["content"]) // CHARACTERS_A_TOKEN) + 4 for message in messages)


def most_tokens(messages: Sequence[dict[str, str]]) -> int:
    """More tokens than a prompt has: a token is at least a byte of text, or belongs to the template."""
    return sum(len(message["content"].encode()) + TOKENS_A_MESSAGE for message in messages) + TOKENS_A_MESSAGE


@dataclass(kw_only=True, slots=True)
class Projection:
    """What is about to be asked.

    Attributes:
        kept: requests whose reply is there already; the others are counted here.
        prompt_tokens: guessed.
        completion_tokens: as many as the settings allow.
    """

    requests: int = 0
    kept: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    price: float = 0.0

    @classmethod
    def over(cls, wanted: Iterable[tuple[Sequence[dict[str, str]], bool]], max_tokens: int, price: Price) -> Projection:
        """Add up the messages of requests, each with whether its reply is there already."""
        found = cls()
        for messages, is_kept in wanted:
            if is_kept:
                found.kept += 1
                continue
            found.requests += 1
            found.prompt_tokens += guessed_tokens(messages)
            found.completion_tokens += max_tokens
        found.price = price.of(found.prompt_tokens, found.completion_tokens)
        return found

    def __str__(self) -> str:
        return (
            f"{self.requests:,} requests to ask and {self.kept:,} kept: about {self.prompt_tokens:,} tokens of prompts"
            f" (characters / {CHARACTERS_A_TOKEN}) and at most {self.completion_tokens:,} of replies,"
            f" at most {self.price:,.2f}"
        )
