"""An exported policy in this process as an engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from multifaceted.inference.policy import PolicyEngine
from multifaceted.inference.requests import EngineError, Reply, Request
from multifaceted.records import Prompt


@dataclass(kw_only=True, slots=True)
class InProcess:
    """Answers requests of one user turn with a policy folder.

    Attributes:
        policy: a folder that `train.py` exported.
        generation: how it generates.
    """

    policy: Path
    generation: PolicyEngine = field(default_factory=PolicyEngine)

    def answer(self, requests: Sequence[Request], seed: int) -> Iterator[Reply]:
        """One reply a request, in their order, when all are there.

        Raises:
            EngineError: a request has earlier turns, or as `PolicyEngine.generate`.
        """
        prompts = [_prompt(request) for request in requests]
        for request, response in zip(requests, self.generation.generate(self.policy, prompts, seed), strict=True):
            yield Reply(id=request.id, text=response.text, finished=response.finished)


def _prompt(request: Request) -> Prompt:
    *system, user = request.messages
    if user["role"] != "user" or [message["role"] for message in system] not in ([], ["system"]):
        roles = [message["role"] for message in request.messages]
        raise EngineError(f"request {request.id!r} has turns of {roles}; a policy in this process answers one user")
    stated = system[0]["content"] if system else None
    # The id is the name of the stream that the answer is drawn from.
    return Prompt(id=f"{request.id}/{request.sample}", split="", system=stated, instruction=user["content"])
