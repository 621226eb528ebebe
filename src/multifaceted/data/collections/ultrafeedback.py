"""UltraFeedback: four scored answers to an instruction; and the pairs that were published from it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from multifaceted.data.bad_rows import BadRowError, LeftOutError
from multifaceted.data.collections.answers import Answer, Pairs, compare, example_from, why_alone
from multifaceted.data.collections.columns import columns_of, number_of, refuse_columns, text_of
from multifaceted.data.licences import Collection, Licence
from multifaceted.data.preference_files import PreferenceFiles
from multifaceted.data.rows import example_of
from multifaceted.data.text_files import Row
from multifaceted.records import Example, Turn


class Score(StrEnum):
    """The scores of a completion, by column."""

    OVERALL = "overall_score"
    """A judge's verdict on the whole, 1 to 10."""
    FINE_GRAINED = "fine-grained_score"
    """The mean of its verdicts on helpfulness, honesty, truthfulness and instruction following, 1 to 5."""


@dataclass(kw_only=True, slots=True)
class UltraFeedback(PreferenceFiles):
    """Rows of `instruction` and `completions` (Cui et al. 2023, arXiv 2310.01377), or of the binarized set.

    A completion has a `response`, an `overall_score` and a `fine-grained_score`. A binarized row has `chosen` and
    `rejected` conversations with `score_chosen` and `score_rejected`. Ties are counted and left out.

    Attributes:
        pairs: which completions are set beside each other.
        score: which score says what is better.
    """

    pairs: Pairs = Pairs.EXTREMES
    score: Score = Score.OVERALL
    licence: Collection | Licence | None = Collection.ULTRAFEEDBACK

    def __post_init__(self) -> None:
        PreferenceFiles.__post_init__(self)
        refuse_columns(self)

    def examples_of(self, row: Row, label: str) -> Iterable[Example]:
        """The pairs or the group of a row."""
        if isinstance(row.value, Mapping) and "completions" not in row.value and "score_chosen" in row.value:
            return [_binarized(row, label)]
        instruction, completions = columns_of(row.value, "instruction", "completions")
        if not isinstance(completions, list):
            raise BadRowError("wrong_type", f"completions is a {type(completions).__name__}; expected a list")
        answers = [
            answer
            for place, completion in enumerate(completions)
            if (answer := self._answer(str(place), completion)) is not None
        ]
        compared = compare(answers, self.pairs)
        if not compared:
            raise why_alone(answers[0], answers) if answers else LeftOutError("no_score", "no completion has a score")
        turns = [Turn(role="user", content=text_of("instruction", instruction))]
        return [example_from(pair, turns, prefix=f"{label}:{row.number}", source=label) for pair in compared]

    def _answer(self, name: str, completion: Any) -> Answer | None:
        """A completion, or None where its annotation failed, which the set spells as a missing or a NaN score."""
        (response,) = columns_of(completion, "response")
        score = completion.get(self.score)
        if score is None or score == "N/A" or (isinstance(score, float) and math.isnan(score)):
            return None
        return Answer(name, text_of("response", response, "empty_response"), number_of(self.score, score))


def _binarized(row: Row, label: str) -> Example:
    better, worse = (number_of(name, row.value.get(name)) for name in ("score_chosen", "score_rejected"))
    if better == worse:
        raise LeftOutError("tie", f"chosen and rejected have the score {better:g}")
    return replace(example_of(row.value, {}, name=f"{label}:{row.number}", source=label), margin=better - worse)
