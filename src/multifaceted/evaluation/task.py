"""What an evaluation consists of: prompts, what is asked about the responses, and metrics of the verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from multifaceted.evaluation.judge import Judge, Question
from multifaceted.records import Estimate, Prompt, Response


@runtime_checkable
class Task(Protocol):
    """What is said of a policy's responses: a `RuledTask` or a `JudgedTask`."""

    @property
    def name(self) -> str:
        """What the task is called in records."""
        ...

    def prompts(self, seed: int) -> list[Prompt]:
        """What the policy is to answer.

        Raises:
            ValueError: there are none, or a response to one could not be scored.
        """
        ...

    def metrics(self, prompts: Sequence[Prompt], verdicts: Sequence[Mapping[str, Any]]) -> dict[str, Estimate]:
        """The flat metrics of `scores.json`, from the lines of the other files alone."""
        ...


@runtime_checkable
class RuledTask(Task, Protocol):
    """Rules decide."""

    def verdicts(self, prompts: Sequence[Prompt], responses: Mapping[str, Response]) -> list[dict[str, Any]]:
        """The lines of `verdicts.jsonl`."""
        ...


@runtime_checkable
class JudgedTask(Task, Protocol):
    """A judge decides."""

    def questions(self, prompts: Sequence[Prompt], responses: Mapping[str, Response]) -> list[Question]:
        """What the judge is to be asked."""
        ...


@runtime_checkable
class ParticularTask(JudgedTask, Protocol):
    """A judge decides, but not just any."""

    def check_judge(self, judge: Judge) -> None:
        """Refuse one whose replies could not be scored.

        Raises:
            ValueError: it is one.
        """
        ...


@runtime_checkable
class RecordedTask(Protocol):
    """What is said of files that other evaluations left: nothing is generated or judged."""

    @property
    def name(self) -> str:
        """What the task is called in records."""
        ...

    @property
    def subject(self) -> Path:
        """The evaluation's folder that it is about; beside it is where the results go."""
        ...

    def metrics_of_records(self) -> dict[str, Estimate]:
        """The flat metrics of `scores.json`.

        Raises:
            RecordError: a file is missing or broken.
        """
        ...
