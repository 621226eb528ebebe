"""AlpacaEval 2 (Li et al. 2023; Dubois et al. 2024, arXiv 2404.04475): a model's answer against a baseline's.

A preference is a number from 1, the baseline's answer, to 2, the model's; 1.5 is a draw.
"""

from __future__ import annotations

import math
import random
import re
import reprlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from multifaceted.data.bad_rows import BadRowError
from multifaceted.data.benches.cells import Cells
from multifaceted.evaluation.protocols.own_templates import ALPACA_EVAL
from multifaceted.evaluation.protocols.recorded import number_in, read_recorded
from multifaceted.evaluation.protocols.templates import OwnTemplate, Template, read_chatml_template
from multifaceted.evaluation.statistics import bootstrap_mean
from multifaceted.records import Estimate

SPLIT = "alpaca_eval"
BASELINE, DRAW, MODEL = 1.0, 1.5, 2.0
FIRST, SECOND = "m", "M"
"""What the judge calls the answer shown first, and the other."""
LAST_WORD = re.compile(rf"(?<!\w)({FIRST}|{SECOND})\W*$")


@dataclass(frozen=True, kw_only=True, slots=True)
class Annotation:
    """A preference between two answers to one instruction, and their lengths in characters.

    Attributes:
        index: the place of the instruction among the 805.
        preference: None where the judge gave none.
    """

    index: int
    preference: float | None
    baseline_length: int
    model_length: int


@dataclass(frozen=True, kw_only=True, slots=True)
class WinRate:
    """A row of the published leaderboard; rates and their error are percentages."""

    win_rate: float
    standard_error: float
    n_wins: int
    n_wins_base: int
    n_draws: int
    n_total: int
    discrete_win_rate: float


def read_template(path: Path | None) -> Template | OwnTemplate:
    """The judge's template; ours without a path.

    Args:
        path: AlpacaEval's prompt file, under which preferences are comparable with published ones.

    Raises:
        DataError: it is missing, or hides something from the judge.
    """
    return ALPACA_EVAL if path is None else read_chatml_template(path).checked({*ALPACA_EVAL.headings})


def is_swapped(instruction: str, seed: int) -> bool:
    """Whether the model's answer is shown first: a coin for each instruction, the published one for seed 0."""
    return random.Random(f"is_switched_outputs{instruction}{seed}").random() >= 0.5


def judge_texts(instruction: str, baseline: str, model: str, *, swapped: bool) -> dict[str, str]:
    """What the judge is shown, by the places of the template."""
    first, second = (model, baseline) if swapped else (baseline, model)
    return {"instruction": instruction, "output_1": first, "output_2": second}


def weighted_preference(logprobs: Mapping[str, float], *, swapped: bool) -> float | None:
    """1 plus the probability of the model's label among the two labels; None where neither was probable.

    Args:
        logprobs: by token, what the judge's first token could have been: the five most probable ones.
        swapped: whether the model's answer was shown first.
    """
    first, second = (math.exp(logprobs.get(label, -math.inf)) for label in (FIRST, SECOND))
    if not first + second > 0:
        return None
    return BASELINE + (first if swapped else second) / (first + second)


def parse_preference(reply: str, *, swapped: bool) -> float | None:
    """The preference of a judge whose last word is a label, with or without reasons before it; None without one."""
    found = LAST_WORD.search(reply)
    if found is None:
        return None
    return MODEL if (found[1] == FIRST) is swapped else BASELINE


def ranked_preference(ranks: Mapping[str, int], *, swapped: bool) -> float | None:
    """The preference of a judge that calls a function with the ranks of both labels; None unless they are 1 and 2."""
    if {*ranks} != {FIRST, SECOND} or {*ranks.values()} != {1, 2}:
        return None
    return MODEL if (ranks[FIRST] == 1) is swapped else BASELINE


