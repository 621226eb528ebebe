"""MT-Bench (Zheng et al. 2023, arXiv 2306.05685): a judge scores each of two answers from 1 to 10."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from multifaceted.data.bad_rows import DataError
from multifaceted.data.benches.cells import Cells
from multifaceted.evaluation.protocols.own_templates import MT_BENCH
from multifaceted.evaluation.protocols.recorded import read_recorded
from multifaceted.evaluation.protocols.templates import OwnTemplate, Template, read_fastchat_templates
from multifaceted.evaluation.statistics import bootstrap_mean
from multifaceted.records import Estimate, Prompt, Sampling

SPLIT = "mt_bench"
TURNS = (1, 2)
GUIDED = frozenset({"math", "coding", "reasoning"})
"""Categories in which the judge is shown reference answers."""
LOWEST, HIGHEST = 1.0, 10.0
LABELS = {str(grade): float(grade) for grade in range(int(LOWEST), int(HIGHEST) + 1)}
"""What the judge may end with under our own templates."""
SCORE, BARE_SCORE = re.compile(r"\[\[(\d+\.?\d*)\]\]"), re.compile(r"\[(\d+\.?\d*)\]")
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
TEMPERATURES: Mapping[str, float] = {
    **dict.fromkeys(("writing", "roleplay"), 0.7),
    **dict.fromkeys(("extraction", "math", "coding", "reasoning"), 0.0),
    **dict.fromkeys(("stem", "humanities"), 0.1),
}
"""At which FastChat has a category answered."""
OTHER_TEMPERATURE = 0.7
MOST_TOKENS = 1024
"""Of an answer, in FastChat."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """The score of one answer; None where the judge's text has none."""

    question: str
    category: str
    turn: int
    score: float | None


def sampling_of(category: str | None) -> Sampling:
    """How answers in a category are drawn, as in FastChat."""
    temperature = TEMPERATURES.get(category or "", OTHER_TEMPERATURE)
    return Sampling(temperature=temperature, top_p=1.0, repetition_penalty=1.0, max_tokens=MOST_TOKENS)


def read_templates(path: Path | None) -> Mapping[str, Template | OwnTemplate]:
    """The four templates for single answers, by name; ours without a path.

    Args:
        path: FastChat's `judge_prompts.jsonl`, under which scores are comparable with published ones.

    Raises:
        DataError: one is missing, or hides something from the judge.
    """
    if path is None:
        return MT_BENCH
    found = read_fastchat_templates(path)
    missing = {name for name, _ in TEMPLATES.values()} - {*found}
    if missing:
        raise DataError(f"{path} has no template {', '.join(sorted(missing))}; name FastChat's judge_prompts.jsonl")
    return {name: found[name].checked(places) for name, places in TEMPLATES.values()}


def template_name(prompt: Prompt, turn: int) -> str:
    """Which of the templates shows an answer to the judge."""
    return TEMPLATES[prompt.metadata["category"] in GUIDED, turn][0]


def judge_texts(prompt: Prompt, turn: int, answers: Sequence[str], references: Sequence[str]) -> dict[str, str]:
    """What the judge is shown beside an answer, by the places of the templates.

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
    return texts


def parse_score(judgment: str) -> float | None:
    """The first `[[n]]` of a judge's text, else the first `[n]`; None where there is none from 1 to 10."""
    found = SCORE.search(judgment) or BARE_SCORE.search(judgment)
    if found is None:
        return None
    score = float(found[1])
    return score if LOWEST <= score <= HIGHEST else None


def metrics(scores: Sequence[Score]) -> dict[str, Estimate]:
    """Mean scores of one model: `score` over both turns, `turn_1` and `turn_2`, each also by category.

    Both answers to a question, and every repeated judgement of them, are resampled together.
    """
    columns: dict[str, list[Score]] = defaultdict(list)
    for score in scores:
        for metric in ("score", f"turn_{score.turn}"):
            columns[metric].append(score)
            columns[f"{metric}/{score.category}"].append(score)
    return {
        f"{SPLIT}/{name}": bootstrap_mean([s.score for s in column], clusters=[s.question for s in column])
        for name, column in sorted(columns.items())
    }


def read_answers(path: Path) -> dict[str, list[str]]:
    """By question, the answers of a file as FastChat's `model_answer/` and `reference_answer/`; of several the first.

    Raises:
        DataError: the file is missing or has a row without answers.
    """

    def answers(cells: Cells) -> tuple[str, list[str]]:
        choices = cells.items("choices")
        return cells.label("question_id"), Cells.of(choices[0] if choices else None, "choices").texts("turns")

    return dict(read_recorded(path, answers))


def read_judgments(path: Path, categories: Mapping[str, str]) -> dict[str, list[Score]]:
    """By model, the scores in the judge's texts of a file as FastChat's `model_judgment/`.

    Args:
        categories: of each question.

    Raises:
        DataError: the file is missing, a row is broken, or a question is unknown.
    """

    def score_of(cells: Cells) -> tuple[str, Score]:
        question, score = cells.label("question_id"), parse_score(cells.text("judgment"))
        if question not in categories:
            raise DataError(f"{path}: question {question} has no category; these are no judgements of these questions")
        turn = cells.whole("turn", below=len(TURNS) + 1)
        return cells.text("model"), Score(question=question, category=categories[question], turn=turn, score=score)

    models: dict[str, list[Score]] = defaultdict(list)
    for model, found in read_recorded(path, score_of):
        models[model].append(found)
    return dict(models)
