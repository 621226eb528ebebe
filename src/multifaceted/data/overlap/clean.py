"""What of a collection is trained on: no example twice, and none that shows what a bench asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from multifaceted.data.overlap.contamination import Field, find_contamination
from multifaceted.data.overlap.duplicates import find_duplicates
from multifaceted.records import Example, Prompt


class OnOverlap(StrEnum):
    """What happens to duplicates, and to examples that show what a bench asks."""

    REPORT = "report"
    """They are counted and stay."""
    DROP = "drop"


@dataclass(kw_only=True, slots=True)
class Overlap:
    """What counts as overlap, and what becomes of it.

    Attributes:
        near: least similarity of texts that are alike without being the same; null to find the same ones only.
        by: what of an example is compared with benches.
    """

    near: float | None = 0.8
    by: list[Field] = field(default_factory=lambda: list(Field))
    on_overlap: OnOverlap = OnOverlap.REPORT

    def __post_init__(self) -> None:
        if self.near is not None and not 0 < self.near <= 1:
            raise ValueError(f"near is {self.near}; it must be above 0 and at most 1, or null for exact matches only")

    def clean(
        self, examples: Sequence[Example], prompts: Mapping[str, Sequence[Prompt]]
    ) -> tuple[list[int], Counter[str]]:
        """Indices of the examples that stay, and how many do not, or would not, by reason; each has one.

        Contamination comes first, so a near duplicate is left out only where its twin stays. The reasons are
        `<field>_in_<bench>`, by the first field and bench, then `duplicate` and `near_duplicate`.

        Args:
            prompts: benches by name.
        """
        reasons: dict[int, str] = {}
        for match in find_contamination(examples, prompts, near=self.near, by=self.by).matches:
            reasons.setdefault(match.index, f"{match.field}_in_{match.bench}")
        for duplicate in find_duplicates(examples, near=self.near, skip=reasons.keys()).found:
            reasons[duplicate.index] = duplicate.reason
        counts = Counter(str(reason) for reason in reasons.values())
        if self.on_overlap is OnOverlap.REPORT:
            return list(range(len(examples))), counts
        return [index for index in range(len(examples)) if index not in reasons], counts
