"""MT-Bench as a task: both turns are answered, and a judge scores each (`protocols.mt_bench`)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multifaceted.data.bad_rows import BadRows
from multifaceted.data.benches import read_bench
from multifaceted.evaluation.judge import Question
from multifaceted.evaluation.material import is_empty
from multifaceted.evaluation.protocols.mt_bench import (
    GUIDED,
    LABELS,
    LOWEST,
    SPLIT,
    TURNS,
    Score,
    judge_texts,
    metrics,
    parse_score,
    read_templates,
    sampling_of,
    template_name,
)
from multifaceted.evaluation.statistics import bootstrap_mean
from multifaceted.evaluation.verdict_log import latest_verdicts, verdicts_of
from multifaceted.inference.files import read_answers
from multifaceted.inference.requests import named
from multifaceted.records import Estimate, Prompt, Response

log = logging.getLogger(__name__)


@dataclass(kw_only=True, slots=True)
class MtBenchTask:
    """Two answers a question, each scored from 1 to 10; in math, coding and reasoning beside reference answers.

    An empty answer has the lowest score by rule; the judge is not asked then.

    Attributes:
        bench: FastChat's `question.jsonl`.
        references: FastChat's `reference_answer/<judge>.jsonl`; without it, those that the questions bring.
        templates: FastChat's `judge_prompts.jsonl`, under which scores compare with published ones; ours by default.
    """

    bench: Path | None = None
    references: Path | None = None
    templates: Path | None = None

    @property
    def name(self) -> str:
        """What the task is called in records."""
        return SPLIT

    def prompts(self, seed: int) -> list[Prompt]:
        """All questions; nothing is drawn, so the seed has no say.

        Raises:
            DataError: the questions are missing or broken.
            EngineError: the references are.
            ValueError: questions that are judged beside references lack them; in the file, where one is named.
        """
        read_templates(self.templates)
        prompts = read_bench("mt_bench", self.bench, BadRows(option=""))
        for prompt in prompts:
            prompt.sampling = sampling_of(prompt.metadata["category"])
        self._add_references(prompts)
        return prompts

    def _add_references(self, prompts: Sequence[Prompt]) -> None:
        """Those of the file, where one is named, and of no other: a mixture would be nobody's protocol."""
        answers = None if self.references is None else read_answers(self.references)
        if answers is not None:
            for prompt in prompts:
                if prompt.id in answers:
                    prompt.metadata["references"] = answers[prompt.id].turns
        guided = [prompt for prompt in prompts if prompt.metadata["category"] in GUIDED]
        lacking = [
            prompt.id
            for prompt in guided
            if len(prompt.metadata["references"]) <= len(prompt.follow_ups)
            or (answers is not None and prompt.id not in answers)
        ]
        if lacking:
            raise ValueError(
                f"{self.references or 'the file of questions'} lacks reference answers, one a turn, of MT-Bench's"
                f" questions in {', '.join(sorted(GUIDED))}: {named(lacking)}; name FastChat's"
                " reference_answer/gpt-4.jsonl: task.references=..."
            )
        if guided and answers is None:
            log.info(
                "the judge is shown the questions' own reference answers; published scores use FastChat's"
                " reference_answer/gpt-4.jsonl: task.references=..."
            )

    def questions(self, prompts: Sequence[Prompt], responses: Mapping[str, Response]) -> list[Question]:
        """One a turn."""
        templates = read_templates(self.templates)
        questions = []
        for prompt in prompts:
            answers = responses[prompt.id].turns
            for turn in TURNS[: 1 + len(prompt.follow_ups)]:
                template = templates[template_name(prompt, turn)]
                texts = judge_texts(prompt, turn, answers, prompt.metadata["references"])
                questions.append(
                    Question(
                        prompt=prompt.id,
                        response=prompt.id,
                        messages=template.messages(texts),
                        read=template.reader(texts, parse_score, LABELS),
                        rubric=turn - 1,
                        dimension=prompt.metadata["category"],
                        decided=LOWEST if is_empty(answers[turn - 1]) else None,
                    )
                )
        return questions

    def metrics(self, prompts: Sequence[Prompt], verdicts: Sequence[Mapping[str, Any]]) -> dict[str, Estimate]:
        """Scores of both turns together and of each, also by category, and shares of `unscored` and `empty`."""
        categories = {prompt.id: prompt.metadata["category"] for prompt in prompts}
        latest = list(latest_verdicts(verdicts_of(verdicts)).values())
        clusters = [verdict.prompt for verdict in latest]
        scores = [
            Score(
                question=verdict.prompt,
                category=categories[verdict.prompt],
                turn=1 + (verdict.rubric or 0),
                score=None if verdict.score is None else float(verdict.score),
            )
            for verdict in latest
        ]
        return {
            **metrics(scores),
            f"{SPLIT}/unscored": bootstrap_mean([float(v.score is None) for v in latest], clusters=clusters),
            f"{SPLIT}/empty": bootstrap_mean([float(v.empty) for v in latest], clusters=clusters),
        }
