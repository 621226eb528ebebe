"""AlpacaEval 2 as a task: each answer against a baseline's, in one order, weighed by the judge's first token."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from multifaceted.data.bad_rows import BadRows
from multifaceted.data.benches import read_bench
from multifaceted.evaluation.judge import Judge, Question
from multifaceted.evaluation.material import is_empty
from multifaceted.evaluation.opponents import read_opponents
from multifaceted.evaluation.pairwise import Order
from multifaceted.evaluation.protocols.alpaca_eval import (
    BASELINE,
    DRAW,
    MODEL,
    SPLIT,
    Annotation,
    is_swapped,
    judge_texts,
    metrics,
    read_template,
    weighted_preference,
)
from multifaceted.evaluation.protocols.length_control import (
    METRIC,
    LengthControl,
    length_controlled_win_rate,
    read_length_control,
)
from multifaceted.evaluation.statistics import bootstrap_mean
from multifaceted.evaluation.verdict_log import latest_verdicts, verdicts_of
from multifaceted.inference.policy import PolicyEngine
from multifaceted.inference.requests import Reply
from multifaceted.inference.server import ServerEngine
from multifaceted.record_files import RecordError
from multifaceted.records import Estimate, Prompt, Response, Verdict

log = logging.getLogger(__name__)

SWAPPED = "swapped"
"""In a prompt's metadata: whether the policy's answer is shown first."""


@dataclass(kw_only=True, slots=True)
class AlpacaEvalTask:
    """One preference a prompt, from 1 (the baseline's answer) to 2 (the policy's).

    A coin for each instruction decides whose answer is shown first. Equal answers are a draw, and an empty one loses,
    by rule; the judge is not asked then. Nothing is parsed: the probabilities of the judge's first token decide, so a
    response cannot write a verdict.

    Attributes:
        against: the baseline's answers, in any layout that `inference.files` reads; published figures are against
            `results/gpt4_1106_preview/model_outputs.json` of AlpacaEval.
        bench: a file of AlpacaEval's instructions, such as any of its `model_outputs.json`.
        template: AlpacaEval's prompt file, under which preferences compare with published ones; ours by default.
        length_control: what `protocols.length_control` reads; without it there is no length-controlled win rate.
    """

    against: Path
    bench: Path | None = None
    template: Path | None = None
    length_control: Path | None = None

    @property
    def name(self) -> str:
        """What the task is called in records."""
        return SPLIT

    def check_judge(self, judge: Judge) -> None:
        """Refuse a judge whose first token has no probabilities.

        Raises:
            ValueError: it is one.
        """
        if not isinstance(judge.engine, PolicyEngine | ServerEngine) or judge.engine.top_logprobs < 2:
            raise ValueError(
                f"task {self.name} weighs both labels by the probabilities of the judge's first token, and judge"
                f" {judge.name} does not give them; use judge=alpaca_eval, or a server or a policy with"
                " judge.engine.top_logprobs=5"
            )

    def prompts(self, seed: int) -> list[Prompt]:
        """All instructions; the seed tosses the coins, and with 0 they fall as in AlpacaEval's own evaluations.

        Raises:
            DataError: a file is missing or broken.
            EngineError: the baseline has not answered every prompt.
            ValueError: the length control was fitted against another baseline.
        """
        read_template(self.template)
        prompts = read_bench("alpaca_eval", self.bench, BadRows(option=""))
        baseline = read_opponents(self.against, prompts)
        if self.length_control is not None:
            _check_baseline(read_length_control(self.length_control), prompts, baseline)
        for prompt in prompts:
            prompt.metadata[SWAPPED] = is_swapped(prompt.instruction, seed)
        return prompts

    def questions(self, prompts: Sequence[Prompt], responses: Mapping[str, Response]) -> list[Question]:
        """One a prompt."""
        template, baseline = read_template(self.template), read_opponents(self.against, prompts)
        questions = []
        for prompt in prompts:
            swapped, ours, theirs = prompt.metadata[SWAPPED], responses[prompt.id].text, baseline[prompt.id]
            questions.append(
                Question(
                    prompt=prompt.id,
                    response=prompt.id,
                    messages=template.messages(judge_texts(prompt.instruction, theirs, ours, swapped=swapped)),
                    read=partial(_weighed, swapped=swapped),
                    order=(Order.POLICY_FIRST if swapped else Order.OPPONENT_FIRST).value,
                    decided=_by_rule(ours, theirs),
                    empty=is_empty(ours) or is_empty(theirs),
                    lengths=[len(ours), len(theirs)],
                )
            )
        return questions

    def metrics(self, prompts: Sequence[Prompt], verdicts: Sequence[Mapping[str, Any]]) -> dict[str, Estimate]:
        """`alpaca_eval/<metric>`: what `protocols.alpaca_eval.metrics` gives, and shares of `unscored` and `empty`.

        Raises:
            RecordError: a verdict does not say how long the answers are.
        """
        latest = list(latest_verdicts(verdicts_of(verdicts)).values())
        runs: dict[str, list[Verdict]] = {}
        for verdict in latest:
            runs.setdefault(verdict.prompt, []).append(verdict)
        annotations = [_annotation(prompt, runs[prompt.id]) for prompt in prompts if prompt.id in runs]
        clusters = [verdict.prompt for verdict in latest]
        return {
            **metrics(annotations),
            **self._length_controlled(annotations),
            f"{SPLIT}/unscored": bootstrap_mean([float(v.score is None) for v in latest], clusters=clusters),
            f"{SPLIT}/empty": bootstrap_mean([float(v.empty) for v in latest], clusters=clusters),
        }

    def _length_controlled(self, annotations: Sequence[Annotation]) -> dict[str, Estimate]:
        if self.length_control is None:
            log.info("%s is left out; name what it needs with task.length_control=...", METRIC)
            return {}
        control = read_length_control(self.length_control)
        try:
            return {METRIC: length_controlled_win_rate(annotations, control)}
        except ValueError as error:
            log.warning("%s cannot be computed: %s", METRIC, error)
            return {METRIC: Estimate(value=None, low=None, high=None, n=0, unscored=len(annotations))}


def _weighed(reply: Reply, *, swapped: bool) -> float | None:
    """What the first token says, although a reply of one token is always cut."""
    return None if reply.first_token is None else weighted_preference(reply.first_token, swapped=swapped)


def _by_rule(ours: str, theirs: str) -> float | None:
    match is_empty(ours), is_empty(theirs):
        case True, False:
            return BASELINE
        case False, True:
            return MODEL
        case True, True:
            return DRAW
    return DRAW if ours == theirs else None


def _annotation(prompt: Prompt, runs: Sequence[Verdict]) -> Annotation:
    """The verdicts of one prompt: the mean of its runs, unscored if one of them is."""
    lengths = runs[0].lengths
    if lengths is None:
        raise RecordError(f"the verdict of {prompt.id!r} does not say how long the answers are; judge again")
    scores = [float(verdict.score) for verdict in runs if verdict.score is not None]
    return Annotation(
        index=prompt.metadata["index"],
        preference=sum(scores) / len(scores) if len(scores) == len(runs) else None,
        baseline_length=lengths[1],
        model_length=lengths[0],
    )


def _check_baseline(control: LengthControl, prompts: Sequence[Prompt], baseline: Mapping[str, str]) -> None:
    """Refuse to control for length against answers that the published difficulties are not about."""
    known = dict(enumerate(control.baseline_lengths))
    others = [p.id for p in prompts if known.get(p.metadata["index"]) != len(baseline[p.id])]
    if others:
        raise ValueError(
            f"task.length_control is about another baseline: {len(others):,} of {len(prompts):,} answers in"
            f" task.against are of another length, first {others[0]!r}; name its answers, or leave length_control out"
        )
