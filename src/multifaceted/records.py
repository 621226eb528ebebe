"""Schemas and names of every file that one stage leaves for another. No torch, nothing else of ours."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

VERSION = 1

CONFIG = "config.yaml"
RUN = "run.json"
METRICS = "metrics.jsonl"
SUMMARY = "summary.json"
FAILURE = "failure.json"
SWEEP = "sweep.json"
LOG = "run.log"
CHECKPOINTS = "checkpoints"
POLICY = "policy"
REWARD_MODEL = "reward_model"
ADAPTER = "adapter"
PROMPTS = "prompts.jsonl"
RESPONSES = "responses.jsonl"
VERDICTS = "verdicts.jsonl"
SCORES = "scores.json"
INSTRUCTIONS = "instructions.jsonl"
PREVIEW = "preview"
REPORT = "report.json"
LENGTHS = "lengths.png"

RULE = "rule"
"""In place of a judge's name, where a rule decided."""

WITHOUT_MEANING = (
    "overwrite",
    "paths",
    "logger",
    "strategy",
    "checkpoint",
    "plan",
    "preview",
    "activation_checkpointing",
    "compile",
    "projection",
    "trainer.devices",
)
"""Keys of a run that do not name it and may differ in its continuation: where it runs, how it is kept and tracked."""


@dataclass(kw_only=True, slots=True)
class StatedPreference:
    """One preference as the released collections spell it (Multifaceted-Collection, column `preference_set`)."""

    dimension: str
    subdimension: str
    preference: str
    description: str


@dataclass(kw_only=True, slots=True)
class Turn:
    """One message of a conversation; `role` is "user" or "assistant"."""

    role: str
    content: str


@dataclass(kw_only=True, slots=True)
class Example:
    """One instruction under one system message, with its answers.

    `rejected` is empty for SFT, holds one response for a pair and two or more for a group. `contrast` names the
    dimensions in which chosen and rejected differ; it is empty where the data does not say.
    """

    id: str
    system: str | None
    turns: list[Turn]
    chosen: str
    rejected: list[str] = field(default_factory=list)
    preferences: list[StatedPreference] = field(default_factory=list)
    contrast: list[str] = field(default_factory=list)
    source: str = "unknown"
    margin: float | None = None


def messages_of(system: str | None, turns: Iterable[Turn]) -> list[dict[str, str]]:
    """A conversation in the form every chat template takes; an empty system message is none."""
    stated = [{"role": "system", "content": system}] if system else []
    return [*stated, *({"role": turn.role, "content": turn.content} for turn in turns)]


@dataclass(kw_only=True, slots=True)
class Prompt:
    """A bench prompt. `metadata` is what its task needs to score a response, and is never shown to the model.

    `follow_ups` is what the user says after each answer: MT-Bench's second turn.
    """

    id: str
    split: str
    system: str | None
    instruction: str
    follow_ups: list[str] = field(default_factory=list)
    preferences: list[StatedPreference] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)

    def messages(self, answers: Sequence[str] = ()) -> list[dict[str, str]]:
        """The conversation up to the next answer, in the form every chat template takes.

        Args:
            answers: what the model has answered so far.
        """
        asked = [self.instruction, *self.follow_ups]
        turns = [Turn(role="user", content=asked[0])]
        for answer, further in zip(answers, asked[1:], strict=False):
            turns += [Turn(role="assistant", content=answer), Turn(role="user", content=further)]
        return messages_of(self.system, turns)


@dataclass(kw_only=True, slots=True)
class BenchInstruction:
    """An instruction of which bench prompts are to be made, and the public bench it is from."""

    source: str
    id: str
    instruction: str
    version: int = VERSION


