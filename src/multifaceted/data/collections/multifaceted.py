"""The Multifaceted Collection in every split that was released, and under the names it had before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from multifaceted.data.bad_rows import BadRowError, BadRows, DataError, LeftOutError
from multifaceted.data.collections.columns import columns_of, text_of
from multifaceted.data.collections.siblings import Sibling, Siblings, digest
from multifaceted.data.licences import Collection, Licence
from multifaceted.data.locations import Location, locate
from multifaceted.data.preference_files import PreferenceFiles
from multifaceted.data.reading import Rows, read_rows
from multifaceted.data.rows import example_of
from multifaceted.data.source import DataSource, check_example
from multifaceted.data.text_files import Row
from multifaceted.records import Example, StatedPreference

BEFORE_RELEASE = {
    "instruction": "prompt",
    "user_prompt": "prompt",
    "system_prompt": "system",
    "preference": "preference_set",
}
"""Names of columns before the release, to the released ones."""
MARKERS = ("[INST]", "<s>", "<|im_start|>", "<|begin_of_text|>", "<|start_header_id|>")
"""How templates begin a conversation, and no row of the collection does."""


@dataclass(kw_only=True, slots=True)
class Multifaceted(PreferenceFiles):
    """Rows of the SFT, DPO, ORPO and RM splits (Lee et al. 2024, arXiv 2405.17977); the split shows in the columns.

    SFT rows have `system`, `prompt`, `output` and `preference_set`; DPO and ORPO rows `chosen` and `rejected` message
    lists, and no preference set; RM rows `input`, which is system message and instruction as one text, and two texts.
    Without `join`, the `input` of an RM row is the user's turn, which gives the same bytes under the template "janus".

    Attributes:
        join: the SFT split, from which pairs regain what they were written for: the preference set, the dimensions in
            which it differs from that of the rejected answer, and for RM rows the system message. A row without a
            partner is kept as it is and counted.
        siblings: SFT rows become groups: rejected are the outputs written for the other system messages of the same
            instruction. A row without any is left out and counted.
    """

    join: Location | list[Location] | None = None
    siblings: bool = False
    licence: Collection | Licence | None = Collection.MULTIFACETED
    _read_siblings: Siblings | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        PreferenceFiles.__post_init__(self)
        if self.siblings and self.join is not None:
            raise ValueError("siblings=true finds the other outputs in train_file itself; leave join out")

    def held_out(self) -> DataSource:
        """As of any files, but groups may have their siblings in `train_file`."""
        return self if self.siblings else PreferenceFiles.held_out(self)

    def convert(self, rows: Iterable[Row], label: str, bad: BadRows) -> Iterator[tuple[Row, Example]]:
        """One example a row; holds one row, and of other rows what `Siblings` holds."""
        others = self._siblings(bad) if self.siblings or self.join is not None else None
        for row in rows:
            with bad.row(row.where):
                example = self._example(row, label, others)
                check_example(example)
                if others is not None and self.siblings:
                    _set_beside(example, others)
                elif others is not None:
                    _regain(example, others, bad, row.where)
                yield row, example

    def _example(self, row: Row, label: str, others: Siblings | None = None) -> Example:
        value = row.value
        if isinstance(value, Mapping):
            value = self._released(value)
            if value.get("input") is not None and value.get("prompt") is None:
                value = _split(value, others)
        example = example_of(value, self.columns, name=f"{label}:{row.number}", source=label)
        for preference in example.preferences:
            preference.dimension = preference.dimension.strip().lower().replace(" ", "_")
        return example

    def _released(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """A row under the released names."""
        names = {
            before: released
            for before, released in BEFORE_RELEASE.items()
            if released not in row and before not in self.columns.values()
        }
        return {names.get(name, name): cell for name, cell in row.items()}

    def _siblings(self, bad: BadRows) -> Siblings:
        """The answers of the SFT split, read once."""
        if self._read_siblings is None:
            key = f"{self.where}.join"
            sides = self._files() if self.siblings else (self._join_files(key),)
            files = [found for side in sides for found in side.items()]
            unread = BadRows(policy=bad.policy)
            self._read_siblings = Siblings(self._written(files, unread), with_outputs=self.siblings)
            if not self.siblings:  # their own bad rows are counted where they would be trained on
                unread.report("join")
                if len(self._read_siblings) == 0:
                    raise DataError(f"{key}={self.join} has no row of system, prompt and output; name the SFT split")
        return self._read_siblings

    def _join_files(self, key: str) -> dict[str, Rows]:
        locations = self.join if isinstance(self.join, list) else [self.join]
        return {label: rows for one in locations if one is not None for label, rows in locate(one, key).items()}

    def _written(self, files: Sequence[tuple[str, Rows]], bad: BadRows) -> Iterator[Example]:
        for label, path in files:
            for row in read_rows(path, bad):
                with bad.row(row.where):
                    example = self._example(row, label)
                    _refuse_other_splits(example)
                    check_example(example)
                    yield example


def _refuse_other_splits(example: Example) -> None:
    if example.rejected or len(example.turns) != 1 or not example.system:
        raise BadRowError(
            "not_sft", "expected a row of the SFT split: system, one prompt, one output and no rejected answer"
        )


def _split(row: dict[str, Any], others: Siblings | None) -> dict[str, Any]:
    """An RM row with `input` taken apart where the SFT split knows it, else as the user's turn."""
    columns_of(row, "input", "chosen", "rejected")
    text = text_of("input", row["input"])
    stripped = text.strip()
    marker = next((marker for marker in MARKERS if stripped.startswith(marker)), None)
    if marker is not None:
        raise BadRowError(
            "rendered",
            f"input begins with {marker!r}, which a template writes; the released column is the system message and the"
            " instruction without it",
        )
    rest = {name: cell for name, cell in row.items() if name not in ("input", "prompt")}
    for sibling in others.of_whole(stripped) if others is not None else ():
        system, prompt = stripped[: sibling.system_length], stripped[sibling.system_length :].strip()
        if digest(system) == sibling.system and digest(prompt) == sibling.prompt:
            return rest | {"system": system, "prompt": prompt}
    return rest | {"prompt": text}


