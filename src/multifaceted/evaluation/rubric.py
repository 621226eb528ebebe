"""Scores from 1 to 5, one call of a judge a rubric, as on Multifaceted Bench (arXiv 2405.17977, section 4)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from multifaceted.data.bad_rows import BadRows
from multifaceted.data.benches import read_bench
from multifaceted.data.source import stated_message
from multifaceted.evaluation.controls import (
    Control,
    Movement,
    base_id,
    flipped,
    movement_matrix,
    restated,
    with_irrelevant,
    without_system,
)
from multifaceted.evaluation.judge import Question
from multifaceted.evaluation.rubric_scores import (
    Judged,
    group_by_benchmark,
    judged,
    score_metrics,
    without_controls,
)
from multifaceted.evaluation.rubrics import RubricError, rubric_question, rubrics_of
from multifaceted.evaluation.statistics import bootstrap_mean
from multifaceted.evaluation.verdict_log import latest_verdicts, verdicts_of
from multifaceted.records import Estimate, Prompt, Response, StatedPreference

log = logging.getLogger(__name__)

READERS = ("multifaceted_bench", "biggen_bench")


@dataclass(kw_only=True, slots=True)
class RubricTask:
    """Every response by every rubric of its prompt.

    Attributes:
        bench: a file of the bench; None for the hub's copy.
        reader: whose columns it has: one of `READERS`.
        show_system: whether the judge sees the system message; the paper's does not.
        controls: what else is asked and scored; `flip` and `irrelevant` bring `stated` with them.
    """

    bench: Path | None = None
    reader: str = "multifaceted_bench"
    show_system: bool = False
    controls: list[Control] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.reader not in READERS:
            raise ValueError(f"reader is {self.reader!r}; benches with rubrics are {', '.join(READERS)}")

    @property
    def name(self) -> str:
        """What the task is called in records: scores of a judge who sees the system message are other scores."""
        return f"rubric_{self.reader}{'_with_system' if self.show_system else ''}"

    def prompts(self, seed: int) -> list[Prompt]:
        """The bench, then its controls. No part of it is drawn, so the seed has no say.

        Raises:
            RubricError: a rubric without five levels, or controls of a bench that states no preferences.
            DataError: the bench cannot be read.
        """
        bench = read_bench(self.reader, self.bench, BadRows(option=""))
        unpaired = [p.id for p in bench if any(rubric.dimension is None for rubric in rubrics_of(p))]
        if self.controls and unpaired:
            raise RubricError(
                f"prompt {unpaired[0]!r} of {self.reader} does not state a preference for each rubric, so there is"
                " nothing to change; leave controls out"
            )
        return [*bench, *self._controls(bench)]

    def _controls(self, bench: Sequence[Prompt]) -> Iterator[Prompt]:
        if Control.WITHOUT_SYSTEM in self.controls:
            yield from without_system(bench)
        stating = [prompt for prompt in bench if {Control.FLIP, Control.IRRELEVANT, Control.STATED} & {*self.controls}]
        yield from (restated(prompt, stated_message) for prompt in stating)
        if Control.IRRELEVANT in self.controls:
            yield from (with_irrelevant(prompt, stated_message) for prompt in bench)
        if Control.FLIP in self.controls:
            yield from _flips(bench)

    def questions(self, prompts: Sequence[Prompt], responses: Mapping[str, Response]) -> list[Question]:
        """One a rubric; and of a control the responses to be compared by the same rubrics.

        Raises:
            RubricError: a rubric without five levels; nothing has been asked then.
        """
        by_id = {prompt.id: prompt for prompt in prompts}
        pairs: list[tuple[Prompt, Prompt, Sequence[int]]] = [(p, p, range(len(rubrics_of(p)))) for p in prompts]
        for prompt in prompts:
            if prompt.split == Control.FLIP:
                before = by_id[f"{Control.STATED}-{base_id(prompt)}"]
                pairs.append((prompt, before, [prompt.metadata["flipped_place"]]))
        if Control.OTHER in self.controls:
            pairs += [(user, prompt, range(len(rubrics_of(user)))) for prompt, (user, *_) in _siblings(prompts)]
        return [
            rubric_question(
                prompt, place, rubrics_of(prompt)[place], answered, responses[answered.id], show_system=self.show_system
            )
            for prompt, answered, places in pairs
            for place in places
        ]

    def metrics(self, prompts: Sequence[Prompt], verdicts: Sequence[Mapping[str, Any]]) -> dict[str, Estimate]:
        """`<bench or benchmark>/<metric>`, and of controls `<bench>/moved_<asked>/<dimension>`."""
        by_pair = judged(latest_verdicts(verdicts_of(verdicts)).values())
        metrics: dict[str, Estimate] = {}
        for split, group in group_by_benchmark(without_controls(prompts)).items():
            metrics |= {f"{split}/{name}": estimate for name, estimate in score_metrics(group, by_pair).items()}
        controls = movement_matrix(list(_movements(prompts, by_pair))) | self._by_others(prompts, by_pair)
        return metrics | {f"{self.reader}/{name}": estimate for name, estimate in controls.items()}

    def response_scores(
        self, prompts: Sequence[Prompt], verdicts: Sequence[Mapping[str, Any]]
    ) -> Iterator[dict[str, Any]]:
        """Of each response by its own prompt's rubrics, in the order of the prompts; what is None is unscored."""
        by_pair = judged(latest_verdicts(verdicts_of(verdicts)).values())
        for prompt in prompts:
            yield {"id": prompt.id, "split": prompt.split, **by_pair[prompt.id, prompt.id].summary()}

    def _by_others(self, prompts: Sequence[Prompt], by_pair: Mapping[tuple[str, str], Judged]) -> dict[str, Estimate]:
        """The score of responses by what another user of the same instruction wants."""
        if Control.OTHER not in self.controls:
            return {}
        siblings = list(_siblings(prompts))
        rows = [by_pair[user.id, prompt.id] for prompt, (user, *_) in siblings]
        clusters = [prompt.instruction for prompt, _ in siblings]
        metrics = {"score_by_others": bootstrap_mean([row.mean() for row in rows], clusters=clusters)}
        for name in dict.fromkeys(name for row in rows for name in row.dimensions.values()):
            column = [row.dimension_mean(name) for row in rows]
            metrics[f"score_by_others/{name}"] = bootstrap_mean(column, clusters=clusters)
        return metrics


