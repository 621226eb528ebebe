"""The taxonomy: dimension -> sub-dimension -> preference, as data.

A *preference set* states one preference per dimension (arXiv 2405.17977, section 3.1). Preferences of one
sub-dimension are rivals: a response can satisfy at most one of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True, kw_only=True, slots=True)
class Preference:
    """A leaf of the taxonomy; `name` is unique in it."""

    name: str
    dimension: str
    subdimension: str
    keyword: str
    description: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Taxonomy:
    """Preferences in file order, with the ways to look them up."""

    preferences: tuple[Preference, ...]
    by_name: dict[str, Preference] = field(init=False)
    subdimensions: dict[str, tuple[Preference, ...]] = field(init=False)
    """Sub-dimension to its preferences."""
    dimensions: dict[str, tuple[str, ...]] = field(init=False)
    """Dimension to its sub-dimensions."""

    def __post_init__(self) -> None:
        by_name: dict[str, Preference] = {}
        groups: dict[str, list[Preference]] = {}
        dimensions: dict[str, list[str]] = {}
        for preference in self.preferences:
            if preference.name in by_name:
                raise ValueError(f"preference {preference.name!r} occurs twice in the taxonomy; names must be unique")
            by_name[preference.name] = preference
            groups.setdefault(preference.subdimension, []).append(preference)
            names = dimensions.setdefault(preference.dimension, [])
            if preference.subdimension not in names:
                names.append(preference.subdimension)
        object.__setattr__(self, "by_name", by_name)
        object.__setattr__(self, "subdimensions", {name: tuple(group) for name, group in groups.items()})
        object.__setattr__(self, "dimensions", {name: tuple(subs) for name, subs in dimensions.items()})

    def rivals(self, preference: Preference) -> tuple[Preference, ...]:
        """The other preferences of the same sub-dimension."""
        return tuple(other for other in self.subdimensions[preference.subdimension] if other != preference)

    def choices(self, dimension: str) -> tuple[Preference, ...]:
        """All preferences of a dimension."""
        return tuple(p for sub in self.dimensions[dimension] for p in self.subdimensions[sub])


def parse_taxonomy(tree: dict[str, Any]) -> Taxonomy:
    """Build a taxonomy from `{dimension: {subdimension: {name: {keyword, description, ...}}}}`."""
    return Taxonomy(
        preferences=tuple(
            Preference(
                name=name,
                dimension=dimension,
                subdimension=subdimension,
                keyword=leaf["keyword"],
                description=leaf["description"],
            )
            for dimension, subdimensions in tree.items()
            for subdimension, leaves in subdimensions.items()
            for name, leaf in leaves.items()
        )
    )


def load_yaml(path: Path) -> Any:
    """Read a YAML file with the C parser where it is built in: it is ten times faster."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(path.read_text(encoding="utf-8"), Loader=loader)  # noqa: S506 - a safe loader either way
