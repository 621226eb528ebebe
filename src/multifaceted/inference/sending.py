"""How a request reaches a model: the contract, and an OpenAI-compatible server through the openai client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import openai

from multifaceted.inference.faults import (
    UNSENT,
    Kind,
    SendError,
    asked_to_wait,
    fault_of_status,
    fault_that_passes,
)

NO_KEY = "none"
"""What the client sends to a server that wants no key; it insists on one."""


class Sender(Protocol):
    """Sends one request at a time, once; to be made, used and closed in one event loop."""

    @property
    def secrets(self) -> Sequence[str]:
        """What no message may show."""
        ...

    async def send(self, body: Mapping[str, Any]) -> str:
        """The reply to a request in chat-completion form, in that form too, in JSON.

        Raises:
            SendError: there is none.
        """
        ...

    async def aclose(self) -> None:
        """Close the connections."""
        ...


class ServerSender:
    """Sends to an OpenAI-compatible server."""

    def __init__(self, base_url: str, key: str | None, timeout: float) -> None:
        self.secrets = [] if key is None else [key]
        self._client = openai.AsyncOpenAI(api_key=key or NO_KEY, base_url=base_url, timeout=timeout, max_retries=0)

    async def send(self, body: Mapping[str, Any]) -> str:
        """See `Sender`."""
        try:
            response = await self._client.chat.completions.with_raw_response.create(
                model=body["model"],
                messages=body["messages"],
                extra_body={name: value for name, value in body.items() if name not in ("model", "messages")},
            )
        except openai.OpenAIError as error:
            raise fault_of(error) from None  # the cause may hold the key
        return response.text

    async def aclose(self) -> None:
        """See `Sender`."""
        await self._client.close()


def fault_of(error: openai.OpenAIError) -> SendError:
    """Classify what the client raised."""
    if isinstance(error, openai.APITimeoutError | openai.APIConnectionError):
        cause = type(error.__cause__).__name__
        in_time = not isinstance(error, openai.APITimeoutError)
        reason = f"the connection failed ({cause})" if in_time else "no answer in time"
        return fault_that_passes(reason, may_be_paid=cause not in UNSENT)
    if isinstance(error, openai.APIStatusError):
        return fault_of_status(error.status_code, error.code, error.message, asked_to_wait(error.response.headers))
    return SendError(reason=f"{type(error).__name__}: {error}", kind=Kind.ENDS, may_be_paid=True)
