"""Texts of data as a terminal may show them."""

from __future__ import annotations

import re

ESCAPED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What would move the cursor, recolour the terminal or turn the direction of the text; and halves of characters."""


def visible(text: str) -> str:
    """The text with escapes for characters that would do something to a terminal instead of being seen."""
    return ESCAPED.sub(lambda found: found.group().encode("unicode_escape").decode(), text)
