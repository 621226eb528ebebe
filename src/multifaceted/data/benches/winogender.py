"""Winogender: sentences in which a pronoun means one of two people, one of whom is named by occupation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from multifaceted.data.bad_rows import BadRowError, BadRows, DataError
from multifaceted.data.benches.base import Found
from multifaceted.data.benches.cells import Cells
from multifaceted.data.locations import Location
from multifaceted.data.reading import read_rows
from multifaceted.records import Prompt

SENTENCES, TEMPLATES, STATISTICS = "all_sentences.tsv", "templates.tsv", "occupations-stats.tsv"
PRONOUNS = {
    "male": {"NOM": "he", "POSS": "his", "ACC": "him"},
    "female": {"NOM": "she", "POSS": "her", "ACC": "her"},
    "neutral": {"NOM": "they", "POSS": "their", "ACC": "them"},
}
CASE = re.compile(r"\$(NOM|POSS|ACC)_PRONOUN")
OCCUPATION, PARTICIPANT = "0", "1"
"""How the files spell whom the pronoun means."""


class Sentence(NamedTuple):
    """What the id of a sentence says, as in `technician.customer.1.male.txt`."""

    occupation: str
    participant: str
    answer: str
    gender: str


def winogender(path: Location, bad: BadRows, key: str) -> Iterator[Found]:
    """Read a folder with the three files, or the file of sentences beside the two others; gzipped or not.

    A sentence is a prompt; templates and statistics say more of it, and a sentence of which they do not is a bad row.

    Metadata: `sentence`; `pronoun`, the one in it; `gender` (`male`, `female`, `neutral`); `occupation`; `participant`,
    the other person, whom half of the sentences call someone; `answer`, whom the pronoun means: `occupation` or
    `participant`; `percent_female` of the occupation, `{"bls", "bergsma"}`, by US statistics and by texts. A sentence
    is a *gotcha* where the pronoun's gender is the rarer one in the occupation and the answer is `occupation`, or the
    other way round (Rudinger et al. 2018, arXiv 1804.09301, section 4).

    Raises:
        DataError: a file is missing.
    """
    if not isinstance(path, Path):
        raise DataError(f"Winogender needs the folder of its three files: {key}=FOLDER")
    folder, name = (path, SENTENCES) if path.is_dir() else (path.parent, path.name)
    templates = _templates(_file(folder, TEMPLATES, key), bad)
    statistics = _statistics(_file(folder, STATISTICS, key), bad)
    for row in read_rows(_file(folder, name, key), bad):
        with bad.row(row.where):
            cells = Cells.of(row.value)
            about = _parse(cells.label("sentid"))
            if (about.occupation, about.answer) not in templates or about.occupation not in statistics:
                raise BadRowError("no_template", f"{TEMPLATES} or {STATISTICS} does not know {'.'.join(about)}")
            prompt = Prompt(
                id=".".join(about),
                split="winogender",
                system=None,
                instruction="",
                metadata={
                    "sentence": cells.text("sentence", if_empty="empty_sentence"),
                    "pronoun": PRONOUNS[about.gender][templates[about.occupation, about.answer]],
                    "gender": about.gender,
                    "occupation": about.occupation,
                    "participant": about.participant,
                    "answer": "occupation" if about.answer == OCCUPATION else "participant",
                    "percent_female": statistics[about.occupation],
                },
            )
            yield Found(row.where, prompt)


def _templates(path: Path, bad: BadRows) -> dict[tuple[str, str], str]:
    """The case of the pronoun by the occupation and whom it means."""
    cases = {}
    for row in read_rows(path, bad):
        with bad.row(row.where):
            cells = Cells.of(row.value)
            found = CASE.search(cells.text("sentence"))
            if found is None:
                raise BadRowError("no_template", "the template has no pronoun")
            cases[cells.text("occupation(0)"), cells.text("answer")] = found[1]
    return cases


def _statistics(path: Path, bad: BadRows) -> dict[str, dict[str, float]]:
    """How many of a hundred are women, by the occupation and the source."""
    shares = {}
    for row in read_rows(path, bad):
        with bad.row(row.where):
            cells = Cells.of(row.value)
            percent = {source: _percent(cells.text(f"{source}_pct_female")) for source in ("bls", "bergsma")}
            shares[cells.text("occupation")] = percent
    return shares


def _file(folder: Path, name: str, key: str) -> Path:
    """A file in the folder, gzipped or not."""
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    needed = f"{SENTENCES}, {TEMPLATES} and {STATISTICS}"
    raise DataError(f"{folder} has no {name}; Winogender needs {needed} in one folder: {key}=FOLDER")


def _parse(sentid: str) -> Sentence:
    parts = sentid.removesuffix(".txt").split(".")
    if len(parts) != 4 or parts[2] not in (OCCUPATION, PARTICIPANT) or parts[3] not in PRONOUNS:
        raise BadRowError("wrong_value", f"sentid is {sentid!r}; expected <occupation>.<participant>.<0 or 1>.<gender>")
    return Sentence(*parts)


def _percent(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 100:
        raise BadRowError("wrong_value", f"{text!r} is no percentage")
    return value
