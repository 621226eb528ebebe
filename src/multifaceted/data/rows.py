"""A row of a preference file to an example. Its shape is recognised, never configured.

The prompt is a text, a list of messages or an hh-rlhf transcript; an answer is a text, a message, or a whole
conversation that ends with it. Every answer becomes a whole conversation; what comes before the last turn must be the
same for all.
"""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Mapping
from dataclasses import astuple
from typing import Any

from multifaceted.data.bad_rows import BadRowError
from multifaceted.data.source import check_text
from multifaceted.records import Example, StatedPreference, Turn

COLUMNS = (
    "id",
    "system",
    "prompt",
    "conversations",
    "chosen",
    "rejected",
    "output",
    "preference_set",
    "contrast",
    "main_source",
    "margin",
)
ROLES = {"system": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant"}
MOST_NAMES = 30
"""Columns that a message lists."""
MOST_CHARACTERS = 80
TRANSCRIPT = re.compile(r"\n\n(Human|Assistant):")


def example_of(row: Any, columns: Mapping[str, str | None], *, name: str, source: str) -> Example:
    """One row as an example.

    Args:
        columns: our names of columns to the file's, where they differ; None for a column not to read.
        name: the id of a row without one.
        source: the source of a row without one.

    Raises:
        BadRowError: a missing column, a value of the wrong type, answers to different prompts.
    """
    if not isinstance(row, Mapping):
        raise _wrong_type("the row", row, "an object with columns")
    cells = {column: row.get(columns.get(column, column)) for column in COLUMNS}
    prompt, answer = _prompt_and_answer(cells, row)
    *asked, chosen = _conversation(prompt, answer, "chosen")
    rejected: list[Turn] = []
    for cell in _group(cells["rejected"]):
        *other, last = _conversation(prompt, cell, "rejected")
        if other != asked:
            raise BadRowError("different_prompts", "chosen and rejected answer different prompts; pair them anew")
        rejected.append(last)
    return Example(
        id=_id(cells["id"], name),
        system=_take_system(asked, cells["system"]),
        turns=asked,
        chosen=chosen.content,
        rejected=[turn.content for turn in rejected],
        preferences=_preferences(cells["preference_set"]),
        contrast=_names(cells["contrast"]),
        source=str(cells["main_source"] or source),
        margin=_margin(cells["margin"]),
    )


def _prompt_and_answer(cells: dict[str, Any], row: Mapping[str, Any]) -> tuple[list[Turn], Any]:
    """The turns of the prompt, none where the answer holds them, and the answer as it is written."""
    answer = cells["output"] if cells["chosen"] is None else cells["chosen"]
    prompt = cells["prompt"]
    if answer is None:
        answer = cells["conversations"]
    elif prompt is None:
        prompt = cells["conversations"]
    missing = [] if answer is not None else ["chosen (or output)"]
    if prompt is None and not _is_whole(answer):
        missing.append("prompt")
    if missing:
        raise BadRowError(
            "missing_column",
            f"no {', no '.join(missing)}; found {names_of(row)}."
            " Name your columns: data.source.columns={prompt: question}",
        )
    return [] if prompt is None else _prompt(prompt), answer


def names_of(row: Mapping[str, Any]) -> str:
    """The columns of a row, for messages."""
    names = [_short(name) for name in list(row)[:MOST_NAMES]]
    return ", ".join(names + ["..."] * (len(row) > MOST_NAMES)) or "nothing"


def _short(name: Any) -> str:
    text = str(name)
    return text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 3] + "..."


def _is_whole(answer: Any) -> bool:
    """Whether an answer brings its prompt with it."""
    return _is_transcript(answer) or (isinstance(answer, list) and len(answer) > 1)


