"""From answers to one prompt, with scores, to pairs and groups."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from multifaceted.data.bad_rows import LeftOutError
from multifaceted.records import Example, Turn


class Pairs(StrEnum):
    """Which answers are set beside each other."""

    EVERY = "every"
    """Each answer beside each worse one."""
    EXTREMES = "extremes"
    """The best beside the worst."""
    GROUP = "group"
    """The best beside all that are worse, as one group."""


class Answer(NamedTuple):
    """One of the answers to a prompt."""

    name: str
    """What tells it apart from the others, also in ids."""
    text: str
    score: float
    """Larger is better."""


class Comparison(NamedTuple):
    """An answer and the worse ones that are rejected beside it."""

    chosen: Answer
    rejected: list[Answer]


def compare(answers: Sequence[Answer], pairs: Pairs) -> list[Comparison]:
    """Set answers beside each other, never those with equal scores or with the same text.

    Of equally good ones the first counts as best, of equally bad ones the last as worst.
    """
    ranked = sorted(answers, key=lambda answer: -answer.score)
    worse = [
        Comparison(better, [other for other in ranked if other.score < better.score and other.text != better.text])
        for better in ranked
    ]
    if pairs is Pairs.EVERY:
        return [Comparison(better, [other]) for better, others in worse for other in others]
    best = [found for found in worse if found.rejected][:1]
    if pairs is Pairs.GROUP:
        return best
    return [Comparison(chosen, rejected[-1:]) for chosen, rejected in best]


def why_alone(answer: Answer, answers: Sequence[Answer]) -> LeftOutError:
    """Why `compare` sets an answer beside none of the others."""
    others = [other for other in answers if other is not answer]
    if not others:
        return LeftOutError("no_sibling", "no other answer to this prompt stands beside it in the file")
    if all(other.score == answer.score for other in others):
        return LeftOutError("tie", f"all answers to its prompt have the score {answer.score:g}")
    if all(other.score == answer.score or other.text == answer.text for other in others):
        return LeftOutError("equal_responses", "no answer to its prompt is better or worse and has another text")
    return LeftOutError("not_compared", "it is not among the answers that data.source.pairs compares")


def example_from(
    compared: Comparison, turns: Sequence[Turn], *, prefix: str, source: str, has_margin: bool = True
) -> Example:
    """The pair or group as an example.

    Args:
        turns: the prompt.
        prefix: begins its id.
        has_margin: whether the difference of two scores is how much better an answer is; a rank does not say.
    """
    chosen, rejected = compared
    return Example(
        id=f"{prefix}:{chosen.name}>{'+'.join(answer.name for answer in rejected)}",
        system=None,
        turns=list(turns),
        chosen=chosen.text,
        rejected=[answer.text for answer in rejected],
        source=source,
        margin=chosen.score - rejected[0].score if has_margin and len(rejected) == 1 else None,
    )
