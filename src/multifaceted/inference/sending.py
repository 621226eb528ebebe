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
    """Sends to an OpenAI-compatible server.

    Args:
        key_variable: the environment variable that the key is from, for messages.
    """

    def __init__(self, base_url: str, key: str | None, timeout: float, key_variable: str | None = None) -> None:
        self.secrets = [] if key is None else [key]
        self._base_url = base_url
        self._key_variable = key_variable
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
            raise self._fault_of(error) from None  # the cause may hold the key
        return response.text

    async def aclose(self) -> None:
        """See `Sender`."""
        await self._client.close()

    def _fault_of(self, error: openai.OpenAIError) -> SendError:
        """Classify what the client raised."""
        if isinstance(error, openai.APITimeoutError | openai.APIConnectionError):
            cause = type(error.__cause__).__name__
            in_time = not isinstance(error, openai.APITimeoutError)
            reason = (
                f"the connection to {self._base_url} failed ({cause})"
                if in_time
                else f"{self._base_url} gave no answer in time"
            )
            fault = fault_that_passes(reason, may_be_paid=cause not in UNSENT)
            fault.remedy = "see that the server runs and that base_url is its address" if in_time else ""
            return fault
        if isinstance(error, openai.APIStatusError):
            wait = asked_to_wait(error.response.headers)
            return fault_of_status(error.status_code, error.code, error.message, wait, self._remedies())
        return SendError(reason=f"{type(error).__name__}: {error}", kind=Kind.ENDS, may_be_paid=True)

    def _remedies(self) -> dict[int, str]:
        url, variable = self._base_url, self._key_variable
        accepts = f"{url} does not accept the key in the environment variable {variable}: set it to one that it accepts"
        wants = f"{url} wants a key: name the environment variable that holds it with key_variable"
        begins = f"there is no such model, or base_url={url} is not where the API begins (it usually ends in /v1)"
        return {401: accepts if variable else wants, 404: begins}
