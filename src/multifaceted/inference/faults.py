"""What can go wrong between a request and its reply: what passes, what one request has to itself, what ends a run."""

from __future__ import annotations

import email.utils
import random
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from tenacity import RetryCallState, wait_random_exponential

LONGEST_WAIT = 300.0
"""Seconds that a server may ask us to wait; if it asks for more, the run ends instead."""
LONGEST_BACKOFF = 60.0
MOST_SHOWN = 500
"""Characters of what a server says of an error."""
UNSENT = ("ConnectError", "ConnectTimeout", "PoolTimeout")
"""Faults of the HTTP client before a request has left."""

_backoff = wait_random_exponential(multiplier=1, max=LONGEST_BACKOFF)


class Kind(Enum):
    """What a fault means for what is asked next."""

    PASSES = "passes"
    """It is worth trying again."""
    UNREADABLE = "unreadable"
    """An answer came, and may be paid for, but cannot be read; it is worth trying once more."""
    REFUSED = "refused"
    """This request will not be answered; others may be."""
    ENDS = "ends"
    """No request will be answered."""


@dataclass(slots=True, eq=False)
class SendError(Exception):
    """A send without a reply.

    Attributes:
        reason: in words; it may hold a key and be long, so it is to be `shown`.
        remedy: what to do about it.
        may_be_paid: whether the server may have computed an answer all the same.
        wait: seconds to wait at least, as the server says.
    """

    reason: str
    kind: Kind
    remedy: str = ""
    may_be_paid: bool = False
    wait: float = 0.0


_ENDING = {
    401: "the key is missing or not accepted: set the environment variable that holds it",
    402: "the account has no money left",
    403: "the key may not be used for this model",
    404: "there is no such model",
}
PAID = (408, 504)
"""Time-outs, after which the answer may have been computed all the same."""
QUOTA = "insufficient_quota"
"""What OpenAI calls a limit that does not pass; its status is that of a rate limit."""
_PASSING = (408, 409, 425, 429)
_REFUSING = {
    400: "a prompt that is too long for the model's context, or a setting that the server does not know",
    413: "the prompt is too long for the server",
    422: "the server does not know one of the settings",
}


def fault_of_status(
    status: int, code: object, reason: str, wait: float, remedies: Mapping[int, str] | None = None
) -> SendError:
    """What an HTTP status means.

    Args:
        code: as the server calls the error, where it does.
        wait: seconds the server asks to wait.
        remedies: by status, what to do where the sender knows better.
    """
    if code == QUOTA:
        return SendError(reason=reason, kind=Kind.ENDS, remedy="the quota is exhausted; raise it with the provider")
    if status in _ENDING:
        return SendError(reason=reason, kind=Kind.ENDS, remedy=(_ENDING | dict(remedies or {}))[status])
    if status not in _PASSING and status < 500:
        return SendError(reason=reason, kind=Kind.REFUSED, remedy=_REFUSING.get(status, ""))
    return fault_that_passes(reason, wait=wait, may_be_paid=status in PAID)


def fault_that_passes(reason: str, *, wait: float = 0.0, may_be_paid: bool = False) -> SendError:
    """A fault that is worth another try, unless that is too far away."""
    if wait > LONGEST_WAIT:
        remedy = f"the server asks to wait {wait:,.0f} s: run again then"
        return SendError(reason=reason, kind=Kind.ENDS, remedy=remedy)
    return SendError(reason=reason, kind=Kind.PASSES, may_be_paid=may_be_paid, wait=wait)


def remedy_of(fault: SendError, messages: Sequence[Mapping[str, str]]) -> str:
    """What to do about a fault; a template without a place for a system message is told by what the server says."""
    stated = any(message["role"] == "system" for message in messages)
    if fault.kind is Kind.REFUSED and stated and re.search(r"\bsystem\b|roles must alternate", fault.reason, re.I):
        return "where a model takes no system message, engine.system_in_user=true puts it into the user's turn"
    return fault.remedy


def shown(text: str, secrets: Iterable[str]) -> str:
    """The beginning of what a server said, in one line. Secrets go first: a cut could leave half of one."""
    for secret in secrets:
        text = text.replace(secret, "***")
    return " ".join(text.split())[:MOST_SHOWN]


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
