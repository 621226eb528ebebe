"""Steerability controls: prompts that change one thing about another prompt, and how much that moves a response.

They serve rules and judges alike: whoever scores gives a value per dimension, and a control compares two responses by
the same criteria. Where a message asks for something else in one dimension, that one should move and the others stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multifaceted.evaluation.statistics import bootstrap_mean
from multifaceted.records import Estimate, Prompt, StatedPreference

State = Callable[[Sequence[StatedPreference]], str]
"""States preferences as a system message."""

IRRELEVANT = StatedPreference(
    dimension="none",
    subdimension="circumstance",
    preference="evening reader",
    description="The user likes to read in the evening, in an armchair by the window.",
)
"""Nothing that a response could do differently."""


class Control(StrEnum):
    """What a control changes; also the split of its prompts, and the beginning of their ids."""

    OTHER = "other"
    """Nothing: the response is scored by what another user wants."""
    WITHOUT_SYSTEM = "without_system"
    """There is no system message."""
    STATED = "stated"
    """The message states the same preferences in the words in which the next two state theirs."""
    FLIP = "flip"
    """One preference is exchanged; compared with `STATED`."""
    IRRELEVANT = "irrelevant"
    """One that does not matter is added; compared with `STATED`."""


def controlled(prompt: Prompt, control: Control, system: str | None, **changes: Any) -> Prompt:
    """A prompt with another system message and other changes, as a prompt of a control."""
    return replace(prompt, id=f"{control}-{prompt.id}", split=control.value, system=system, **changes)


def base_id(prompt: Prompt) -> str:
    """The id of the prompt that a control changed."""
    return prompt.id.removeprefix(f"{prompt.split}-")


def without_system(prompts: Iterable[Prompt]) -> list[Prompt]:
    """The prompts, nobody having said what they want."""
    return [controlled(prompt, Control.WITHOUT_SYSTEM, None) for prompt in prompts]


def restated(prompt: Prompt, state: State) -> Prompt:
    """The same preferences, stated anew."""
    return controlled(prompt, Control.STATED, state(prompt.preferences))


def flipped(prompt: Prompt, place: int, preference: StatedPreference, state: State) -> Prompt:
    """The preference at a place exchanged for another one of its dimension, all else kept.

    `metadata["flipped"]` is the name of the preference that came in.
    """
    preferences = [*prompt.preferences[:place], preference, *prompt.preferences[place + 1 :]]
    metadata = prompt.metadata | {"flipped": preference.preference}
    return controlled(prompt, Control.FLIP, state(preferences), preferences=preferences, metadata=metadata)


def with_irrelevant(prompt: Prompt, state: State) -> Prompt:
    """A preference added that does not matter; what a response is scored by stays as it is."""
    return controlled(prompt, Control.IRRELEVANT, state([*prompt.preferences, IRRELEVANT]))


@dataclass(frozen=True, kw_only=True, slots=True)
class Movement:
    """Two responses by the same criteria: what was asked for after a change.

    Attributes:
        asked: the dimension that the change is about, or the control where it is about none.
        before, after: of the responses before and after the change the value per dimension; None is unscored.
        cluster: what the prompt belongs to.
    """

    asked: str
    before: Mapping[str, float | None]
    after: Mapping[str, float | None]
    cluster: str

    def moved(self, dimension: str) -> float | None:
        """How much higher the value in a dimension is after the change."""
        before, after = self.before.get(dimension), self.after.get(dimension)
        return None if before is None or after is None else after - before

    @property
    def followed(self) -> float | None:
        """The value of what was asked for."""
        return self.after[self.asked]

    @property
    def kept(self) -> float | None:
        """The mean value of what stayed."""
        return mean_or_none([value for dimension, value in self.after.items() if dimension != self.asked])


def movement_matrix(movements: Sequence[Movement]) -> dict[str, Estimate]:
    """`moved_<asked>/<dimension>` for every pair of what was asked for and where it is looked for.

    A model that can be steered has the values of `moved_<d>/<d>` high and all others about zero.
    """
    matrix = {}
    for asked in dict.fromkeys(movement.asked for movement in movements):
        group = [movement for movement in movements if movement.asked == asked]
        for dimension in dict.fromkeys(dimension for movement in group for dimension in movement.after):
            holding = [movement for movement in group if dimension in movement.after]
            matrix[f"moved_{asked}/{dimension}"] = bootstrap_mean(
                [movement.moved(dimension) for movement in holding],
                clusters=[movement.cluster for movement in holding],
            )
    return matrix


def against_others(stated: NDArray[np.bool_], holds: NDArray[np.bool_]) -> list[float]:
    """Per response the share of what another user wants that it has, averaged over all others.

    The expectation over every way of shuffling the preference sets, without the noise of drawing one.

    Args:
        stated: [prompts, preferences] which are stated.
        holds: [prompts, preferences] which the response has.
    """
    shares = holds.astype(float) @ (stated / stated.sum(axis=1, keepdims=True)).T
    others = (shares.sum(axis=1) - np.diag(shares)) / (len(stated) - 1)
    return [float(value) for value in others]


def mean_or_none(values: Sequence[float | None]) -> float | None:
    """The mean; None where there are no values or one of them is None: a mean of the rest is another quantity."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None
