"""Responses to prompts, a turn at a time, written after each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from multifaceted.inference.requests import PAPER, Engine, EngineError, Request
from multifaceted.records import Prompt, Response


def is_complete(prompts: Sequence[Prompt], responses: Mapping[str, Response]) -> bool:
    """Whether every prompt has an answer to each of its turns."""
    return not _open(prompts, responses)


def generate(
    engine: Engine,
    prompts: Sequence[Prompt],
    seed: int,
    responses: Mapping[str, Response],
    write: Callable[[Collection[Response]], None],
) -> dict[str, Response]:
    """The responses in the order of their prompts, by id.

    Args:
        responses: those that are there already, perhaps without their later turns.
        write: is given all responses after each turn, and when one fails or is interrupted those until then.
    """
    found = dict(responses)
    while asked := _open(prompts, found):
        requests = [
            Request(id=p.id, messages=p.messages(_turns(found.get(p.id))), sampling=p.sampling.or_else(PAPER))
            for p in asked
        ]
        missing = {request.id: None for request in requests}
        try:
            for reply in engine.answer(requests, seed):
                del missing[reply.id]
                before = found.get(reply.id)
                if before is None:
                    found[reply.id] = Response(id=reply.id, text=reply.text, finished=reply.finished)
                else:
                    before.follow_ups.append(reply.text)
                    before.finished &= reply.finished
        finally:
            found = {prompt.id: found[prompt.id] for prompt in prompts if prompt.id in found}
            write(found.values())
        if missing:
            raise EngineError(
                f"{len(missing)} prompts have no reply, first {next(iter(missing))!r}; the same command asks again"
            )
    return found


def _open(prompts: Sequence[Prompt], responses: Mapping[str, Response]) -> list[Prompt]:
    return [prompt for prompt in prompts if len(_turns(responses.get(prompt.id))) <= len(prompt.follow_ups)]


def _turns(response: Response | None) -> list[str]:
    return response.turns if response is not None else []
