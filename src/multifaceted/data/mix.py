"""Views and mixes: in which of its stated preferences each example is shown.

A view of an example is the example under a system message that states some of its preferences only. Pairs of the
released collections differ in all four dimensions, so a view of one dimension changes what is stated, not what is
contrasted; a contrast mix changes the latter, where the data says in which dimensions a pair differs.
"""

from __future__ import annotations

import hashlib
import inspect
import secrets
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multifaceted.data.bad_rows import DataError
from multifaceted.data.shares import ALL, largest_remainder, shares_of
from multifaceted.data.source import DataSource
from multifaceted.records import Example

RELEASED, DEFAULT, NONE = "released", "default", "none"
"""The message that the data came with; a message that states nothing; no message."""


@dataclass(kw_only=True, slots=True)
class Mix:
    """Relative weights of views, and of the dimensions in which pairs differ.

    Attributes:
        views: weight by view: `released`, `all`, `default`, `none`, or dimensions joined by "+".
        contrasts: weight by what pairs differ in: `all`, or dimensions joined by "+". Empty: pairs as they come.
    """

    views: dict[str, float] = field(default_factory=lambda: {RELEASED: 1.0})
    contrasts: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shares_of("views", self.views)
        if self.contrasts:
            shares_of("contrasts", self.contrasts)

    @property
    def view_shares(self) -> dict[str, float]:
        """Views with a weight, as shares of 1."""
        return shares_of("views", self.views)

    @property
    def contrast_shares(self) -> dict[str, float]:
        """Contrasts with a weight, as shares of 1; empty where the mix does not choose."""
        return shares_of("contrasts", self.contrasts) if self.contrasts else {}

    def refuse_unknown(self, examples: Iterable[Example]) -> None:
        """Refuse views that these examples cannot be shown in.

        Raises:
            DataError: an unknown dimension, or examples that state no preference in a dimension of a view.
        """
        views = [view for view in self.view_shares if view not in (RELEASED, DEFAULT, NONE)]
        if not views:
            return
        number, dimensions = 0, set()
        without: dict[str, list[str]] = {view: [] for view in views}
        for example in examples:
            number += 1
            dimensions |= {p.dimension for p in example.preferences}
            for view in views:
                if not _states(example, view):
                    without[view].append(example.id)
        known = sorted(dimensions)
        for view, lacking in without.items():
            unknown = [name for name in view.split("+") if view != ALL and name not in known]
            if unknown and known:
                allowed = ", ".join([RELEASED, ALL, DEFAULT, NONE, *known])
                raise DataError(
                    f"mix.views.{view}: no example states a preference in {', '.join(map(repr, unknown))};"
                    f' allowed are {allowed}, and dimensions joined by "+"'
                )
            if lacking:
                raise DataError(
                    f"mix.views.{view}: {len(lacking)} of {number} examples state no preference to show in it,"
                    f" first {lacking[0]!r}; such data can only be shown as mix=released"
                )

    def assign(self, ids: Sequence[str], seed: int) -> dict[str, str]:
        """One view for each example: shares by largest remainder, who gets which by a hash of seed and id."""
        order = sorted(ids, key=lambda name: _hash(f"view:{seed}", name))
        views = [v for v, number in largest_remainder(self.view_shares, len(ids)).items() for _ in range(number)]
        return dict(zip(order, views, strict=True))

    def choose_contrasts(self, examples: Iterable[Example]) -> list[int]:
        """The largest subset whose pairs differ in the shares of `contrasts`, as indices.

        A hash that no seed changes draws it.

        Raises:
            DataError: no example has one of the contrasts.
        """
        every: set[str] = set()
        places, contrasts = [], []
        for example in examples:
            every |= {*example.contrast, *(p.dimension for p in example.preferences)}
            places.append(_hash("contrast", example.id))
            contrasts.append(tuple(example.contrast))
        of_example = [contrast_name(contrast, every) for contrast in contrasts]
        found = Counter(of_example)
        shares = {_in_order(name): share for name, share in self.contrast_shares.items()}
        absent = [name for name in shares if not found[name]]
        if absent:
            raise DataError(
                f"mix.contrasts.{absent[0]}: no pair differs in exactly that; the data has"
                f" {dict(found) or 'no pairs'} ('' is a pair that does not say)"
            )
        size = min(int(found[name] / share + 1e-9) for name, share in shares.items())
        left = largest_remainder(shares, size)
        kept = []
        for index in sorted(range(len(places)), key=places.__getitem__):
            if left.get(of_example[index], 0):
                left[of_example[index]] -= 1
                kept.append(index)
        return sorted(kept)


def show(example: Example, view: str, source: DataSource) -> Example:
    """The example under the system message of a view, as its source words it."""
    if view == RELEASED:
        return example
    if view in (DEFAULT, NONE):
        return replace(example, system=source.default_message if view == DEFAULT else None)
    wanted = [p for p in example.preferences if view == ALL or p.dimension in view.split("+")]
    return replace(example, system=source.system_message(example, wanted))


@dataclass(frozen=True, kw_only=True, slots=True)
class Views:
    """The views of a mix, by their numbers.

    Attributes:
        source: words the system messages; None where every example is shown as it was released.
        seed: decides which example is shown in which view.
    """

    mix: Mix = field(default_factory=Mix)
    source: DataSource | None = None
    seed: int = 0

    @property
    def names(self) -> list[str]:
        """The views that have a weight."""
        return list(self.mix.view_shares)

    def assign(self, ids: Sequence[str]) -> NDArray[np.int16]:
        """Return the number of each example's view."""
        number = {name: place for place, name in enumerate(self.names)}
        views = self.mix.assign(ids, self.seed)
        return np.asarray([number[views[name]] for name in ids], dtype=np.int16)

    def show(self, example: Example, name: str) -> Example:
        """Return the example in a view."""
        return example if self.source is None else show(example, name, self.source)

    @property
    def identity(self) -> list[Any]:
        """The settings and the code that decide how an example is shown; the code of this package apart."""
        if self.source is None:
            return self.names
        nested = getattr(self.source, "sources", {}).values()
        code = []
        for source in (self.source, *nested):
            try:
                code.append(hashlib.sha256(Path(inspect.getfile(type(source))).read_bytes()).hexdigest())
            except (OSError, TypeError):  # written in a notebook: another one may be called the same
                code.append(secrets.token_hex())
        return [self.names, repr(self.source), code]


@dataclass(frozen=True, slots=True)
class Shown(Sequence[Example]):
    """Examples, each in the view that it was given, made when it is asked for."""

    examples: Sequence[Example]
    views: Mapping[str, str]
    """By example id."""
    source: DataSource

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        example = self.examples[index]
        return show(example, self.views[example.id], self.source)


def contrast_name(dimensions: Iterable[str], every: set[str]) -> str:
    """The name of a contrast: "all", or its dimensions joined by "+" in alphabetical order."""
    names = set(dimensions)
    return ALL if names and names == every else "+".join(sorted(names))


def _hash(kind: str, key: str) -> bytes:
    return hashlib.sha256(f"{kind}:{key}".encode()).digest()


def _in_order(contrast: str) -> str:
    return "+".join(sorted(contrast.split("+")))


def _states(example: Example, view: str) -> bool:
    stated = {p.dimension for p in example.preferences}
    return bool(stated) if view == ALL else set(view.split("+")) <= stated
