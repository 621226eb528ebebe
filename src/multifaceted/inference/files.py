"""Responses that were made elsewhere, in the layouts in which they are passed around.

One file, JSON or JSON Lines, gzipped or not, holds the responses of one model:

- ours, `responses.jsonl`: a row is `{"id", "text"}`, and may say `finished` and have `follow_ups`;
- Janus's `*_responses.json`: one object, `{"<id>": {"response": text}}`. Its bench has no ids: where the keys are
  exactly 0 to n - 1, and none is an id that is asked for, they are the places of rows, and requests are to be in the
  order of the bench. In every other layout an id is an id, also where it is a number;
- AlpacaEval's `model_outputs.json`: a row is `{"instruction", "output"}`, found by its instruction;
- FastChat's `model_answer/*.jsonl`, for MT-Bench, and Arena-Hard of 2024: a row is
  `{"question_id", "choices": [{"turns": [text or {"content": text}]}]}`, of which the first choice counts;
- Arena-Hard of 2025: a row is `{"uid", "messages": [{"role", "content": text or {"answer": text}}]}`.

An empty response is a response, and null is an empty one: Janus's code writes it so.
"""

from __future__ import annotations

import gzip
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from multifaceted.inference.requests import EngineError, Reply, Request, check_requests, named, whole_characters

log = logging.getLogger(__name__)

GZIP = b"\x1f\x8b"
_KEY = "key of the object"
"""Under which a row of Janus's object has its key."""


class Answers(NamedTuple):
    """What a row holds.

    Attributes:
        name: an id, a place, or an instruction.
        turns: a text for each.
        finished: whether none of them was cut.
        is_instruction: whether the name is one.
        is_key: whether it is a key of Janus's object, and so may be a place.
    """

    name: str
    turns: list[str]
    finished: bool = True
    is_instruction: bool = False
    is_key: bool = False


@dataclass(kw_only=True, slots=True)
class ResponseFile:
    """An engine that reads its replies from a file. Earlier answers in a conversation say which turn is asked for."""

    path: Path

    def answer(self, requests: Sequence[Request], seed: int) -> Iterator[Reply]:
        """One reply a request, in order. Where a file does not say whether a response was cut, it counts as finished.

        Raises:
            EngineError: the file cannot be read, or lacks a response, or holds two for one request.
        """
        check_requests(requests)
        found = read_answers(self.path)
        names = _names(requests, found)
        _check(self.path, requests, names, found)
        for request, name in zip(requests, names, strict=True):
            turn, turns = request.turn, found[name].turns
            if turn >= len(turns):
                raise EngineError(f"{self.path}: {request.shown!r} has {len(turns)} turns; turn {turn + 1} is asked")
            yield Reply(id=request.id, text=turns[turn], finished=found[name].finished)


def read_answers(path: Path) -> dict[str, Answers]:
    """What a file holds, by the name that each row has in it.

    Raises:
        EngineError: the file cannot be read, has a row of no layout that is known, or one name twice.
    """
    answers = [_answers(path, number, row) for number, row in enumerate(_rows(path), start=1)]
    number_of = Counter(each.name for each in answers)
    if twice := [name for name, number in number_of.items() if number > 1]:
        raise EngineError(f"{path} holds more than one response to {named(twice)}; leave one of each")
    return {each.name: each for each in answers}


@dataclass(frozen=True, slots=True)
class _Layout:
    """Rows with these columns, and how one is read."""

    columns: frozenset[str]
    read: Callable[[Mapping[str, Any]], Answers]

    def fits(self, row: Any) -> bool:
        return isinstance(row, Mapping) and self.columns <= row.keys()


def _text(value: Any) -> str:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{value!r} is not a text")
    return whole_characters(value or "")


def _janus(row: Mapping[str, Any]) -> Answers:
    return Answers(row[_KEY], [_text(row["response"])], is_key=True)


def _fastchat(row: Mapping[str, Any]) -> Answers:
    turns = row["choices"][0]["turns"]
    return Answers(str(row["question_id"]), [_text(t["content"] if isinstance(t, Mapping) else t) for t in turns])


