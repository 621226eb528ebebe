"""The responses that a policy's are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from multifaceted.inference.files import ResponseFile
from multifaceted.inference.requests import Request
from multifaceted.records import Prompt


def read_opponents(path: Path, prompts: Sequence[Prompt]) -> dict[str, str]:
    """By prompt, the opponent's response, from a file in any layout of `inference.files`.

    Raises:
        EngineError: the file cannot be read, or the opponent has not answered every prompt.
    """
    requests = [Request(id=prompt.id, messages=prompt.messages()) for prompt in prompts]
    return {reply.id: reply.text for reply in ResponseFile(path=path).answer(requests, seed=0)}
