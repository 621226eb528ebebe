"""Rows that cannot be trained on: the one place through which every one of them passes."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum

from multifaceted.data.visible import visible

log = logging.getLogger(__name__)


class DataError(ValueError):
    """Data that cannot be trained on; the message names the example and what is wrong with it."""


class BadRowError(DataError):
    """What is wrong with one row. `reason` is its key in `summary.json`; others say where the row is."""

    def __init__(self, reason: str, problem: str) -> None:
        super().__init__(problem)
        self.reason = reason


class LeftOutError(BadRowError):
    """A row that is sound but has nothing to teach, such as a tie; it is counted, and no policy makes it an error."""


class OnBadRow(StrEnum):
    """What happens to a row that cannot be trained on."""

    RAISE = "raise"
    DROP = "drop"


@dataclass(kw_only=True, slots=True)
class BadRows:
    """The one place through which every bad row passes: it stops the run or is left out and counted."""

    policy: OnBadRow = OnBadRow.RAISE
    option: str = "data.on_bad_row"
    """The setting that chooses the policy, for messages; empty where none does."""
    counts: Counter[str] = field(default_factory=Counter)
    samples: dict[str, str] = field(default_factory=dict)
    """By reason, the message of the first row."""
    errors: Counter[str] = field(default_factory=Counter)
    """Of `counts` those that stop a run where the policy is to raise."""
    read: int = 0
    """Rows that were read, good or not; of a source that makes its examples, those."""
    further: int = 0
    """Examples beyond the first of their row."""
    kept: dict[str, set[str]] = field(default_factory=dict)
    """By reason, the ids of examples that lack something and stay, if nothing else leaves them out."""

    @contextmanager
    def row(self, where: str) -> Iterator[None]:
        """Around the work on one row, which `where` names; a `BadRowError` ends that work."""
        try:
            yield
        except BadRowError as error:
            said = visible(f"{where}: {error}")
            if not isinstance(error, LeftOutError):
                if self.policy is OnBadRow.RAISE:
                    hint = f" (or leave out and count such rows: {self.option}=drop)" if self.option else ""
                    raise DataError(f"{said}{hint}") from None
                self.errors[error.reason] += 1
            self.counts[error.reason] += 1
            self.samples.setdefault(error.reason, said)

    def leave_out(self, reason: str, problem: str, number: int = 1) -> None:
        """Count rows that are sound but not trained on, such as ties; no policy makes that an error."""
        self.counts[reason] += number
        self.samples.setdefault(reason, problem)

    def keep(self, reason: str, problem: str, example_id: str) -> None:
        """Remember an example that stays though it lacks something, such as a preference set."""
        self.kept.setdefault(reason, set()).add(example_id)
        self.samples.setdefault(reason, problem)

    def add(self, other: BadRows, *, named: str = "") -> None:
        """Count what another one counted.

        Args:
            named: what the ids of its examples have before them here.
        """
        self.counts += other.counts
        for reason, ids in other.kept.items():
            self.kept.setdefault(reason, set()).update(named + example_id for example_id in ids)
        self.samples = other.samples | self.samples
        self.errors += other.errors
        self.read += other.read
        self.further += other.further

    def report(self, part: str) -> None:
        """Log one line per reason."""
        kept = {reason: len(ids) for reason, ids in self.kept.items()}
        for became, counter in (("left out", self.counts), ("kept", kept)):
            for reason, number in sorted(counter.items()):
                log.warning("%s rows %s as %s: %s, first %s", part, became, reason, number, self.samples[reason])