def _arena(row: Mapping[str, Any]) -> Answers:
    contents = [message["content"] for message in row["messages"] if message["role"] == "assistant"]
    return Answers(str(row["uid"]), [_text(c["answer"] if isinstance(c, Mapping) else c) for c in contents])


def _ours(row: Mapping[str, Any]) -> Answers:
    turns = [_text(text) for text in (row["text"], *row.get("follow_ups", ()))]
    finished = row.get("finished", True)
    if not isinstance(finished, bool):
        raise TypeError(f"finished is {finished!r}; expected true or false")
    return Answers(str(row["id"]), turns, finished)


def _alpaca(row: Mapping[str, Any]) -> Answers:
    return Answers(row["instruction"].strip(), [_text(row["output"])], is_instruction=True)


_LAYOUTS = (
    _Layout(frozenset({_KEY, "response"}), _janus),
    _Layout(frozenset({"question_id", "choices"}), _fastchat),
    _Layout(frozenset({"uid", "messages"}), _arena),
    _Layout(frozenset({"instruction", "output"}), _alpaca),
    _Layout(frozenset({"id", "text"}), _ours),
    _Layout(frozenset({"id", "response"}), lambda row: Answers(str(row["id"]), [_text(row["response"])])),
)


def _answers(path: Path, number: int, row: Any) -> Answers:
    layout = next((layout for layout in _LAYOUTS if layout.fits(row)), None)
    if layout is None:
        found = ", ".join(map(repr, row)) if isinstance(row, Mapping) else type(row).__name__
        expected = "; ".join(", ".join(sorted(each.columns)) for each in _LAYOUTS)
        raise EngineError(f"{path}, row {number}: a layout that is not known ({found}); known are rows with {expected}")
    try:
        return layout.read(row)
    except (LookupError, TypeError, AttributeError) as error:
        raise EngineError(f"{path}, row {number}: {type(error).__name__}: {error}; mend the row") from None


def _rows(path: Path) -> Iterator[Any]:
    """The rows of a file; those of Janus's object with their key."""
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if content.startswith(GZIP) else content).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise EngineError(f"{path} cannot be read: {error}") from None
    try:
        document = json.loads(text)
    except ValueError:
        yield from _lines(path, text)
        return
    if isinstance(document, dict) and all(isinstance(value, dict) for value in document.values()):
        yield from ({"id": key, **value, _KEY: key} for key, value in document.items())
    else:
        yield from document if isinstance(document, list) else [document]


def _lines(path: Path, text: str) -> Iterator[Any]:
    for number, line in enumerate(text.split("\n"), start=1):
        try:
            if line.strip():
                yield json.loads(line)
        except ValueError as error:
            raise EngineError(f"{path}, line {number}: not JSON ({error})") from None


def _names(requests: Sequence[Request], found: Mapping[str, Answers]) -> list[str]:
    """What each request is called in the file."""
    if any(answers.is_instruction for answers in found.values()):
        return [next(m["content"] for m in request.messages if m["role"] == "user").strip() for request in requests]
    ids = [request.id for request in requests]
    if _by_place(found) and found.keys().isdisjoint(ids):
        return [str(place) for place in range(len(requests))]
    return ids


def _by_place(found: Mapping[str, Answers]) -> bool:
    places = {str(place) for place in range(len(found))}
    return bool(found) and found.keys() == places and all(answers.is_key for answers in found.values())


def _check(path: Path, requests: Sequence[Request], names: Sequence[str], found: Mapping[str, Answers]) -> None:
    """Refuse a file that lacks a response; by place, also one that holds more."""
    if missing := [r.shown for r, name in zip(requests, names, strict=True) if name not in found]:
        raise EngineError(
            f"{path} lacks {len(missing):,} of {len(requests):,} responses: to {named(missing)};"
            " was it made with the same bench?"
        )
    if extra := sorted(found.keys() - set(names)):
        message = f"{path} holds {len(extra):,} responses to what is not asked: {named(extra)}"
        if names != [request.id for request in requests] and names == [str(i) for i in range(len(names))]:
            raise EngineError(f"{message}. Its responses go by place, so the bench must be asked as a whole")
        log.warning("%s", message)
