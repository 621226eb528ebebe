"""HelpSteer and HelpSteer2: a scored response a row, the rows of a prompt one after the other."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from multifaceted.data.bad_rows import BadRowError, BadRows
from multifaceted.data.collections.answers import Answer, Pairs, compare, example_from, why_alone
from multifaceted.data.collections.columns import columns_of, number_of, refuse_columns, text_of
from multifaceted.data.licences import Collection, Licence
from multifaceted.data.preference_files import PreferenceFiles
from multifaceted.data.source import check_example
from multifaceted.data.text_files import Row
from multifaceted.records import Example, Turn

TURN = re.compile(r"<extra_id_1>(User|Assistant)[ \t]*\n")
"""How a prompt of several turns begins each but the first. (With blanks before it, long runs take quadratic time.)"""


class Rated(NamedTuple):
    """A row that can be compared with others of its prompt."""

    row: Row
    prompt: str
    answer: Answer


@dataclass(kw_only=True, slots=True)
class HelpSteer(PreferenceFiles):
    """Rows of `prompt`, `response` and `helpfulness` (Wang et al. 2023, arXiv 2311.09528; 2024, arXiv 2406.08673).

    Responses of one prompt follow one another in the published files; a row without such a neighbour, or with equally
    helpful ones only, is counted and left out.

    Attributes:
        pairs: which responses of a prompt are set beside each other.
    """

    pairs: Pairs = Pairs.EVERY
    licence: Collection | Licence | None = Collection.HELPSTEER

    def __post_init__(self) -> None:
        PreferenceFiles.__post_init__(self)
        refuse_columns(self)

    @property
    def joins_rows(self) -> bool:
        """A pair takes two rows or more."""
        return True

    def convert(self, rows: Iterable[Row], label: str, bad: BadRows) -> Iterator[tuple[Row, Example]]:
        """The pairs among rows of one prompt that follow one another; holds the rows of one prompt."""
        for prompt, group in groupby(_rated(rows, bad), key=lambda rated: rated.prompt):
            rated = list(group)
            answers = [one.answer for one in rated]
            compared = compare(answers, self.pairs)
            named = {answer.name for pair in compared for answer in (pair.chosen, *pair.rejected)}
            for one in rated:
                if one.answer.name not in named:
                    with bad.row(one.row.where):
                        raise why_alone(one.answer, answers)
            row_of = {one.answer.name: one.row for one in rated}
            for pair in compared:
                row, example = row_of[pair.chosen.name], example_from(pair, _turns(prompt), prefix=label, source=label)
                with bad.row(row.where):
                    check_example(example)
                    yield row, example


def _rated(rows: Iterable[Row], bad: BadRows) -> Iterator[Rated]:
    for row in rows:
        with bad.row(row.where):
            prompt, response, helpfulness = columns_of(row.value, "prompt", "response", "helpfulness")
            answer = Answer(
                str(row.number), text_of("response", response, "empty_response"), number_of("helpfulness", helpfulness)
            )
            for turn in _turns(text_of("prompt", prompt)):
                text_of("a turn of prompt", turn.content)
            yield Rated(row, prompt, answer)


def _turns(prompt: str) -> list[Turn]:
    """The turns of a prompt, which spells all but the first as "<extra_id_1>Assistant" and "<extra_id_1>User" lines.

    Raises:
        BadRowError: they do not alternate, or the user's is not the last.
    """
    first, *rest = TURN.split(prompt)
    roles = ["user", *(name.lower() for name in rest[::2])]
    if roles != [("user", "assistant")[place % 2] for place in range(len(roles))] or roles[-1] != "user":
        raise BadRowError("turns_not_alternating", f"the turns of prompt are {', '.join(roles[:9])}")
    texts = [text.strip() for text in (first, *rest[1::2])] if rest else [prompt]
    return [Turn(role=role, content=text) for role, text in zip(roles, texts, strict=True)]
