"""What a text is taken apart into to say how much two of them share: runs of three words.

Three, because prompts are short: of ten words, one that is changed leaves five of eight runs. Longer runs would know
only copies, single words would take everything about one topic for the same.
"""

from __future__ import annotations

import re
from collections.abc import Set

from multifaceted.data.overlap.normalise import normalise

LENGTH = 3
"""Words of a shingle."""

_UNSPACED = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f"  # Myanmar
    "\u1780-\u17ff"  # Khmer
    "\u3040-\u30ff"  # Hiragana, Katakana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
)
"""Scripts without blanks between words: each of their characters counts as one."""
_WORD = re.compile(rf"[^\W{_UNSPACED}]+|[{_UNSPACED}]")


def shingles(text: str) -> set[str]:
    """Every run of three words of a text, without punctuation; of a shorter text the whole, of a blank one nothing.

    >>> sorted(shingles("What is rain, in a word?"))
    ['in a word', 'is rain in', 'rain in a', 'what is rain']
    """
    plain = normalise(text)
    words = _WORD.findall(plain) or ([plain] if plain else [])  # of signs alone: the signs
    if len(words) < LENGTH:
        return {" ".join(words)} if words else set()
    return set(map(" ".join, zip(words, words[1:], words[2:], strict=False)))


def jaccard(one: Set[str], other: Set[str]) -> float:
    """What two sets share of all that they hold; 1 for two empty ones."""
    shared = len(one & other)
    total = len(one) + len(other) - shared
    return shared / total if total else 1.0
