"""What training never sees, decided by a versioned hash of the thing itself, never by a seed."""

from __future__ import annotations

import hashlib
from enum import StrEnum

HOLDOUT_VERSION = "1"


class Part(StrEnum):
    """Which stage may use a thing. Tuning looks at `validation`; closing figures come from `test`."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


VALIDATION_SHARE = 0.1
TEST_SHARE = 0.2


def position(kind: str, key: str) -> float:
    """Where `key` falls in [0, 1); stable across seeds, sizes and machines."""
    digest = hashlib.sha256(f"{HOLDOUT_VERSION}:{kind}:{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def part_of(kind: str, key: str) -> Part:
    """The part of `key`, a combination or topic."""
    place = position(kind, key)
    if place < TEST_SHARE:
        return Part.TEST
    return Part.VALIDATION if place < TEST_SHARE + VALIDATION_SHARE else Part.TRAIN


def combination_key(preference_names: list[str]) -> str:
    """The key of a preference set, whatever the order in which it is stated."""
    return "+".join(sorted(preference_names))
