"""Recorded scores of two policies by the same judge and rubrics, compared prompt by prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from multifaceted.evaluation.finished import Finished, different, name_of, read_finished
from multifaceted.evaluation.rubric_scores import Judged, group_by_benchmark, judged
from multifaceted.evaluation.statistics import bootstrap_mean
from multifaceted.evaluation.win_rates import Comparison, Outcome, outcome_of_scores, win_rates
from multifaceted.record_files import RecordError
from multifaceted.records import Estimate, Prompt

Pair = tuple[Judged, Judged]


@dataclass(kw_only=True, slots=True)
class CompareTask:
    """The scores of one evaluation against those of another, the same prompts having been answered and judged.

    Attributes:
        ours: the folder of an evaluation with scores: `task=rubric`, or `task=mt_bench`.
        theirs: another one, of the policy that is compared with.
    """

    ours: Path
    theirs: Path

    @property
    def name(self) -> str:
        """What the task is called in records."""
        return name_of("compare", self.ours, self.theirs)

    @property
    def subject(self) -> Path:
        """The evaluation that it is about."""
        return self.ours

    @property
    def sources(self) -> dict[str, Path]:
        """The two, by setting."""
        return {"ours": self.ours, "theirs": self.theirs}

    def metrics_of_records(self) -> dict[str, Estimate]:
        """`<bench or benchmark>/<metric>`: `difference`, also by dimension, and the rates of `win_rates`.

        `difference` is the mean of our score less theirs. A prompt is won where our mean over rubrics and runs is
        higher. Intervals resample instructions, and with one all that belongs to it on both sides.

        Raises:
            RecordError: a file is missing or broken; the two differ in task, judge or prompts, or have no scores.
        """
        ours, theirs = read_finished(self.ours), read_finished(self.theirs)
        _check(ours, theirs)
        scores = [judged(finished.verdicts) for finished in (ours, theirs)]
        for finished, found in zip((ours, theirs), scores, strict=True):
            if lacking := [id_ for id_ in ours.prompts if (id_, id_) not in found]:
                raise RecordError(
                    f"{finished.folder} has no score of prompt {lacking[0]!r}, and of {len(lacking)} in all;"
                    " task=compare is about scores, of task=rubric or task=mt_bench"
                )
        pairs = {id_: (scores[0][id_, id_], scores[1][id_, id_]) for id_ in ours.prompts}
        return {
            f"{split}/{name}": estimate
            for split, group in group_by_benchmark(list(ours.prompts.values())).items()
            for name, estimate in _group_metrics(group, pairs).items()
        }


def _check(ours: Finished, theirs: Finished) -> None:
    """Refuse two evaluations whose scores do not mean the same."""
    if ours.task != theirs.task:
        raise RecordError(f"{ours.folder} is of task {ours.task}, and {theirs.folder} of {theirs.task}; compare alike")
    if judges := different(ours.judge, theirs.judge):
        raise RecordError(
            f"{ours.folder} and {theirs.folder} were judged by different judges: {judges}. Judge the responses of one"
            " by the judge of the other, into another folder: engine=file engine.path=<folder>/responses.jsonl into=..."
        )
    ids = {**ours.prompts, **theirs.prompts}
    if others := [id_ for id_ in ids if ours.prompts.get(id_) != theirs.prompts.get(id_)]:
        raise RecordError(
            f"{ours.folder} and {theirs.folder} differ in {len(others)} of {len(ids)} prompts, first {others[0]!r};"
            " evaluate both on the same bench"
        )


def _group_metrics(prompts: Sequence[Prompt], pairs: Mapping[str, Pair]) -> dict[str, Estimate]:
    rows = [(prompt.instruction, *pairs[prompt.id]) for prompt in prompts]
    metrics = {
        "difference": bootstrap_mean(
            [_less(ours.mean(), theirs.mean()) for _, ours, theirs in rows],
            clusters=[cluster for cluster, _, _ in rows],
        )
    }
    for name in dict.fromkeys(name for _, ours, _ in rows for name in ours.dimensions.values()):
        holding = [row for row in rows if name in row[1].dimensions.values()]
        metrics[f"difference/{name}"] = bootstrap_mean(
            [_less(ours.dimension_mean(name), theirs.dimension_mean(name)) for _, ours, theirs in holding],
            clusters=[cluster for cluster, _, _ in holding],
        )
    comparisons = [
        Comparison(cluster=cluster, outcomes=(outcome_of_scores(ours.mean(), theirs.mean()),))
        for cluster, ours, theirs in rows
    ]
    rates = win_rates(comparisons)
    del rates[Outcome.BOTH_BAD]  # which scores do not say
    return metrics | rates


def _less(ours: float | None, theirs: float | None) -> float | None:
    return None if ours is None or theirs is None else ours - theirs
