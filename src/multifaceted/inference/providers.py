"""Models of inspect_ai's providers (Anthropic, Google, Mistral, Bedrock and others), by an optional package.

What is theirs is how a provider is spoken to and which of its faults pass. The ledger, caps, retries and progress are
ours; inspect_ai's cache, its retries, and those of the provider's client where it has them, are off.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from multifaceted.inference.faults import PAID, QUOTA, UNSENT, Kind, SendError, fault_of_status, fault_that_passes
from multifaceted.inference.remote import RemoteEngine
from multifaceted.inference.requests import EngineError
from multifaceted.inference.sending import Sender

if TYPE_CHECKING:
    from inspect_ai.model import ChatMessage, GenerateConfig, ModelAPI, ModelOutput

FINISH_REASONS = {"max_tokens": "length", "model_length": "length"}
"""inspect_ai's reasons to stop that chat completions call otherwise."""


@dataclass(kw_only=True, slots=True)
class InspectEngine(RemoteEngine):
    """Asks a provider through inspect_ai, and keeps every reply in a ledger.

    A provider's key and address are in the environment variables that inspect_ai's documentation names.

    Attributes:
        model: `<provider>/<model>`, such as `anthropic/claude-sonnet-4-5`.
        extra: further fields of inspect_ai's `GenerateConfig`.
    """

    ENDPOINT: ClassVar[str] = "inspect_ai"
    FIXED: ClassVar[tuple[str, ...]] = (
        *("system_message", "num_choices", "cache", "batch", "max_retries", "timeout", "attempt_timeout"),
        *("max_connections", "adaptive_connections"),
    )

    def __post_init__(self) -> None:
        RemoteEngine.__post_init__(self)
        if "/" not in self.model:
            raise ValueError(
                f"model is {self.model!r}; expected <provider>/<model>, such as anthropic/claude-sonnet-4-5"
            )
        if importlib.util.find_spec("inspect_ai") is None:
            raise ValueError(f"{self.model} needs inspect_ai; pip install --editable '.[inspect]'")

    def _sender(self) -> Callable[[], Sender]:
        _config(self.extra or {})  # refuses what it does not know, before anything is asked
        return partial(InspectSender, self.model, self.timeout)


class InspectSender:
    """Sends to a provider.

    Raises:
        EngineError: inspect_ai has no such provider, or that lacks a key or a package of its own.
    """

    def __init__(self, model: str, timeout: float) -> None:
        self._api = _model_api(model)
        self._timeout = timeout
        variables = (os.environ.get(name) for name in self._api.api_key_vars)
        self.secrets = [key for key in (self._api.api_key, *variables) if key]
        client: Any = getattr(self._api, "client", None)
        if hasattr(client, "max_retries"):
            client.max_retries = 0

    async def send(self, body: Mapping[str, Any]) -> str:
        """See `Sender`."""
        messages, config = _messages(body), _config(body)
        try:
            async with asyncio.timeout(self._timeout):
                found = await self._api.generate(messages, tools=[], tool_choice="none", config=config)
        except Exception as error:  # providers have exceptions of their own
            raise self._fault_of(error) from None
        output = found[0] if isinstance(found, tuple) else found
        if isinstance(output, Exception):
            raise self._fault_of(output)
        if output.usage is None and not output.empty and output.stop_reason in ("model_length", "content_filter"):
            raise SendError(reason=output.completion, kind=Kind.REFUSED)  # the text is that of an error
        return json.dumps(_completion(output))

    async def aclose(self) -> None:
        """See `Sender`."""
        await self._api.aclose()

    def _fault_of(self, error: Exception) -> SendError:
        """Classify what the provider raised: as inspect_ai does, then by its HTTP status."""
        if isinstance(error, TimeoutError):
            return fault_that_passes("no answer in time", may_be_paid=True)
        reason, code, status = str(error) or type(error).__name__, getattr(error, "code", None), _status_of(error)
        decision = self._api.should_retry(error)
        wait = getattr(decision, "retry_after", None) or 0.0
        if decision and code != QUOTA:
            is_sent = status is None and not {type(error).__name__, type(error.__cause__).__name__} & {*UNSENT}
            return fault_that_passes(reason, wait=wait, may_be_paid=is_sent or status in PAID)
        if self._api.is_auth_failure(error):
            status = 401
        if status is not None:
            variables = " or ".join(self._api.api_key_vars)
            remedies = {401: f"the key is not accepted: set {variables}"} if variables else {}
            return fault_of_status(status, code, reason, wait, remedies)
        if type(error).__name__ == "PrerequisiteError":  # inspect_ai's own, before anything is sent
            return SendError(reason=_plain(error), kind=Kind.ENDS)
        return SendError(reason=f"{type(error).__name__}: {reason}", kind=Kind.UNREADABLE, may_be_paid=True)


def _model_api(model: str) -> ModelAPI:
    from inspect_ai.model import get_model

    try:
        return get_model(model, memoize=False).api
    except Exception as error:  # providers have exceptions of their own
        raise EngineError(f"{model} cannot be asked through inspect_ai: {_plain(error)}") from None


def _plain(error: Exception) -> str:
    """What inspect_ai says, without its marks for colour."""
    return " ".join(re.sub(r"\[/?[a-z ]*\]", "", str(error)).split())


def _messages(body: Mapping[str, Any]) -> list[ChatMessage]:
    from inspect_ai.model import ChatMessageAssistant, ChatMessageSystem, ChatMessageUser

    of = {"system": ChatMessageSystem, "user": ChatMessageUser, "assistant": ChatMessageAssistant}
    return [of[message["role"]](content=message["content"]) for message in body["messages"]]


def _config(body: Mapping[str, Any]) -> GenerateConfig:
    """The settings of a body; a repetition penalty, which not all providers know, in the body of theirs."""
    from inspect_ai.model import GenerateConfig

    settings = {name: value for name, value in body.items() if name not in ("model", "messages")}
    if (penalty := settings.pop("repetition_penalty", None)) is not None:
        settings["extra_body"] = {"repetition_penalty": penalty, **settings.get("extra_body", {})}
    try:
        return GenerateConfig(**settings)
    except ValueError as error:
        raise EngineError(f"extra does not fit inspect_ai's GenerateConfig: {' '.join(str(error).split())}") from None


def _completion(output: ModelOutput) -> dict[str, Any]:
    """An answer in the form of chat completions."""
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": choice.message.text},
            "finish_reason": FINISH_REASONS.get(choice.stop_reason, choice.stop_reason),
            "logprobs": choice.logprobs and choice.logprobs.model_dump(mode="json", exclude_none=True),
        }
        for index, choice in enumerate(output.choices)
    ]
    found = {"id": output.response_id, "object": "chat.completion", "model": output.model, "choices": choices}
    if (usage := output.usage) is None:
        return found
    cached = (usage.input_tokens_cache_read or 0) + (usage.input_tokens_cache_write or 0)
    return found | {"usage": {"prompt_tokens": usage.input_tokens + cached, "completion_tokens": usage.output_tokens}}


def _status_of(error: Exception) -> int | None:
    """The HTTP status, under the names that clients give it."""
    found = (getattr(error, name, None) for name in ("status_code", "code"))
    return next((status for status in found if isinstance(status, int)), None)
