"""What people said of responses, from a file: a label a row."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from multifaceted.data.bad_rows import BadRowError
from multifaceted.data.benches.cells import Cells
from multifaceted.evaluation import rubrics
from multifaceted.evaluation.protocols import alpaca_eval, mt_bench
from multifaceted.evaluation.protocols.recorded import number_in, read_recorded
from multifaceted.evaluation.win_rates import Outcome

Read = Callable[[str], float | Outcome]
"""Reads a label that is not empty, or raises `BadRowError`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Label:
    """What one person said of one response.

    Attributes:
        rubric: which of the prompt's rubrics, from 0; None where it has one, or two responses were compared.
        score: a number by a rubric, an outcome of a pair; None is unscored.
    """

    prompt: str
    rubric: int | None
    score: float | Outcome | None


def read_labels(path: Path, task: str) -> list[Label]:
    """The rows of a file with the columns `prompt`, `score` and perhaps `rubric`; several of one thing are by several.

    A score is on the scale of the judge whose verdicts it is compared with.

    Args:
        task: the name of the task that was judged.

    Raises:
        DataError: the file is missing, or a row is broken or off the scale.
    """
    return read_recorded(path, partial(_label, read=_reader(task)), remedy="correct the file, or leave such rows out")


def _label(cells: Cells, read: Read) -> Label:
    known = Cells({name: str(value) for name, value in cells.values.items() if value is not None and value != ""})
    for column, if_empty in (("prompt", ""), ("score", "; leave it empty where there is none")):
        if column not in cells.values:
            found = ", ".join(map(repr, cells.values)) or "nothing"
            raise BadRowError("missing_column", f"no {column!r}; found {found}{if_empty}")
    if "prompt" not in known.values:
        raise BadRowError("missing_column", "prompt is empty; expected the id of a prompt")
    rubric = number_in(known, "rubric") if "rubric" in known.values else None
    if rubric is not None and (rubric < 0 or rubric != int(rubric)):
        raise BadRowError("wrong_value", f"rubric is {rubric}; expected a place from 0")
    return Label(
        prompt=known.label("prompt"),
        rubric=None if rubric is None else int(rubric),
        score=read(known.text("score")) if "score" in known.values else None,
    )


def _reader(task: str) -> Read:
    """Of a task with scores its scale; of others outcomes."""
    if task.startswith("rubric_"):
        return partial(_number, lowest=rubrics.LEVELS[0], highest=rubrics.LEVELS[-1])
    if task == mt_bench.SPLIT:
        return partial(_number, lowest=mt_bench.LOWEST, highest=mt_bench.HIGHEST)
    if task == alpaca_eval.SPLIT:
        return partial(_number, lowest=alpaca_eval.BASELINE, highest=alpaca_eval.MODEL)
    return _outcome


def _number(text: str, lowest: float, highest: float) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not lowest <= number <= highest:
        raise BadRowError(
            "wrong_value", f"score is {text!r}; expected a number from {lowest:g} to {highest:g}, the judge's scale"
        )
    return number


def _outcome(text: str) -> Outcome:
    if text not in {*Outcome}:
        raise BadRowError("wrong_value", f"score is {text!r}; expected one of {', '.join(Outcome)}")
    return Outcome(text)
