"""The mini task: responses of the mini bench, scored by rule, with controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from multifaceted.evaluation.controls import Control, Movement, against_others, base_id, movement_matrix, without_system
from multifaceted.evaluation.statistics import bootstrap_mean
from multifaceted.mini import world
from multifaceted.mini.holdout import Part
from multifaceted.mini.lexicon import taxonomy
from multifaceted.mini.rules import on_topic, satisfies, well_formed
from multifaceted.records import Estimate, Prompt, Response, Sampling

WITHOUT_SYSTEM = Control.WITHOUT_SYSTEM.value
FLIP = Control.FLIP.value
ONE_DIMENSION = "one_dimension"
SAMPLING = Sampling(temperature=0.0, repetition_penalty=1.0, max_tokens=160)
CONTROLLED = "unseen_combinations"
"""The split whose prompts the controls change."""


@dataclass(kw_only=True, slots=True)
class MiniTask:
    """Adherence by rule on held-out splits, with controls, and on messages that state one dimension only.

    Attributes:
        part: `validation` prompts are for tuning, `test` prompts for closing figures.
        num_prompts: prompts of each split, each control and each single dimension.
    """

    part: Part = Part.TEST
    num_prompts: int = 200

    def __post_init__(self) -> None:
        if self.part is Part.TRAIN:
            raise ValueError("part is 'train'; the bench has validation and test")
        if self.num_prompts < 2:
            raise ValueError(f"num_prompts is {self.num_prompts}; shuffled preference sets need at least 2")

    @property
    def name(self) -> str:
        """What the task is called in records."""
        return f"mini_{self.part.value}"

    def prompts(self, seed: int) -> list[Prompt]:
        """The splits; then one of them without a system message, with one preference flipped, and with one alone."""
        splits = {split: world.bench(split, self.num_prompts, seed, self.part) for split in world.SPLITS}
        bare = without_system(splits[CONTROLLED])
        flipped = world.flipped(self.num_prompts, seed, self.part)
        single = world.one_dimension(self.num_prompts * len(taxonomy().dimensions), seed, self.part)
        every = [*(prompt for prompts in splits.values() for prompt in prompts), *bare, *flipped, *single]
        return [replace(prompt, sampling=SAMPLING) for prompt in every]

    def verdicts(self, prompts: Sequence[Prompt], responses: Mapping[str, Response]) -> list[dict[str, Any]]:
        """One row a prompt: which preferences of the whole taxonomy its response satisfies, and the two form rules."""
        rows = []
        for prompt in prompts:
            response = responses[prompt.id]
            rows.append(
                {
                    "id": prompt.id,
                    "split": prompt.split,
                    "satisfied": [name for name in taxonomy().by_name if satisfies(response.text, name)],
                    "on_topic": on_topic(response.text, prompt.metadata["topic"], world.topic_words()),
                    "well_formed": response.finished and well_formed(response.text),
                }
            )
        return rows

    def metrics(self, prompts: Sequence[Prompt], verdicts: Sequence[Mapping[str, Any]]) -> dict[str, Estimate]:
        """The flat metrics of `scores.json`."""
        metrics: dict[str, Estimate] = {}
        rows: dict[str, list[tuple[Prompt, Mapping[str, Any]]]] = {}
        for prompt, verdict in zip(prompts, verdicts, strict=True):
            rows.setdefault(prompt.split, []).append((prompt, verdict))
        for split in world.SPLITS:
            metrics |= _split_metrics(split, rows[split])
        bare = rows[WITHOUT_SYSTEM]
        metrics[f"{CONTROLLED}/adherence_without_system"] = bootstrap_mean([_adherence(*row) for row in bare])
        metrics[f"{CONTROLLED}/chance_without_system"] = bootstrap_mean(_against_others(bare))
        movements = _movements(rows[CONTROLLED], rows[FLIP])
        by_asked = {d: [m for m in movements if m.asked == d] for d in taxonomy().dimensions}
        for suffix, group in {"": movements, **{f"/{d}": g for d, g in by_asked.items()}}.items():
            metrics[f"{CONTROLLED}/flip_followed{suffix}"] = bootstrap_mean([movement.followed for movement in group])
            metrics[f"{CONTROLLED}/flip_kept{suffix}"] = bootstrap_mean([movement.kept for movement in group])
        metrics |= {f"{CONTROLLED}/{name}": estimate for name, estimate in movement_matrix(movements).items()}
        return metrics | _single_metrics(rows[ONE_DIMENSION])


def _split_metrics(split: str, rows: Sequence[tuple[Prompt, Mapping[str, Any]]]) -> dict[str, Estimate]:
    adherence = [_adherence(*row) for row in rows]
    satisfied = [value == 1.0 for value in adherence]
    columns: dict[str, Sequence[float]] = {
        "adherence": adherence,
        "all_satisfied": satisfied,
        "on_topic": [v["on_topic"] for _, v in rows],
        "well_formed": [v["well_formed"] for _, v in rows],
        "all_good": [ok and v["on_topic"] and v["well_formed"] for ok, (_, v) in zip(satisfied, rows, strict=True)],
        "chance": _against_others(rows),
    }
    for dimension in taxonomy().dimensions:
        columns[f"adherence/{dimension}"] = [
            float(np.mean([p.preference in v["satisfied"] for p in prompt.preferences if p.dimension == dimension]))
            for prompt, v in rows
        ]
    return {f"{split}/{name}": bootstrap_mean(list(map(float, values))) for name, values in columns.items()}


def _single_metrics(rows: Sequence[tuple[Prompt, Mapping[str, Any]]]) -> dict[str, Estimate]:
    """Adherence to messages that state one preference, by its dimension, and by chance."""
    metrics = {f"{ONE_DIMENSION}/adherence": bootstrap_mean([_adherence(*row) for row in rows])}
    for dimension in taxonomy().dimensions:
        stating = [row for row in rows if row[0].metadata["dimension"] == dimension]
        metrics[f"{ONE_DIMENSION}/adherence/{dimension}"] = bootstrap_mean([_adherence(*row) for row in stating])
        metrics[f"{ONE_DIMENSION}/chance/{dimension}"] = bootstrap_mean(_against_others(stating))
    return metrics


def _adherence(prompt: Prompt, verdict: Mapping[str, Any]) -> float:
    """Share of the stated preferences that the response satisfies."""
    return float(np.mean([p.preference in verdict["satisfied"] for p in prompt.preferences]))


def _against_others(rows: Sequence[tuple[Prompt, Mapping[str, Any]]]) -> list[float]:
    """Per response: its adherence to the preference set of another prompt, averaged over all others."""
    names = list(taxonomy().by_name)
    stated = np.array([[any(p.preference == name for p in prompt.preferences) for name in names] for prompt, _ in rows])
    holds = np.array([[name in verdict["satisfied"] for name in names] for _, verdict in rows])
    return against_others(stated, holds)


def _movements(
    base: Sequence[tuple[Prompt, Mapping[str, Any]]], flipped: Sequence[tuple[Prompt, Mapping[str, Any]]]
) -> list[Movement]:
    """Of every flip: what the responses before and after it satisfy of the set that it leads to."""
    before = {prompt.id: verdict for prompt, verdict in base}
    return [
        Movement(
            asked=taxonomy().by_name[prompt.metadata["flipped"]].dimension,
            before=_satisfied(prompt, before[base_id(prompt)]),
            after=_satisfied(prompt, verdict),
            cluster=base_id(prompt),
        )
        for prompt, verdict in flipped
    ]


def _satisfied(prompt: Prompt, verdict: Mapping[str, Any]) -> dict[str, float | None]:
    return {p.dimension: float(p.preference in verdict["satisfied"]) for p in prompt.preferences}
