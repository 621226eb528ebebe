"""WebGPT comparisons: two answers to a question, with the strength of the preference for either."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from multifaceted.data.collections.answers import Answer, Pairs, compare, example_from, why_alone
from multifaceted.data.collections.columns import columns_of, number_of, refuse_columns, text_of
from multifaceted.data.licences import Collection, Licence
from multifaceted.data.preference_files import PreferenceFiles
from multifaceted.data.text_files import Row
from multifaceted.records import Example, Turn


@dataclass(kw_only=True, slots=True)
class WebGpt(PreferenceFiles):
    """Rows of `question`, `answer_0`, `answer_1`, `score_0`, `score_1` (Nakano et al. 2021, arXiv 2112.09332).

    A question is a text, or an object with `full_text`. Scores are between -1 and 1 and add up to 0; rows with equal
    ones are ties, counted and left out. What was quoted (`quotes_0`) is no part of the prompt.
    """

    licence: Collection | Licence | None = Collection.WEBGPT

    def __post_init__(self) -> None:
        PreferenceFiles.__post_init__(self)
        refuse_columns(self)

    def examples_of(self, row: Row, label: str) -> Iterable[Example]:
        """The pair of a row."""
        question, *cells = columns_of(row.value, "question", "answer_0", "answer_1", "score_0", "score_1")
        if isinstance(question, Mapping):
            (question,) = columns_of(question, "full_text")
        answers = [
            Answer(str(place), text_of(f"answer_{place}", text, "empty_response"), number_of(f"score_{place}", score))
            for place, (text, score) in enumerate(zip(cells[:2], cells[2:], strict=True))
        ]
        turns = [Turn(role="user", content=text_of("question", question))]
        compared = compare(answers, Pairs.EVERY)
        if not compared:
            raise why_alone(answers[0], answers)
        return [example_from(pair, turns, prefix=f"{label}:{row.number}", source=label) for pair in compared]
