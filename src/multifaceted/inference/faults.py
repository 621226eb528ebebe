"""What can go wrong between a request and its reply: what passes and is tried again, and what does not."""

from __future__ import annotations

import email.utils
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass

import openai
from tenacity import RetryCallState, wait_random_exponential

LONGEST_WAIT = 300.0
"""Seconds that a server may ask us to wait; if it asks for more, the run ends instead."""
LONGEST_BACKOFF = 60.0
MOST_SHOWN = 500
"""Characters of what a server says of an error."""
UNSENT = ("ConnectError", "ConnectTimeout", "PoolTimeout")
"""Faults of the HTTP client before a request has left."""

_backoff = wait_random_exponential(multiplier=1, max=LONGEST_BACKOFF)


@dataclass(slots=True, eq=False)
class SendError(Exception):
    """A send without a reply.

    Attributes:
        reason: in words.
        passes: whether it is worth trying again.
        may_be_paid: whether the server may have computed an answer all the same.
        wait: seconds to wait at least, as the server says.
    """

    reason: str
    passes: bool
    may_be_paid: bool = False
    wait: float = 0.0


def fault_of(error: openai.OpenAIError) -> SendError:
    """Classify what the client raised."""
    if isinstance(error, openai.APITimeoutError | openai.APIConnectionError):
        cause = type(error.__cause__).__name__
        reason = (
            "no answer in time" if isinstance(error, openai.APITimeoutError) else f"the connection failed ({cause})"
        )
        return SendError(reason=reason, passes=True, may_be_paid=cause not in UNSENT)
    if isinstance(error, openai.APIStatusError):
        return _fault_of_status(error)
    return SendError(reason=f"{type(error).__name__}: {error}", passes=False, may_be_paid=True)


def _fault_of_status(error: openai.APIStatusError) -> SendError:
    status, code = error.status_code, error.code
    reason = error.message[:MOST_SHOWN]
    if code == "insufficient_quota":
        return SendError(reason=f"the quota is exhausted ({reason}); raise it with the provider", passes=False)
    if remedy := _REMEDIES.get(status):
        return SendError(reason=f"{reason}; {remedy}", passes=False)
    passes = status in (408, 409, 425, 429) or status >= 500
    wait = asked_to_wait(error.response.headers)
    if passes and wait > LONGEST_WAIT:
        return SendError(reason=f"{reason}; the server asks to wait {wait:,.0f} s: run again then", passes=False)
    return SendError(reason=reason, passes=passes, may_be_paid=status in (408, 504), wait=wait)


_REMEDIES = {
    400: "a prompt that is too long for the model's context, or a setting that the server does not know",
    401: "the key is missing or not accepted: set the variable that `key_variable` names",
    403: "the key may not be used for this model",
    404: "there is no such model, or `base_url` is not where the server's API begins (it usually ends in /v1)",
    422: "the server does not know one of the settings",
}


def asked_to_wait(headers: Mapping[str, str]) -> float:
    """The seconds of a Retry-After header, which states seconds or a date (RFC 9110, 10.2.3); 0 without one."""
    value = headers.get("retry-after", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return 0.0


def seconds_to_wait(state: RetryCallState) -> float:
    """Before the next attempt: a random time whose bound doubles, or what the server asked for and a little more."""
    fault = state.outcome.exception() if state.outcome is not None else None
    asked = fault.wait if isinstance(fault, SendError) else 0.0
    return max(_backoff(state), asked + random.random() if asked else 0.0)


def passes(error: BaseException) -> bool:
    """Whether a send that failed so is worth another."""
    return isinstance(error, SendError) and error.passes
