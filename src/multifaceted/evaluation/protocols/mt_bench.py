"""MT-Bench (Zheng et al. 2023, arXiv 2306.05685): a judge scores each of two answers from 1 to 10."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from multifaceted.data.bad_rows import DataError
from multifaceted.data.benches.cells import Cells
from multifaceted.evaluation.protocols.recorded import read_recorded
from multifaceted.evaluation.protocols.templates import OWN, Template, read_fastchat_templates
from multifaceted.evaluation.statistics import bootstrap_mean
from multifaceted.records import Estimate, Prompt

SPLIT = "mt_bench"
TURNS = (1, 2)
GUIDED = frozenset({"math", "coding", "reasoning"})
"""Categories in which the judge is shown reference answers."""
LOWEST, HIGHEST = 1.0, 10.0
SCORE, BARE_SCORE = re.compile(r"\[\[(\d+\.?\d*)\]\]"), re.compile(r"\[(\d+\.?\d*)\]")
OWN_TEMPLATES = OWN / "mt_bench.jsonl"
TEMPLATES: Mapping[tuple[bool, int], tuple[str, frozenset[str]]] = {
    (False, 1): ("single-v1", frozenset({"question", "answer"})),
    (True, 1): ("single-math-v1", frozenset({"question", "answer", "ref_answer_1"})),
    (False, 2): ("single-v1-multi-turn", frozenset({"question_1", "question_2", "answer_1", "answer_2"})),
    (True, 2): (
        "single-math-v1-multi-turn",
        frozenset({"question_1", "question_2", "answer_1", "answer_2", "ref_answer_1", "ref_answer_2"}),
    ),
}
"""By whether it shows references and by turn, a template's name in FastChat's file, and its places."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """The score of one answer; None where the judge's text has none."""

    question: str
    category: str
    turn: int
    score: float | None


def read_templates(path: Path = OWN_TEMPLATES) -> dict[str, Template]:
    """The four templates for single answers, by name; scores are comparable with published ones under FastChat's.

    Raises:
        DataError: one is missing, or hides something from the judge.
    """
    found = read_fastchat_templates(path)
    missing = {name for name, _ in TEMPLATES.values()} - {*found}
    if missing:
        raise DataError(f"{path} has no template {', '.join(sorted(missing))}; name FastChat's judge_prompts.jsonl")
    return {name: found[name].checked(places) for name, places in TEMPLATES.values()}


def judge_messages(
    templates: Mapping[str, Template], prompt: Prompt, turn: int, answers: Sequence[str], references: Sequence[str]
) -> list[dict[str, str]]:
    """What the judge is told of an answer.

    Args:
        turn: 1, or 2 for the answer to the follow-up, which is judged with the first one before it.
        answers: those of the model under judgement, at least `turn` of them.
        references: shown in math, coding and reasoning; ignored elsewhere.

    Raises:
        ValueError: there are fewer answers or references than turns.
    """
    guided = prompt.metadata["category"] in GUIDED
    for name, given in {"answers": answers, **({"references": references} if guided else {})}.items():
        if len(given) < turn:
            raise ValueError(f"question {prompt.id} has {len(given)} {name}; turn {turn} is judged beside {turn}")
    questions = [prompt.instruction, *prompt.follow_ups]
    texts = {"question": questions[0], "answer": answers[0]}
    for number in range(turn):
        texts |= {f"question_{number + 1}": questions[number], f"answer_{number + 1}": answers[number]}
        if guided:
            texts[f"ref_answer_{number + 1}"] = references[number]
    return templates[TEMPLATES[guided, turn][0]].messages(texts)


def parse_score(judgment: str) -> float | None:
    """The first `[[n]]` of a judge's text, else the first `[n]`; None where there is none from 1 to 10."""
    found = SCORE.search(judgment) or BARE_SCORE.search(judgment)
    if found is None:
        return None
    score = float(found[1])
    return score if LOWEST <= score <= HIGHEST else None


def metrics(verdicts: Sequence[Verdict]) -> dict[str, Estimate]:
    """Mean scores of one model: `score` over both turns, `turn_1` and `turn_2`, each also by category.

    Both answers to a question, and every repeated judgement of them, are resampled together.
    """
    columns: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        for metric in ("score", f"turn_{verdict.turn}"):
            columns[metric].append(verdict)
            columns[f"{metric}/{verdict.category}"].append(verdict)
    return {
        f"{SPLIT}/{name}": bootstrap_mean([v.score for v in column], clusters=[v.question for v in column])
        for name, column in sorted(columns.items())
    }


def read_verdicts(path: Path, categories: Mapping[str, str]) -> dict[str, list[Verdict]]:
    """By model, the verdicts of a file as FastChat's `model_judgment/`, scored from the judge's text.

    Args:
        categories: of each question.

    Raises:
        DataError: the file is missing, a row is broken, or a question is unknown.
    """

    def verdict(cells: Cells) -> tuple[str, Verdict]:
        question, score = cells.label("question_id"), parse_score(cells.text("judgment"))
        if question not in categories:
            raise DataError(f"{path}: question {question} has no category; these are no judgements of these questions")
        turn = cells.whole("turn", below=len(TURNS) + 1)
        return cells.text("model"), Verdict(question=question, category=categories[question], turn=turn, score=score)

    verdicts: dict[str, list[Verdict]] = defaultdict(list)
    for model, found in read_recorded(path, verdict):
        verdicts[model].append(found)
    return dict(verdicts)
