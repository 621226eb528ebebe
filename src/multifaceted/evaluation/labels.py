"""What people said of responses, from a file: a label a row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from multifaceted.data.bad_rows import BadRowError
from multifaceted.data.benches.cells import Cells
from multifaceted.evaluation.protocols.recorded import number_in, read_recorded
from multifaceted.evaluation.win_rates import Outcome


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


def read_labels(path: Path) -> list[Label]:
    """The rows of a file with the columns `prompt`, `score` and perhaps `rubric`; several of one thing are by several.

    Raises:
        DataError: the file is missing, or a row is broken.
    """
    return read_recorded(path, _label)


def _label(cells: Cells) -> Label:
    known = Cells({name: str(value) for name, value in cells.values.items() if value is not None and value != ""})
    if "score" not in cells.values:
        raise BadRowError("missing_column", "no 'score'; leave it empty where there is none")
    rubric = number_in(known, "rubric") if "rubric" in known.values else None
    if rubric is not None and (rubric < 0 or rubric != int(rubric)):
        raise BadRowError("wrong_value", f"rubric is {rubric}; expected a place from 0")
    return Label(prompt=known.label("prompt"), rubric=None if rubric is None else int(rubric), score=_score(known))


def _score(known: Cells) -> float | Outcome | None:
    text: Mapping[str, str] = known.values
    if "score" not in text:
        return None
    if text["score"] in {*Outcome}:
        return Outcome(text["score"])
    return number_in(known, "score")
