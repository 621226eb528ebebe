"""The form in which texts are compared: what differs in it differs in more than typography."""

from __future__ import annotations

import unicodedata


def normalise(text: str) -> str:
    r"""A text without differences of case, width and white space.

    Unicode's compatibility caseless matching (The Unicode Standard, section 3.13, definition D146), then white space of
    any kind and length as one blank, with none at the ends. Case folding joins all that lower case would, and
    `STRASSE` with `Straße` besides. Idempotent.

    >>> normalise(" Ｗhat\tIS\n\nrain? ")
    'what is rain?'
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFD", text).casefold())
    return " ".join(unicodedata.normalize("NFKC", folded.casefold()).split())
