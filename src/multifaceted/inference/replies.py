"""What a chat completion says."""

from __future__ import annotations

import json
import math
from typing import Any

from multifaceted.inference.faults import Kind, SendError
from multifaceted.inference.requests import Reply, whole_characters

CUT = ("length", "content_filter")
"""Reasons to finish by which a model did not end its answer itself."""


def reply_of(name: str, text: str, *, was_kept: bool = False) -> Reply:
    """The reply in what a server sent. Tokens that it counts in no whole number are not counted.

    Raises:
        SendError: it is no chat completion.
    """
    try:
        completion = json.loads(text)
        choice = completion["choices"][0]
        message, usage = choice["message"], completion.get("usage")
        return Reply(
            id=name,
            text=whole_characters(_content(message.get("content")) or message.get("refusal") or ""),
            finished=choice.get("finish_reason") not in CUT,
            prompt_tokens=_count(usage, "prompt_tokens"),
            completion_tokens=_count(usage, "completion_tokens"),
            was_kept=was_kept,
            first_token=_first_token(choice.get("logprobs")),
        )
    except (ValueError, LookupError, TypeError, AttributeError):
        raise SendError(reason=f"no chat completion: {text}", kind=Kind.UNREADABLE, may_be_paid=True) from None


def _content(content: Any) -> str:
    """The text of a message; of one in parts that of the parts that are text."""
    if isinstance(content, list):
        return "".join(_content(part["text"]) for part in content if part["type"] == "text")
    if not isinstance(content, str | None):
        raise TypeError
    return content or ""


def _count(usage: Any, name: str) -> int | None:
    found = usage.get(name) if isinstance(usage, dict) else None
    return found if isinstance(found, int) and not isinstance(found, bool) and found >= 0 else None


def _first_token(logprobs: Any) -> dict[str, float] | None:
    """What could have come first, by text: several tokens may have the same, of which the likeliest counts."""
    positions = (logprobs or {}).get("content")
    if not positions:
        return None
    found: dict[str, float] = {}
    for alternative in positions[0]["top_logprobs"]:
        token, logprob = whole_characters(alternative["token"]), alternative["logprob"]
        if isinstance(logprob, bool) or not math.isfinite(logprob):
            raise ValueError
        found[token] = max(float(logprob), found.get(token, -math.inf))
    return found or None
