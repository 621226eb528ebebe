"""What a ledger of requests takes and gives."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A request as the ledger knows it.

    Attributes:
        text: the request in JSON, always the same for the same request.
        key: SHA-256 of the text, in hexadecimal.
    """

    model: str
    text: str
    key: str

    @classmethod
    def of(cls, model: str, request: Mapping[str, Any]) -> Entry:
        """The entry of a request to a model.

        Args:
            request: everything that decides what the reply is; never a key or an address.
        """
        text = json.dumps(request, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return cls(model=model, text=text, key=hashlib.sha256(text.encode()).hexdigest())


@dataclass(frozen=True, kw_only=True, slots=True)
class Totals:
    """What was asked of a model, by all who share the ledger, since it was begun.

    Attributes:
        sends: requests that were sent, those tried again included.
        refused: sends to which an error came back.
        lost: sends to which nothing came back.
        reserved, spent: in the currency of the prices.
    """

    sends: int = 0
    refused: int = 0
    lost: int = 0
    replies: int = 0
    reserved: float = 0.0
    spent: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """A reply that is there already, in JSON."""

    reply: str


class Claim(Enum):
    """What came of the wish to send a request."""

    GRANTED = "granted"
    """Send it, and then say how that went: `settle`, `refuse` or `lose`."""
    BUSY = "busy"
    """Another process waits for the answer."""
    WAIT = "wait"
    """It would exceed the cap on spend if all that is in flight came out as dear as it can."""
    TOO_MANY = "too_many"
    """It would exceed the cap on requests."""
    TOO_DEAR = "too_dear"
    """It would exceed the cap on spend."""
