"""Training data whose instructions a bench may not have."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from multifaceted.data.bad_rows import BadRows, DataError, OnBadRow
from multifaceted.data.blend import Blend
from multifaceted.data.dataset import Data
from multifaceted.data.locations import locate, spelled
from multifaceted.data.preference_files import PreferenceFiles
from multifaceted.data.reading import read_rows
from multifaceted.data.source import DataSource
from multifaceted.records import Example


@dataclass(kw_only=True, slots=True)
class TrainingSet:
    """Training data that a setting names.

    Attributes:
        key: the setting, for messages.
        examples: a stream.
        bad: takes the rows that cannot be read, while examples are.
        spelled: a key of `train.py`, of which readers speak, and what the same is called here.
        remedy: what else to do where nothing can be read.
    """

    key: str
    examples: Iterable[Example]
    bad: BadRows
    spelled: tuple[str, str]
    remedy: str = ""

    def said(self) -> Iterator[str]:
        """Every turn of a user, the first and later ones.

        Raises:
            DataError: a row that cannot be read, or none that can: nothing would be compared with a bench then.
        """
        number = 0
        try:
            for example in self.examples:
                for turn in example.turns:
                    if turn.role == "user":
                        number += 1
                        yield turn.content
        except DataError as error:
            raise DataError(str(error).replace(*self.spelled)) from None
        samples = {reason: sample.replace(*self.spelled) for reason, sample in self.bad.samples.items()}
        self.bad.samples = samples
        if not number:
            first = next(iter(samples.values()), "there is no row")
            raise DataError(
                f"{self.key}: no instruction was read; left out: {dict(self.bad.counts)}, first {first}{self.remedy}"
            )


def training_sets(
    paths: Sequence[Path], source: PreferenceFiles, policy: OnBadRow, sets: Mapping[str, Data]
) -> Iterator[TrainingSet]:
    """Training data by the settings that name it.

    Args:
        paths: files in the shapes that `source` reads.
        policy: what becomes of their bad rows.
        sets: data as a run names it, with its own reader and policy.
    """
    for path in paths:
        bad = BadRows(policy=policy, option="on_bad_row")
        yield TrainingSet(
            key=f"training: {spelled(path)}",
            examples=_of_files(path, source, bad),
            bad=bad,
            spelled=("data.source.columns", "training_columns"),
            remedy="; or, if they are of another shape, name their reader: +data@training_sets.<name>=<data>",
        )
    for name, data in sets.items():
        key = f"training_sets.{name}"
        bad = BadRows(policy=data.on_bad_row, option=f"{key}.on_bad_row")
        yield TrainingSet(
            key=key, examples=_of_source(data.source, bad), bad=bad, spelled=("data.source", f"{key}.source")
        )


def _of_files(path: Path, source: PreferenceFiles, bad: BadRows) -> Iterator[Example]:
    for label, rows in locate(path, "training").items():
        yield from (example for _, example in source.convert(read_rows(rows, bad), label, bad))


def _of_source(source: DataSource, bad: BadRows) -> Iterator[Example]:
    """What a run may train on: of a blend all that its seed chooses from."""
    if isinstance(source, Blend):
        for name, part in source.sources.items():
            if source.weights[name]:
                yield from _of_source(part, bad)
    else:
        yield from source.train(0, bad)
