"""What an evaluation consists of: prompts, what is asked about the responses, and metrics of the verdicts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeGuard, runtime_checkable

from multifaceted.evaluation.judge import Judge, Question
from multifaceted.inference.likelihood import Passage
from multifaceted.records import Estimate, Likelihood, Prompt, Response


@runtime_checkable
class Task(Protocol):
    """What is said of a policy: a `RuledTask` or a `JudgedTask` of its responses, a `LikelihoodTask` without any."""

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
class ScoredTask(RuledTask, Protocol):
    """Models of the task's own decide, such as a classifier; their verdicts are kept, not made anew."""

    def scorers(self) -> dict[str, str]:
        """Fingerprints of these models, by what they are for.

        Raises:
            EngineError: one cannot be had or cannot do this.
        """
        ...


@runtime_checkable
class LikelihoodTask(Task, Protocol):
    """Log-likelihoods decide, and nothing is generated."""

    @property
    def by_likelihood(self) -> bool:
        """Whether it is so; a task that can also be asked in text is a `RuledTask` where not."""
        ...

    def passages(self, prompts: Sequence[Prompt]) -> list[Passage]:
        """The texts whose likelihoods are asked for."""
        ...

    def verdicts_of_likelihoods(
        self, prompts: Sequence[Prompt], likelihoods: Mapping[str, Likelihood]
    ) -> list[dict[str, Any]]:
        """The lines of `verdicts.jsonl`."""
        ...


def asks_likelihoods(task: object) -> TypeGuard[LikelihoodTask]:
    """Whether log-likelihoods decide."""
    return isinstance(task, LikelihoodTask) and task.by_likelihood


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
class ResponseScoringTask(Task, Protocol):
    """One that also says how good each response is."""

    def response_scores(
        self, prompts: Sequence[Prompt], verdicts: Sequence[Mapping[str, Any]]
    ) -> Iterable[Mapping[str, Any]]:
        """The lines of `response_scores.jsonl`, one a prompt, from the lines of the other files alone."""
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

    @property
    def sources(self) -> dict[str, Path]:
        """By setting, the folders and files that are read."""
        ...

    def metrics_of_records(self) -> dict[str, Estimate]:
        """The flat metrics of `scores.json`.

        Raises:
            RecordError: a file is missing or broken.
        """
        ...
