"""A judge: an engine that is asked the same question several times over, and again where it gives no verdict."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from tqdm import tqdm

from multifaceted.evaluation.verdict_log import VerdictLog
from multifaceted.inference.requests import Engine, EngineError, RefusedError, Reply, Request
from multifaceted.record_files import RecordError
from multifaceted.records import RULE, Verdict

logger = logging.getLogger(__name__)

T = TypeVar("T")

MOST_SHOWN = 200
"""Characters of a reply in a message."""
ATTEMPTS_APART = 1000
"""Samples from one attempt to the next: the requests of a run stay the same when runs are added."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What a judge is to decide once a run.

    Attributes:
        prompt: id of the prompt whose criteria are applied.
        response: id of the prompt that was answered.
        messages: what is put to the judge.
        read: what its reply says; None where it gives no verdict.
        rubric, dimension, order: as in `Verdict`.
        decided: the verdict where a rule gives it and nothing is asked.
        empty: of a decided one, whether that is because a response is empty; if not, because both are the same.
        lengths: as in `Verdict`.
    """

    prompt: str
    response: str
    messages: Sequence[dict[str, str]]
    read: Callable[[Reply], float | str | None]
    rubric: int | None = None
    dimension: str | None = None
    order: str | None = None
    decided: float | str | None = None
    empty: bool = True
    lengths: list[int] | None = None

    @property
    def fingerprint(self) -> str:
        """Of the messages."""
        return hashlib.sha256(json.dumps(list(self.messages)).encode()).hexdigest()[:16]


def at_the_end(parse: Callable[[str], T | None]) -> Callable[[Reply], T | None]:
    """Reads a verdict that stands at the end of a text: a reply that was cut has none."""
    return lambda reply: parse(reply.text) if reply.finished else None


class Asked(NamedTuple):
    """A question in one run, and how often it has been asked by now."""

    question: Question
    run: int
    attempts: int

    @property
    def label(self) -> str:
        """In words, with the numbers of `Verdict`.

        >>> Asked(Question(prompt="cd12", response="cd12", messages=[], read=str, rubric=0), run=0, attempts=0).label
        'prompt cd12, rubric 0, run 0'
        """
        question = self.question
        parts = [f"prompt {question.prompt}"]
        if question.response != question.prompt:
            parts.append(f"response to {question.response}")
        if question.rubric is not None:
            parts.append(f"rubric {question.rubric}")
        if question.order is not None:
            parts.append(f"order {question.order}")
        return ", ".join([*parts, f"run {self.run}"])


@dataclass(kw_only=True, slots=True)
class Judge:
    """Who judges, how often, and how often again where no verdict can be read.

    Attributes:
        name: what records call it.
        runs: verdicts of each question; the paper averages three.
        retries: how often a question without a verdict is asked again; then it is unscored, and stays so.
    """

    name: str
    engine: Engine
    runs: int = 3
    retries: int = 5

    def __post_init__(self) -> None:
        if self.name == RULE:
            raise ValueError(f"name is {RULE!r}, which in records says that no judge was asked; choose another")
        if not 1 <= self.runs <= ATTEMPTS_APART or self.retries < 0:
            raise ValueError(
                f"runs is {self.runs} and retries is {self.retries}; there are 1 to {ATTEMPTS_APART} runs, and a"
                " question is asked again 0 times or more"
            )

    def answer(self, questions: Sequence[Question], log: VerdictLog, policy: str, seed: int) -> None:
        """Have every question answered in every run; what the log has is not asked again.

        Args:
            policy: fingerprint of the policy whose responses are judged.

        Raises:
            EngineError: from the engine; what was answered before is in the log.
            RecordError: the log has answers to other questions.
        """
        log.add(self._decided(questions, log, policy))
        for _ in range(self.retries + 1):
            unanswered = [asked for asked in self._open(questions, log) if asked.attempts <= self.retries]
            if not unanswered:
                break
            replies = self._ask(unanswered, log, policy, seed)
            log.add(tqdm(replies, desc=f"judge {self.name}", unit="verdict", total=len(unanswered), disable=None))
            self._tell_unscored(unanswered, log)
        missing = [asked for asked in self._open(questions, log) if asked.attempts == 0]
        if missing:
            raise EngineError(f"{self.name} left {len(missing)} requests without a reply; the same command asks again")

    def _tell_unscored(self, asked: Sequence[Asked], log: VerdictLog) -> None:
        """How many replies hold no verdict, with an example, by which one sees a judge that never gives any."""
        latest = (log.latest.get(_verdict(each.question, each.run, "").key) for each in asked)
        without = [verdict for verdict in latest if verdict and verdict.score is None and verdict.refused is None]
        if without:
            again = sum(verdict.attempt <= self.retries for verdict in without)
            logger.warning(
                "%s: %d of %d replies hold no verdict, and %d questions are asked again; one of them ends: %r",
                *(self.name, len(without), len(asked), again, without[-1].text[-MOST_SHOWN:]),
            )

    def _decided(self, questions: Sequence[Question], log: VerdictLog, policy: str) -> Iterator[Verdict]:
        for question in questions:
            for run in range(self.runs) if question.decided is not None else ():
                verdict = _verdict(question, run, policy, score=question.decided, empty=question.empty)
                if verdict.key not in log.latest:
                    yield verdict

    def _open(self, questions: Sequence[Question], log: VerdictLog) -> list[Asked]:
        """What has no verdict yet."""
        found = []
        for question in questions:
            for run in range(self.runs):
                known = log.latest.get(_verdict(question, run, "").key)
                if known is not None and known.asked != question.fingerprint:
                    raise RecordError(
                        f"{log.path} has a verdict of {question.prompt!r} that answers another question than would be"
                        " asked now; judge into another folder with into=..., or remove that file"
                    )
                if known is None or known.score is None:
                    found.append(Asked(question, run, 0 if known is None else known.attempt))
        return found

    def _ask(self, unanswered: Sequence[Asked], log: VerdictLog, policy: str, seed: int) -> Iterator[Verdict]:
        """What is said of each; one that is refused by itself would be refused again, so it stays unscored."""
        by_id = {json.dumps(_verdict(a.question, a.run, policy).key): a for a in unanswered}
        requests = [
            Request(
                id=name,
                messages=asked.question.messages,
                sample=asked.run + ATTEMPTS_APART * asked.attempts,
                label=asked.label,
            )
            for name, asked in by_id.items()
        ]
        try:
            for reply in self.engine.answer(requests, seed):
                question, run, attempts = by_id.pop(reply.id)
                yield _verdict(
                    question,
                    run,
                    policy,
                    judge=self.name,
                    score=question.read(reply),
                    text=reply.text,
                    attempt=attempts + 1,
                    first_token=reply.first_token,
                )
        except RefusedError as error:
            if not any(known.judge == self.name and known.refused is None for known in log.latest.values()):
                raise  # nothing was ever answered: a setting is wrong, and not a question
            logger.warning("%s refused %d questions, which are unscored: %s", self.name, len(error.refused), error)
            for name, reason in error.refused.items():
                question, run, _ = by_id.pop(name)
                yield _verdict(question, run, policy, judge=self.name, attempt=self.retries + 1, refused=reason)
            if by_id:
                raise


def _verdict(
    question: Question,
    run: int,
    policy: str,
    *,
    judge: str = RULE,
    score: float | str | None = None,
    text: str = "",
    attempt: int = 0,
    empty: bool = False,
    first_token: Mapping[str, float] | None = None,
    refused: str | None = None,
) -> Verdict:
    return Verdict(
        prompt=question.prompt,
        response=question.response,
        policy=policy,
        judge=judge,
        run=run,
        score=score,
        text=text,
        attempt=attempt,
        asked=question.fingerprint,
        rubric=question.rubric,
        dimension=question.dimension,
        order=question.order,
        empty=empty,
        first_token=None if first_token is None else dict(first_token),
        lengths=question.lengths,
        refused=refused,
    )
