"""How far two judges agree on the same responses, or a judge and people, from what was recorded."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import NamedTuple

from multifaceted.evaluation.agreement import Level, agreement
from multifaceted.evaluation.controls import Control
from multifaceted.evaluation.finished import Finished, name_of, read_finished
from multifaceted.evaluation.labels import Label, read_labels
from multifaceted.evaluation.pairwise import Choice, outcome_of
from multifaceted.evaluation.rubric_scores import group_by_benchmark
from multifaceted.record_files import RecordError, read_prompts
from multifaceted.records import PROMPTS, Estimate, Prompt, Verdict

log = logging.getLogger(__name__)


class Item(NamedTuple):
    """What was rated: a response by a rubric of its prompt, or two responses in an order."""

    prompt: str
    rubric: int | None
    order: str | None


Rating = float | str | None
Ratings = Mapping[Item, Sequence[Rating]]
"""Of each item a rating a run, or a person; None is unscored."""


@dataclass(kw_only=True, slots=True)
class AgreementTask:
    """Single verdicts of two judges about the same response, each run of one against each run of the other.

    Scores are compared as ordinal ratings, outcomes of pairs as names. What a rule decided says nothing of a judge, and
    is left out.

    Attributes:
        first: the folder of a judged evaluation.
        second: another one, of the same responses; or a file of labels (`labels.read_labels`).
    """

    first: Path
    second: Path

    @property
    def name(self) -> str:
        """What the task is called in records."""
        return name_of("agreement", self.first, self.second)

    @property
    def subject(self) -> Path:
        """The evaluation that it is about."""
        return self.first

    @property
    def sources(self) -> dict[str, Path]:
        """The two, by setting."""
        return {"first": self.first, "second": self.second}

    def metrics_of_records(self) -> dict[str, Estimate]:
        """`<bench or benchmark>/<metric>`, and by dimension: `equal` and the coefficients of `agreement.COEFFICIENTS`.

        `n` is the number of pairs of ratings. What only one of the two has rated is unscored.

        Raises:
            RecordError: a file is missing or broken; the two are about other responses, or of another kind.
            DataError: a row of a file is no label.
        """
        if self.first.is_file():
            swap = f", and swap the two: task.first={self.second} task.second={self.first}"
            raise RecordError(
                f"task.first={self.first} is a file; name the folder of a judged evaluation"
                f"{swap if self.second.is_dir() else ''}"
            )
        first = read_finished(self.first)
        prompts, judged = dict(first.prompts), [first]
        if self.second.is_dir():
            judged.append(read_finished(self.second))
            _check_same(*judged)
            prompts = {**judged[1].prompts, **prompts}
        ratings = [_ratings(finished) for finished in judged]
        ruled = {_item(v) for finished in judged for v in finished.verdicts if v.attempt == 0}
        if len(judged) == 1:
            ratings.append(_of_labels(read_labels(self.second, first.task), ratings[0], self))
        if ruled:
            log.info("%d ratings that a rule decided are left out", len(ruled))
        both = [{item: row for item, row in each.items() if item not in ruled} for each in ratings]
        return _metrics(prompts, both[0], both[1], _dimensions(judged))


def _ratings(finished: Finished) -> dict[Item, list[Rating]]:
    ratings: dict[Item, list[Rating]] = {}
    for verdict in finished.verdicts:
        ratings.setdefault(_item(verdict), []).append(_rating(verdict))
    return ratings


def _item(verdict: Verdict) -> Item:
    return Item(verdict.prompt, verdict.rubric, verdict.order)


def _rating(verdict: Verdict) -> Rating:
    """A score, what a choice means for the policy, or whatever else a protocol calls a verdict."""
    return outcome_of(verdict) if verdict.score in {*Choice} else verdict.score


def _check_same(first: Finished, second: Finished) -> None:
    """Refuse evaluations of other responses; one of them may hold more prompts than the other."""
    shared = [id_ for id_ in first.prompts if id_ in second.prompts]
    others = [
        id_
        for id_ in shared
        if first.prompts[id_] != second.prompts[id_] or first.responses[id_].turns != second.responses[id_].turns
    ]
    if others or not shared:
        found = f"{len(others)} of {len(shared)} prompts have another response, first {others[0]!r}" if others else ""
        raise RecordError(
            f"{first.folder} and {second.folder} are not about the same responses:"
            f" {found or 'no prompt is in both'}. Have the other judge read those of the first:"
            f" engine=file engine.path={first.folder}/responses.jsonl into=..."
        )
    asked = {verdict.key: verdict.asked for verdict in first.verdicts}
    if changed := sum(asked.get(verdict.key, verdict.asked) != verdict.asked for verdict in second.verdicts):
        log.warning("%d verdicts answer another question of the second judge than of the first", changed)


def _of_labels(labels: Sequence[Label], judged: Ratings, task: AgreementTask) -> dict[Item, list[Rating]]:
    """The labels of each item; one of a pair is about both orders.

    Raises:
        RecordError: a label of what the evaluation does not have, or that may be about several rubrics.
    """
    items: dict[str, list[Item]] = {}
    for item in judged:
        items.setdefault(item.prompt, []).append(item)
    ratings: dict[Item, list[Rating]] = {}
    for label in labels:
        about = [item for item in items.get(label.prompt, []) if label.rubric in (None, item.rubric)]
        if not about:
            what = f"prompt {label.prompt!r}" + ("" if label.rubric is None else f", rubric {label.rubric}")
            raise RecordError(
                f"{task.second} has a label of {what}, {_why_not(label.prompt, task.first)}; leave it out"
            )
        if len({item.rubric for item in about}) > 1:
            raise RecordError(
                f"{task.second}: prompt {label.prompt!r} has {len(about)} rubrics; say in the column rubric, from 0,"
                " which of them a label is about"
            )
        for item in about:
            ratings.setdefault(item, []).append(label.score)
    return ratings


def _why_not(prompt: str, folder: Path) -> str:
    """Why an evaluation has no verdict that a label could be compared with."""
    controls = {each.id for each in read_prompts(folder / PROMPTS) if each.split in {*Control}}
    return "which is a control: those are left out" if prompt in controls else f"of which {folder} has no verdict"


def _dimensions(judged: Sequence[Finished]) -> dict[Item, str]:
    return {
        _item(verdict): verdict.dimension
        for finished in judged
        for verdict in finished.verdicts
        if verdict.dimension is not None
    }


def _metrics(
    prompts: Mapping[str, Prompt], first: Ratings, second: Ratings, dimensions: Mapping[Item, str]
) -> dict[str, Estimate]:
    ratings = [rating for each in (first, second) for row in each.values() for rating in row if rating is not None]
    names = sorted({rating for rating in ratings if isinstance(rating, str)})
    if names and len(names) < len({*ratings}):
        raise RecordError(f"one of the two rates by numbers and the other by names ({', '.join(names)}); compare alike")
    level = Level.NOMINAL if names else Level.ORDINAL
    numbered = {name: float(place) for place, name in enumerate(names)}
    metrics: dict[str, Estimate] = {}
    for split, group in group_by_benchmark(list(prompts.values())).items():
        ids = {prompt.id for prompt in group}
        items = [item for item in {**first, **second} if item.prompt in ids]
        by_suffix = {"": items}
        for item in items:
            if item in dimensions:
                by_suffix.setdefault(f"/{dimensions[item]}", []).append(item)
        for suffix, chosen in by_suffix.items():
            rows = [(a, b, prompts[item.prompt].instruction) for item in chosen for a, b in _pairs(item, first, second)]
            columns = [[_number(row[side], numbered) for row in rows] for side in (0, 1)]
            found = agreement(columns[0], columns[1], [row[2] for row in rows], level)
            metrics |= {f"{split}/{name}{suffix}": estimate for name, estimate in found.items()}
    return metrics


def _pairs(item: Item, first: Ratings, second: Ratings) -> Iterable[tuple[Rating, Rating]]:
    """Each rating of one with each of the other; None for all that the other one lacks."""
    return product(first.get(item, [None]), second.get(item, [None]))


def _number(rating: Rating, numbered: Mapping[str, float]) -> float | None:
    return numbered[rating] if isinstance(rating, str) else rating
