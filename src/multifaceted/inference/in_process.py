"""An exported policy in this process as an engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from multifaceted.inference.policy import PolicyEngine
from multifaceted.inference.requests import Reply, Request


@dataclass(kw_only=True, slots=True)
class InProcess:
    """Answers requests with a policy folder.

    Attributes:
        policy: a folder that `train.py` exported.
        generation: how it generates.
    """

    policy: Path
    generation: PolicyEngine = field(default_factory=PolicyEngine)

    def answer(self, requests: Sequence[Request], seed: int) -> Iterator[Reply]:
        """One reply a request, batch by batch.

        Raises:
            EngineError: `policy` cannot serve a request.
        """
        yield from self.generation.load(self.policy).answer(requests, seed)
