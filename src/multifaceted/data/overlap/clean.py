"""What of a collection is trained on: no example twice, and none that shows what a bench asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from multifaceted.data.bad_rows import BadRows, OnBadRow
from multifaceted.data.benches import bench_named, read_bench
from multifaceted.data.overlap.contamination import Contamination, Field, find_contamination
from multifaceted.data.overlap.duplicates import Duplicates, find_duplicates
from multifaceted.records import Example, Prompt


@dataclass(kw_only=True, slots=True)
class Overlap:
    """What counts as overlap, and what becomes of it.

    Attributes:
        benches: what the examples are compared with: a file, a folder or a data set of the hub by the name of the
            bench; null for the hub's copy.
        near: least similarity of texts that are alike without being the same; null to find the same ones only.
        by: what of an example is compared with benches.
        drop: leave overlapping examples out; otherwise they are counted and stay.
    """

    benches: dict[str, Path | None] = field(default_factory=dict)
    near: float | None = 0.8
    by: list[Field] = field(default_factory=lambda: list(Field))
    drop: bool = False

    def __post_init__(self) -> None:
        if self.near is not None and not 0 < self.near <= 1:
            raise ValueError(f"near is {self.near}; it must be above 0 and at most 1, or null for exact matches only")
        for name in self.benches:
            bench_named(name)

    def prompts(self) -> dict[str, list[Prompt]]:
        """The prompts of the benches; rows that are none are said.

        Raises:
            DataError: a bench that is not there.
        """
        found = {}
        for name, path in self.benches.items():
            bad = BadRows(policy=OnBadRow.DROP)
            found[name] = read_bench(name, path, bad, f"data.overlap.benches.{name}")
            bad.report(f"bench {name}:")
        return found

    def search(self, examples: Sequence[Example], prompts: Mapping[str, Sequence[Prompt]]) -> Found:
        """Find what overlaps.

        Contamination comes first, so a near duplicate is one only of an example that stays.

        Args:
            prompts: benches by name.
        """
        contamination = find_contamination(examples, prompts, near=self.near, by=self.by)
        leaked = {match.index for match in contamination.matches}
        duplicates = find_duplicates(examples, near=self.near, skip=leaked)
        return Found(contamination=contamination, duplicates=duplicates)


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """Examples that show what a bench asks, and of the others those that occur twice."""

    contamination: Contamination
    duplicates: Duplicates

    @property
    def reasons(self) -> dict[int, str]:
        """One for each such example, by its index: `<field>_in_<bench>`, `duplicate` or `near_duplicate`."""
        reasons: dict[int, str] = {}
        for match in self.contamination.matches:
            reasons.setdefault(match.index, f"{match.field}_in_{match.bench}")
        return reasons | {duplicate.index: duplicate.reason.value for duplicate in self.duplicates.found}

    @property
    def counts(self) -> Counter[str]:
        """How many, by reason."""
        return Counter(self.reasons.values())

    @property
    def samples(self) -> dict[str, str]:
        """By reason, the first of them and what it is like."""
        samples: dict[str, str] = {}
        for match in self.contamination.matches:
            said = f"example {match.id!r}: {match.how}, like {match.prompts[0]!r} at {match.similarity:.2f}"
            samples.setdefault(f"{match.field}_in_{match.bench}", said)
        for twin in self.duplicates.found:
            said = f"example {twin.id!r}, like {twin.first_id!r} at {twin.similarity:.2f}"
            samples.setdefault(twin.reason.value, said)
        return samples
