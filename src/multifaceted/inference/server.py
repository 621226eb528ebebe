"""A model behind an OpenAI-compatible server: vLLM, OpenAI and many others."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar
from urllib.parse import urlsplit

from multifaceted.inference.remote import RemoteEngine
from multifaceted.inference.requests import EngineError, Request
from multifaceted.inference.sending import Sender, ServerSender


@dataclass(kw_only=True, slots=True)
class ServerEngine(RemoteEngine):
    """Asks a server, so many requests at a time, and keeps every reply in a ledger.

    Attributes:
        base_url: where the server's API begins.
        key_variable: the environment variable that holds the key; None for a server that wants none.
        limit_name: under which name `max_tokens` is sent.
        extra: further settings in the body of a request.
    """

    ENDPOINT: ClassVar[str] = "chat.completions"
    FIXED: ClassVar[tuple[str, ...]] = ("n", "stream")

    base_url: str = "http://localhost:8000/v1"
    key_variable: str | None = None
    limit_name: str = "max_tokens"

    def __post_init__(self) -> None:
        RemoteEngine.__post_init__(self)
        if self.key_variable is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", self.key_variable):
            raise ValueError("key_variable must be the name of an environment variable, in capitals; never the key")
        if urlsplit(self.base_url).username is not None:
            raise ValueError("base_url holds a user and a password; use key_variable for what is secret")
        if self.limit_name in (self.extra or ()):
            raise ValueError(f"extra holds {self.limit_name}: use max_tokens, which is sent under that name")

    def _sender(self) -> Callable[[], Sender]:
        return partial(ServerSender, self.base_url, self._key(), self.timeout, self.key_variable)

    def _body(self, request: Request, seed: int) -> dict[str, Any]:
        body = RemoteEngine._body(self, request, seed)
        return {self.limit_name if name == "max_tokens" else name: value for name, value in body.items()}

    def _key(self) -> str | None:
        if self.key_variable is None:
            return None
        key = os.environ.get(self.key_variable, "").strip()
        if not key or not (key.isascii() and key.isprintable()):
            raise EngineError(f"the environment variable {self.key_variable} holds no key for {self.base_url}; set it")
        return key