def _siblings(prompts: Sequence[Prompt]) -> Iterator[tuple[Prompt, list[Prompt]]]:
    """The bench's prompts, each with those of other users of its instruction, the next one first; none without any."""
    groups: dict[str, list[Prompt]] = {}
    for prompt in without_controls(prompts):
        groups.setdefault(prompt.instruction, []).append(prompt)
    for group in groups.values():
        for place, prompt in enumerate(group if len(group) > 1 else ()):
            yield prompt, [*group[place + 1 :], *group[:place]]


def _flips(bench: Sequence[Prompt]) -> Iterator[Prompt]:
    """Of every prompt one with a preference exchanged for another user's, the dimensions by turns."""
    flips = [_flip(prompt, others, index) for index, (prompt, others) in enumerate(_siblings(bench))]
    made = [flip for flip in flips if flip is not None]
    if len(made) < len(bench):
        log.info(
            "the control flip leaves out %d of %d prompts: no other user of their instruction wants something else",
            len(bench) - len(made),
            len(bench),
        )
    yield from made


def _flip(prompt: Prompt, others: Sequence[Prompt], first: int) -> Prompt | None:
    """The prompt with the preference at place `first`, or the next that can be, exchanged for what another user wants.

    None where all want the same, or nothing in the same dimension.
    """
    number = len(prompt.preferences)
    for place in ((first + turn) % number for turn in range(number)):
        for user in others:
            for theirs, preference in enumerate(user.preferences):
                of_dimension = preference.dimension == prompt.preferences[place].dimension
                if of_dimension and not any(_same(preference, stated) for stated in prompt.preferences):
                    return _flipped_towards(prompt, place, user, theirs)
    return None


def _same(preference: StatedPreference, other: StatedPreference) -> bool:
    names = [(p.dimension, p.subdimension, p.preference) for p in (preference, other)]
    return names[0] == names[1] or preference.description == other.description


def _flipped_towards(prompt: Prompt, place: int, user: Prompt, theirs: int) -> Prompt:
    """The preference at a place exchanged for another user's, with its rubric and its reference."""
    exchanged = user.metadata["rubrics"][theirs] | {"reference_answer": rubrics_of(user)[theirs].reference}
    changed = flipped(prompt, place, user.preferences[theirs], stated_message)
    rubrics = [*prompt.metadata["rubrics"][:place], exchanged, *prompt.metadata["rubrics"][place + 1 :]]
    changed.metadata |= {"rubrics": rubrics, "flipped_place": place}
    return changed


def _movements(prompts: Sequence[Prompt], by_pair: Mapping[tuple[str, str], Judged]) -> Iterator[Movement]:
    """Of every prompt of a control how its response compares with that to the prompt which it changed."""
    for prompt in prompts:
        if prompt.split not in (Control.WITHOUT_SYSTEM, Control.IRRELEVANT, Control.FLIP):
            continue
        asked, base = prompt.split, base_id(prompt)
        if prompt.split != Control.WITHOUT_SYSTEM:
            base = f"{Control.STATED}-{base}"
        before, after = by_pair[base, base].by_dimension(), by_pair[prompt.id, prompt.id].by_dimension()
        if prompt.split == Control.FLIP:
            place = prompt.metadata["flipped_place"]
            asked = prompt.preferences[place].dimension
            # Of what was asked for the one rubric that came in; the dimension may have others, which stayed.
            before[asked] = by_pair[prompt.id, base].rubric_mean(place)
            after[asked] = by_pair[prompt.id, prompt.id].rubric_mean(place)
        yield Movement(asked=asked, before=before, after=after, cluster=prompt.instruction)