def win_rate(preferences: Sequence[float]) -> WinRate:
    """The published figures of scored preferences; the standard error is that of the mean, by the sample variance.

    Raises:
        ValueError: fewer than two, or one that is not within 1 and 2.
    """
    if len(preferences) < 2:
        raise ValueError(f"a standard error needs at least 2 preferences; there are {len(preferences)}")
    shares = np.array([_checked(preference) - BASELINE for preference in preferences])
    total, wins, draws = len(shares), int((shares > 0.5).sum()), int((shares == 0.5).sum())
    return WinRate(
        win_rate=100 * float(shares.mean()),
        standard_error=100 * float(shares.std(ddof=1)) / math.sqrt(total),
        n_wins=wins,
        n_wins_base=total - wins - draws,
        n_draws=draws,
        n_total=total,
        discrete_win_rate=100 * (wins + draws / 2) / total,
    )


def metrics(annotations: Sequence[Annotation]) -> dict[str, Estimate]:
    """`win_rate`, `discrete_win_rate`, `wins`, `draws` and `losses` in percent, and `avg_length` in characters.

    The leaderboard's `avg_length` is the whole part of this one.
    """
    preferences = [None if a.preference is None else _checked(a.preference) for a in annotations]
    columns: dict[str, list[float | None]] = {
        "win_rate": [None if p is None else 100 * (p - BASELINE) for p in preferences],
        "discrete_win_rate": [None if p is None else 50 * float(np.sign(p - DRAW) + 1) for p in preferences],
        "wins": [None if p is None else 100.0 * (p > DRAW) for p in preferences],
        "draws": [None if p is None else 100.0 * (p == DRAW) for p in preferences],
        "losses": [None if p is None else 100.0 * (p < DRAW) for p in preferences],
        "avg_length": [float(a.model_length) for a in annotations],
    }
    return {f"{SPLIT}/{name}": bootstrap_mean(column) for name, column in columns.items()}


def read_annotations(path: Path, places: Mapping[str, int]) -> list[Annotation]:
    """The annotations of one model, from a file as AlpacaEval's `annotations.json`.

    Args:
        places: of each instruction, its place among the 805.

    Raises:
        DataError: the file is missing, has a broken row, or an instruction that has no place.
    """

    def annotation(cells: Cells) -> Annotation:
        instruction = cells.text("instruction")
        if instruction not in places:
            raise BadRowError("unknown_instruction", f"the bench has no instruction {reprlib.repr(instruction)}")
        return Annotation(
            index=places[instruction],
            preference=recorded_preference(cells.number("preference")),
            baseline_length=len(cells.text("output_1")),
            model_length=len(cells.text("output_2")),
        )

    return read_recorded(path, annotation)


def read_preferences(path: Path) -> dict[str, list[Annotation]]:
    """By model, the rows of a table `model, index, preference, len_baseline, len_model`.

    Raises:
        DataError: the file is missing or has a broken row.
    """

    def annotation(cells: Cells) -> tuple[str, Annotation]:
        preference = cells.text("preference")
        return cells.text("model"), Annotation(
            index=int(number_in(cells, "index")),
            preference=recorded_preference(number_in(cells, "preference")) if preference else None,
            baseline_length=int(number_in(cells, "len_baseline")),
            model_length=int(number_in(cells, "len_model")),
        )

    models: dict[str, list[Annotation]] = defaultdict(list)
    for model, found in read_recorded(path, annotation):
        models[model].append(found)
    return dict(models)


def recorded_preference(value: float | None) -> float | None:
    """A preference as AlpacaEval records it: 0 is how its first version spells a draw.

    Raises:
        BadRowError: it is not within 1 and 2.
    """
    if value is None or BASELINE <= value <= MODEL:
        return value
    if value == 0:
        return DRAW
    raise BadRowError("wrong_value", f"preference is {value}; expected 1 (baseline) to 2 (model), or 0 for a draw")


def _checked(preference: float) -> float:
    if not BASELINE <= preference <= MODEL:
        raise ValueError(f"a preference is {preference}; expected 1 (the baseline's answer) to 2 (the model's)")
    return preference
