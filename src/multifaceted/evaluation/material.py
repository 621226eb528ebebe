"""How texts under judgement are shown to a judge: as data that cannot end their own section.

Every text stands between two lines that carry a tag. The tag is a hash of all texts that are shown, rehashed until
none of them holds it, so a text cannot close its section, whatever its author knew; and being no random number, it
leaves the request the same at every run, which a ledger of requests needs. Marks that a tokenizer would read as
control tokens are broken by a blank.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

_CONTROL = re.compile(
    r"<(?=[|｜])"  # <|im_end|> and its like
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\])"
    r"|<(?=/?s>|(?:bos|eos|pad|unk)>|(?:start|end)_of_turn>|</?SYS>>)",
    re.IGNORECASE,
)
_BLANK = "\N{SPACE}"


def fenced(sections: Mapping[str, str]) -> tuple[str, str]:
    """Sections with a heading each, their texts between fences.

    Args:
        sections: heading to text.

    Returns:
        The tag of this fence, and the sections.
    """
    shown = {heading: _CONTROL.sub(rf"\g<0>{_BLANK}", text) for heading, text in sections.items()}
    tag = _tag(shown)
    parts = [f"### {heading}\n<<<BEGIN {tag}>>>\n{text}\n<<<END {tag}>>>" for heading, text in shown.items()]
    return tag, "\n\n".join(parts)


def judge_messages(system: str, task: str, sections: Mapping[str, str], last: str) -> list[dict[str, str]]:
    """What a judge is told.

    Args:
        task: what it is to do; `{tag}` becomes the tag of the fences.
        last: the heading under which it is to write.
    """
    tag, material = fenced(sections)
    return [
        {"role": "system", "content": system},
        {"role": "user", "content": f"{task.format(tag=tag)}\n\n{material}\n\n### {last}\n"},
    ]


def _tag(shown: Mapping[str, str]) -> str:
    tag = hashlib.sha256(repr(sorted(shown.items())).encode()).hexdigest()[:12]
    while any(tag in text.lower() for text in shown.values()):
        tag = hashlib.sha256(tag.encode()).hexdigest()[:12]
    return tag


def is_empty(text: str) -> bool:
    """Whether there is nothing to be seen: no character but blanks and invisible ones."""
    return all(character.isspace() or not character.isprintable() for character in text)
