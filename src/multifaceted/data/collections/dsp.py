"""Domain-Specific Preference (DSP): one answer a domain to each query."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from multifaceted.data.bad_rows import BadRowError, LeftOutError
from multifaceted.data.collections.columns import columns_of, refuse_columns, text_of
from multifaceted.data.licences import Collection, Licence
from multifaceted.data.preference_files import PreferenceFiles
from multifaceted.data.text_files import Row
from multifaceted.records import Example, StatedPreference, Turn

DIMENSION = "domain"
WANTED = {
    "academy": "The answer argues as a scholar would: precise terms, careful claims, a clear structure.",
    "business": "The answer speaks to people in business: practical, to the point, with costs and gains in mind.",
    "entertainment": "The answer entertains: lively, playful, close to the audience.",
    "literature": "The answer is written as literature: rich in images, with care for rhythm and words.",
    "normal": "The answer is plain and helpful, for nobody in particular.",
}
"""What a system message says of each domain; the collection itself names the domains only."""


@dataclass(kw_only=True, slots=True)
class Dsp(PreferenceFiles):
    """Rows of `query` and `responses` by domain (Cheng et al. 2023, arXiv 2309.03126).

    A row becomes one group for each domain: under a system message that asks for the domain its answer is chosen, and
    the others are rejected.
    """

    licence: Collection | Licence | None = Collection.DSP

    def __post_init__(self) -> None:
        PreferenceFiles.__post_init__(self)
        refuse_columns(self)

    def examples_of(self, row: Row, label: str) -> Iterable[Example]:
        """The groups of a row; an answer that two domains share is rejected under neither."""
        query, responses = columns_of(row.value, "query", "responses")
        if not isinstance(responses, Mapping):
            raise BadRowError("wrong_type", f"responses is a {type(responses).__name__}; expected answers by domain")
        # A table has every domain in every row, and null for an answer that is not there.
        answers = {domain: text for domain, text in responses.items() if text is not None}
        unknown = [domain for domain in answers if domain not in WANTED]
        if unknown:
            raise BadRowError("unknown_domain", f"the domain {reprlib.repr(unknown[0])} is none of {', '.join(WANTED)}")
        for domain, text in answers.items():
            text_of(f"responses.{domain}", text, "empty_response")
        if len(set(answers.values())) < 2:
            raise LeftOutError("no_sibling", "it has no two answers that differ")
        return [self._group(domain, query, answers, f"{label}:{row.number}", label) for domain in answers]

    def _group(self, domain: str, query: str, answers: Mapping[str, str], name: str, source: str) -> Example:
        wanted = StatedPreference(
            dimension=DIMENSION, subdimension=domain, preference=domain, description=WANTED[domain]
        )
        example = Example(
            id=f"{name}:{domain}",
            system=None,
            turns=[Turn(role="user", content=query)],
            chosen=answers[domain],
            rejected=list(dict.fromkeys(text for text in answers.values() if text != answers[domain])),
            preferences=[wanted],
            contrast=[DIMENSION],
            source=source,
        )
        example.system = self.system_message(example, [wanted])
        return example
