"""From verdicts by rubric to averages: of a response, a dimension, a benchmark, a model; and how far runs differ."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from multifaceted.evaluation.controls import Control, mean_or_none
from multifaceted.evaluation.statistics import bootstrap_mean
from multifaceted.records import Estimate, Prompt, Verdict


@dataclass(kw_only=True, slots=True)
class Judged:
    """What the judge said of one response by the rubrics of one prompt.

    Attributes:
        scores: rubric and run to score; None is unscored.
        dimensions: of the rubrics that have one.
        empty: nothing was there to be judged.
    """

    scores: dict[int, dict[int, float | None]] = field(default_factory=dict)
    dimensions: dict[int, str] = field(default_factory=dict)
    empty: bool = False

    def rubric_mean(self, rubric: int) -> float | None:
        """The mean of the runs that gave a score."""
        known = [score for score in self.scores[rubric].values() if score is not None]
        return float(np.mean(known)) if known else None

    def mean(self) -> float | None:
        """The mean over rubrics (as in the paper); None where one of them is unscored in every run."""
        return mean_or_none([self.rubric_mean(rubric) for rubric in sorted(self.scores)])

    def run_mean(self, run: int) -> float | None:
        """The mean over rubrics in one run; None where one of them is unscored."""
        return mean_or_none([runs.get(run) for _, runs in sorted(self.scores.items())])

    def dimension_mean(self, dimension: str) -> float | None:
        """The mean over the rubrics of a dimension."""
        return mean_or_none([self.rubric_mean(r) for r, name in sorted(self.dimensions.items()) if name == dimension])

    def by_dimension(self) -> dict[str, float | None]:
        """Dimension to its mean."""
        return {name: self.dimension_mean(name) for name in dict.fromkeys(self.dimensions.values())}

    def spread(self) -> float | None:
        """The standard deviation between runs (unbiased variance), averaged over rubrics; None where none has two."""
        known = [[s for s in runs.values() if s is not None] for _, runs in sorted(self.scores.items())]
        deviations = [float(np.std(scores, ddof=1)) for scores in known if len(scores) > 1]
        return float(np.mean(deviations)) if deviations else None

    def summary(self) -> dict[str, Any]:
        """The averages over runs, in total, by dimension and by rubric, and how many verdicts there are and lack."""
        every = self.every()
        return {
            "score": self.mean(),
            "by_dimension": self.by_dimension(),
            "by_rubric": [self.rubric_mean(rubric) for rubric in sorted(self.scores)],
            "spread": self.spread(),
            "verdicts": len(every),
            "unscored": every.count(None),
            "empty": self.empty,
        }

    def every(self) -> list[float | None]:
        """All scores."""
        return [score for _, runs in sorted(self.scores.items()) for _, score in sorted(runs.items())]


def judged(verdicts: Iterable[Verdict]) -> dict[tuple[str, str], Judged]:
    """Verdicts, of each question and run the last one, by whose rubrics and whose response."""
    found: dict[tuple[str, str], Judged] = {}
    for verdict in verdicts:
        if verdict.rubric is None or isinstance(verdict.score, str):
            continue
        entry = found.setdefault((verdict.prompt, verdict.response), Judged())
        entry.scores.setdefault(verdict.rubric, {})[verdict.run] = verdict.score
        entry.empty |= verdict.empty
        if verdict.dimension is not None:
            entry.dimensions[verdict.rubric] = verdict.dimension
    return found


def without_controls(prompts: Iterable[Prompt]) -> list[Prompt]:
    """The prompts that are of no control: those that a benchmark's figures are about."""
    return [prompt for prompt in prompts if prompt.split not in {*Control}]


def group_by_benchmark(prompts: Sequence[Prompt]) -> dict[str, list[Prompt]]:
    """The prompts of a bench under its name, and below it those from each of the benchmarks that it was drawn from."""
    groups: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        groups.setdefault(prompt.split, []).append(prompt)
    for prompt in prompts:
        source = prompt.metadata.get("source") or prompt.metadata.get("capability")
        if source and source != prompt.split:
            groups.setdefault(source.replace("/", "-"), []).append(prompt)
    return groups


def score_metrics(prompts: Sequence[Prompt], by_pair: Mapping[tuple[str, str], Judged]) -> dict[str, Estimate]:
    """The averages of one group of prompts; intervals resample instructions, which may occur with several messages.

    `score` is the mean of the runs, `score_run_<n>` that of one (from 1), `score_spread` the standard deviation of a
    judge's verdict between runs, where there are several; `unscored` and `empty` are shares of verdicts and of
    responses.
    """
    rows = [by_pair[prompt.id, prompt.id] for prompt in prompts]
    instructions = [prompt.instruction for prompt in prompts]

    def mean(value: Callable[[Judged], float | None]) -> Estimate:
        return bootstrap_mean([value(row) for row in rows], clusters=instructions)

    runs = sorted({run for row in rows for by_run in row.scores.values() for run in by_run})
    dimensions = dict.fromkeys(name for row in rows for name in row.dimensions.values())
    metrics = {"score": mean(Judged.mean)}
    for name in dimensions:
        holding = [place for place, row in enumerate(rows) if name in row.dimensions.values()]
        metrics[f"score/{name}"] = bootstrap_mean(
            [rows[place].dimension_mean(name) for place in holding],
            clusters=[instructions[place] for place in holding],
        )
    for run in runs:
        metrics[f"score_run_{run + 1}"] = bootstrap_mean([row.run_mean(run) for row in rows], clusters=instructions)
    if len(runs) > 1:
        read = [
            place for place, row in enumerate(rows) if not row.empty
        ]  # of the others a rule says the same each time
        metrics["score_spread"] = bootstrap_mean(
            [rows[place].spread() for place in read], clusters=[instructions[place] for place in read]
        )
    return metrics | {
        "unscored": bootstrap_mean(
            [float(score is None) for row in rows for score in row.every()],
            clusters=[i for i, row in zip(instructions, rows, strict=True) for _ in row.every()],
        ),
        "empty": mean(lambda row: float(row.empty)),
    }