def _set_beside(example: Example, others: Siblings) -> None:
    """Reject what was written for other system messages of the instruction."""
    _refuse_other_splits(example)
    system = digest(example.system or "")
    found = [sibling for sibling in others.of_prompt(example.turns[0].content) if sibling.system != system]
    texts = dict.fromkeys(others.output(sibling) for sibling in found)
    example.rejected = [text for text in texts if text != example.chosen]
    if not example.rejected:
        raise LeftOutError("no_sibling", "no row has another system message and output for its instruction")
    example.contrast = _differing(example.preferences, [others.preferences(sibling) for sibling in found])


def _regain(example: Example, others: Siblings, bad: BadRows, where: str) -> None:
    """Fill the preference set and the contrast of a pair from the SFT split, as far as its rows are found there."""
    found = others.of_prompt(example.turns[0].content) if len(example.turns) == 1 else []
    if not found:
        bad.keep("join_no_prompt", f"{where}: no row of data.source.join has its prompt", example.id)
        return
    own = _best([s for s in found if s.system == digest(example.system or "")], example.chosen)
    if own is None:
        problem = f"{where}: rows of data.source.join with its prompt have other system messages"
        bad.keep("join_no_system", problem, example.id)
        return
    example.preferences = example.preferences or others.preferences(own)
    if not example.preferences:
        bad.keep("join_no_preferences", f"{where}: its row in data.source.join states no preference set", example.id)
        return
    rejected = [_best([s for s in found if s.output == digest(text)], text) for text in example.rejected]
    if None in rejected:
        problem = f"{where}: its rejected answer is no output of data.source.join for its prompt"
        bad.keep("join_no_rejected", problem, example.id)
    elif not example.contrast:
        sets = [others.preferences(sibling) for sibling in rejected if sibling is not None]
        example.contrast = _differing(example.preferences, sets)


def _best(siblings: Sequence[Sibling], output: str) -> Sibling | None:
    """One that has the output, else the first."""
    return max(siblings, key=lambda sibling: sibling.output == digest(output), default=None)


def _differing(stated: Sequence[StatedPreference], others: Sequence[Sequence[StatedPreference]]) -> list[str]:
    """The dimensions in which one of the other preference sets differs; none where one of them is not known."""
    if not stated or not all(others):
        return []
    names = dict.fromkeys(p.dimension for preferences in (stated, *others) for p in preferences)
    return [name for name in names if any(_in(name, other) != _in(name, stated) for other in others)]


def _in(dimension: str, preferences: Sequence[StatedPreference]) -> list[StatedPreference]:
    return [preference for preference in preferences if preference.dimension == dimension]
