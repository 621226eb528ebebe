"""Reading a judge's verdict from the end of what it wrote, and from nowhere else.

A verdict is `[RESULT] <label>`, the last thing in the text. These spellings are taken, each with or without a colon
after the bracket and a full stop at the end, and nothing else is:

    [RESULT] 4      [RESULT] (4)      [RESULT] [4]       [RESULT] **4**
    **[RESULT] 4**  **[RESULT]** 4    [RESULT] Score: 4

Where a text under judgement holds the same verdict, the end may be a quotation. Then it counts only after a complete
sentence, in a line without an open quotation mark, and if no text has that sentence's last word before the verdict.
What cannot be told is not a verdict: a text can thus have itself asked about again, but never scored.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TypeVar

T = TypeVar("T")

_SENTENCE_END = re.compile(r"[.!?\u2026][)\]\"'\u201d\u2019*_]*$")
_LOOK_ALIKES = str.maketrans(
    "\u0415\u0435\u0395\u0405\u0455\u0422\u0442\u03a4\u054d\u13a1\u13de\u216c\u2039\u203a", "eeesstttu" + "rll" + "<>"
)
"""Letters of other scripts that look like those of RESULT, and quotation marks like the signs of labels."""


def read_end(text: str, labels: Mapping[str, T], material: Sequence[str] = ()) -> T | None:
    """What the verdict at the end of a judge's text says; None where there is none, or it may be a quotation.

    Args:
        labels: the labels that a verdict may have, in small letters, to what they mean; a judge may write large ones.
        material: the texts that the judge was shown.
    """
    longest_first = tuple(sorted(labels, key=len, reverse=True))  # 10 is no 1
    end = _ends(longest_first).search(text.rstrip())
    if end is None:
        return None
    label = re.findall("|".join(map(re.escape, longest_first)), end.group().lower())[-1]
    if _quoted(text[: end.start()].rstrip(), label, [_skeleton(item) for item in material]):
        return None
    return labels[label]


def _quoted(before: str, label: str, shown: Sequence[str]) -> bool:
    """Whether a verdict may be a quotation from what was shown."""
    verdict = rf"{_spelled('result')}[<>=]*(?:{_spelled('score')}[<>=]*)?{_spelled(_skeleton(label))}"
    if not any(re.search(verdict, item) for item in shown):
        return False
    if not _SENTENCE_END.search(before):
        return True
    line = before.rpartition("\n")[2]
    if line.count('"') % 2 or line.count("`") % 2 or line.count("\u201c") > line.count("\u201d"):
        return True
    last_word = re.sub("[<>=]", "", _skeleton(before.rsplit(maxsplit=1)[-1]))
    return any(re.search(rf"{_spelled(last_word)}[<>=]*{verdict}", item) for item in shown)


def _skeleton(text: str) -> str:
    """Letters, digits and the signs of labels alone, whatever their script, case, font and spacing."""
    plain = unicodedata.normalize("NFKD", html.unescape(text)).translate(_LOOK_ALIKES).casefold()
    return "".join(character for character in plain if character.isalnum() or character in "<>=")


def _spelled(skeleton: str) -> str:
    """A pattern of it in another skeleton, among any signs; but where it has signs, a word has none: B>A is no "based".

    Which signs they are does not matter, since a judge may quote B>>A as B>A.
    """
    return "[<>=]+".join("[<>=]*".join(part) for part in re.split("[<>=]+", skeleton))


@cache
def _ends(labels: tuple[str, ...]) -> re.Pattern[str]:
    label = "(?i:" + "|".join(map(re.escape, labels)) + ")"
    shapes = (label, rf"\*\*{label}\*\*", rf"\({label}\)", rf"\[{label}\]")
    value = rf":? *(?:Score: *)?(?:{'|'.join(shapes)})"
    forms = (rf"\[RESULT\]{value}\.?", rf"\*\*\[RESULT\]{value}\.?\*\*", rf"\*\*\[RESULT\]:?\*\*{value}\.?")
    return re.compile(rf"(?<![\w\[*])(?:{'|'.join(forms)})\Z", re.ASCII)