@dataclass(kw_only=True, slots=True)
class Response:
    """What an engine answered to a prompt."""

    id: str
    text: str
    finished: bool
    """Whether the model ended the response itself, and each later one; false when one was cut at the token limit."""
    follow_ups: list[str] = field(default_factory=list)
    """What it answered to each of the prompt's follow-ups."""

    @property
    def turns(self) -> list[str]:
        """All answers, the first one first."""
        return [self.text, *self.follow_ups]


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """One reply of a judge about one response, or about two; one line of `verdicts.jsonl`.

    A question that is asked again leaves a line for every attempt, and the last of them counts.

    Attributes:
        prompt: id of the prompt whose criteria are applied.
        response: id of the prompt that was answered; another one's in a control.
        policy: fingerprint of the policy that answered.
        judge: name of the judge; `RULE` where a rule decided and nothing was asked.
        run: which of the judge's runs, from 0.
        score: 1 to 5 of a rubric, 1 to 10 of MT-Bench, the outcome of a pair (`Choice`), or None: unscored.
        text: what the judge wrote, in full.
        attempt: how often the question has been asked by now; 0 where a rule decided.
        asked: fingerprint of the messages that were put to the judge.
        rubric: which of the prompt's rubrics, or of its turns, from 0; None for a pair.
        dimension: what that rubric is about, where the prompt says so.
        order: which response of a pair was shown first (`Order`).
        empty: there was no response, or one of a pair was missing, so a rule decided.
    """

    prompt: str
    response: str
    policy: str
    judge: str
    run: int
    score: float | str | None
    text: str
    attempt: int
    asked: str
    rubric: int | None = None
    dimension: str | None = None
    order: str | None = None
    empty: bool = False
    version: int = VERSION

    @property
    def key(self) -> tuple[str, str, int, str, int]:
        """What was asked in which run: the same for all attempts, and sortable."""
        rubric = -1 if self.rubric is None else self.rubric
        return (self.prompt, self.response, rubric, self.order or "", self.run)


@dataclass(kw_only=True, slots=True)
class Estimate:
    """A metric with its 95 % interval; `value` is None when nothing could be scored."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    unscored: int = 0


@dataclass(kw_only=True, slots=True)
class Scores:
    """`scores.json`: flat metrics, `"<split>/<metric>"` or `"<split>/<metric>/<dimension>"`."""

    task: str
    policy: dict[str, str]
    """`path` and `fingerprint` of what was scored."""
    metrics: dict[str, Estimate]
    version: int = VERSION


class RecordError(ValueError):
    """A record that is missing, broken, or of another version."""


def put_in_place(partial: Path, path: Path) -> None:
    """Give a file or a folder that is completely written its name; a power cut leaves `path` as it was or whole."""
    for written in (*partial.rglob("*"), partial):
        sync(written)
    os.replace(partial, path)
    sync(path.parent)


@contextlib.contextmanager
def alone_at(path: Path) -> Iterator[None]:
    """Wait for another job that makes the same file or folder, so that it can be read; where locks can be had."""
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):  # each job then makes its own
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = held.enter_context(path.with_name(f".{path.name}.lock").open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def sync(path: Path) -> None:
    """Have a file's bytes, or a folder's names, reach the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Write JSON (a dataclass or plain data) so that a reader sees the old file or the new one, never half of one."""
    plain = asdict(value) if hasattr(value, "__dataclass_fields__") else value
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    put_in_place(partial, path)


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Write one JSON object a line, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as stream:
        for row in rows:
            plain = asdict(row) if hasattr(row, "__dataclass_fields__") else row
            stream.write(json.dumps(plain, ensure_ascii=False, allow_nan=False) + "\n")
    put_in_place(partial, path)


def read_json(path: Path) -> Any:
    """Read a JSON record; a record of another version is refused."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecordError(f"{path} does not exist") from None
    except json.JSONDecodeError as error:
        raise RecordError(f"{path} is not JSON: {error}") from error
    if isinstance(value, dict) and value.get("version", VERSION) != VERSION:
        raise RecordError(f"{path} has record version {value['version']}; this release reads version {VERSION}")
    return value


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Read one JSON object a line; a broken line is refused with its number."""
    if not path.exists():
        raise RecordError(f"{path} does not exist")
    with path.open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise RecordError(f"{path}, line {number}: not JSON ({error})") from error


def read_prompts(path: Path) -> list[Prompt]:
    """The prompts of a `prompts.jsonl`.

    Raises:
        RecordError: a line that is no prompt.
    """
    prompts = []
    for number, row in enumerate(read_jsonl(path), start=1):
        try:
            stated = [StatedPreference(**preference) for preference in row.pop("preferences", [])]
            prompts.append(Prompt(**row, preferences=stated))
        except (AttributeError, TypeError) as error:
            raise RecordError(f"{path}, line {number}: not a prompt ({error})") from error
    return prompts


def read_responses(path: Path) -> dict[str, Response]:
    """The responses of a `responses.jsonl` by their prompt's id.

    Raises:
        RecordError: a line that is no response.
    """
    responses = {}
    for number, row in enumerate(read_jsonl(path), start=1):
        try:
            response = Response(**row)
        except TypeError as error:
            raise RecordError(f"{path}, line {number}: not a response ({error})") from error
        responses[response.id] = response
    return responses