def _is_transcript(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("\n\nHuman:")


def _prompt(value: Any) -> list[Turn]:
    if _is_transcript(value):
        turns = _transcript(value)
        # A transcript that is a prompt ends with "Assistant:", where the answer goes.
        return turns[:-1] if turns[-1] == Turn(role="assistant", content="") else turns
    if isinstance(value, str):
        return [Turn(role="user", content=value)]
    return _messages(value, "prompt")


def _conversation(prompt: list[Turn], answer: Any, column: str) -> list[Turn]:
    """The whole conversation, up to and with the answer."""
    if isinstance(answer, str) and (prompt or not _is_transcript(answer)):
        turns = [Turn(role="assistant", content=answer)]
    elif isinstance(answer, str):
        turns = _transcript(answer)
    else:
        turns = _messages([answer] if isinstance(answer, Mapping) else answer, column)
    if not turns or turns[-1].role != "assistant":
        raise BadRowError("no_answer", f"{column} does not end with a turn of the assistant")
    if len(turns) == 1:
        return [*prompt, *turns]
    said = {(turn.role, turn.content) for turn in turns}
    if any((turn.role, turn.content) not in said for turn in prompt):
        raise BadRowError(
            "prompt_disagrees",
            f"prompt is not part of the conversation in {column}; to read only the conversation:"
            " data.source.columns={prompt: null}",
        )
    return turns


def _transcript(text: str) -> list[Turn]:
    """The turns of a text with "Human:" and "Assistant:" after blank lines, as hh-rlhf spells them."""
    _, *parts = TRANSCRIPT.split(text)
    speakers, contents = parts[::2], parts[1::2]
    return [
        Turn(role=ROLES[speaker.lower()], content=content.strip())
        for speaker, content in zip(speakers, contents, strict=True)
    ]


def _messages(value: Any, column: str) -> list[Turn]:
    if not isinstance(value, list):
        raise _wrong_type(column, value, "a text or a list of messages")
    return [_message(item, column) for item in value]


def _message(value: Any, column: str) -> Turn:
    """`{role, content}`, or `{from, value}` as ShareGPT spells it."""
    if not isinstance(value, Mapping):
        raise _wrong_type(f"a message of {column}", value, "an object with role and content")
    role, content = (value.get(ours, value.get(theirs)) for ours, theirs in (("role", "from"), ("content", "value")))
    if not isinstance(role, str) or role not in ROLES:
        raise BadRowError(
            "unknown_role", f"{column} has the role {reprlib.repr(role)}; expected one of {', '.join(ROLES)}"
        )
    if not isinstance(content, str):
        raise _wrong_type(f"a message of {column}", content, "a text")
    return Turn(role=ROLES[role], content=content)


def _group(value: Any) -> list[Any]:
    """The rejected answers: none, one, or several as a list."""
    if value is None:
        return []
    is_one = not isinstance(value, list) or (bool(value) and all(isinstance(item, Mapping) for item in value))
    return [value] if is_one else value


def _take_system(asked: list[Turn], column: Any) -> str | None:
    """The system message, out of the turns or from its column; they may not say two things."""
    if not asked or asked[0].role != "system":
        return column or None
    stated = asked.pop(0).content
    if column and column != stated:
        raise BadRowError(
            "system_disagrees",
            "the column system and the system message of the conversation differ; to read only the conversation:"
            " data.source.columns={system: null}",
        )
    return stated or None


def _id(value: Any, name: str) -> str:
    if value is None:
        return name
    if not isinstance(value, str | int):
        raise _wrong_type("id", value, "a text or a whole number")
    return str(value)


def _preferences(value: Any) -> list[StatedPreference]:
    if value is None:
        return []
    try:
        stated = [StatedPreference(**preference) for preference in value]
    except TypeError as error:
        raise BadRowError("wrong_type", f"preference_set does not fit: {error}") from None
    for text in (text for preference in stated for text in astuple(preference)):
        check_text("preference_set", text)
    return stated


def _names(value: Any) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise _wrong_type("contrast", value, "a list of dimensions")
    return value


def _margin(value: Any) -> float | None:
    if value is None:
        return None
    if not isinstance(value, float | int) or not math.isfinite(value):
        raise _wrong_type("margin", value, "a finite number")
    return float(value)


def _wrong_type(name: str, value: Any, expected: str) -> BadRowError:
    return BadRowError("wrong_type", f"{name} is {reprlib.repr(value)}, a {type(value).__name__}; expected {expected}")
