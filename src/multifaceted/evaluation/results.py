"""What an evaluation left in its folder, prompt by prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multifaceted.record_files import RecordError, read_jsonl, read_prompts, read_responses
from multifaceted.records import LIKELIHOODS, PROMPTS, RESPONSES, VERDICTS, Prompt, Response


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """A prompt, the response to it, and every verdict about that response, as the lines of `verdicts.jsonl` have it.

    Attributes:
        response: None in an evaluation that asks for likelihoods.
    """

    prompt: Prompt
    response: Response | None
    verdicts: Sequence[Mapping[str, Any]]


def read_results(folder: Path) -> list[Result]:
    """The results in the order of their prompts; none of an evaluation that asked nothing.

    Raises:
        RecordError: a record is missing or broken.
    """
    if not (folder / PROMPTS).exists():
        return []
    verdicts: dict[str, list[Mapping[str, Any]]] = {}
    for verdict in read_jsonl(folder / VERDICTS):
        verdicts.setdefault(verdict.get("response") or verdict["id"], []).append(verdict)
    prompts = read_prompts(folder / PROMPTS)
    if (folder / LIKELIHOODS).exists():
        return [Result(prompt=prompt, response=None, verdicts=verdicts.get(prompt.id, ())) for prompt in prompts]
    responses = read_responses(folder / RESPONSES)
    if missing := [prompt.id for prompt in prompts if prompt.id not in responses]:
        raise RecordError(f"{folder / RESPONSES} lacks the response to {missing[0]!r} and {len(missing) - 1} others")
    return [Result(prompt=p, response=responses[p.id], verdicts=verdicts.get(p.id, ())) for p in prompts]
