"""Shares of a whole as whole numbers, exactly and reproducibly."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

ALL = "all"
"""Every dimension, as a view or a contrast."""


def shares_of(name: str, weights: Mapping[str, float]) -> dict[str, float]:
    """Positive weights as shares of 1.

    Raises:
        ValueError: a weight is negative or no number, or all are zero; says which of `name`.
    """
    for key, weight in weights.items():
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(f"{name}.{key} is {weight}; a weight must be a number that is not negative")
    total = math.fsum(weights.values())
    if not total:
        raise ValueError(f"{name} is {dict(weights)}; at least one weight must be positive")
    return {key: weight / total for key, weight in weights.items() if weight > 0}


def take_turns(shares: Mapping[str, float], number: int) -> list[str]:
    """Names in turn, each as often as its share asks at every moment, so a longer list begins with the shorter one."""
    taken: Counter[str] = Counter()
    turns: list[str] = []
    for place in range(1, number + 1):
        name = max(shares, key=lambda n: shares[n] * place - taken[n])
        taken[name] += 1
        turns.append(name)
    return turns


def largest_remainder(shares: Mapping[str, float], number: int) -> dict[str, int]:
    """Whole counts that add up to `number`, each within one of its share (Hamilton's method)."""
    exact = {name: share * number for name, share in shares.items()}
    counts = {name: math.floor(value + 1e-9) for name, value in exact.items()}
    for name in sorted(exact, key=lambda n: counts[n] - exact[n])[: number - sum(counts.values())]:
        counts[name] += 1
    return counts
