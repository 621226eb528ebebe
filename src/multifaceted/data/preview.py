"""Examples as the model sees them, for a terminal or a log.

Everything that tells parts apart is a character, so that it survives a log: `[[ ]]` stand around what is scored, the
gutter is `|` before the prompt, `+` before the chosen and `-` before a rejected response, and `.` where a line goes on
that was too long. Colours come on top: every second token is then underlined, and special tokens are inverted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from itertools import chain, zip_longest
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from multifaceted.data.pieces import Piece, tree_pieces
from multifaceted.data.visible import visible
from multifaceted.mini.holdout import position
from multifaceted.records import Example, StatedPreference
from multifaceted.trees import TokenTree

BEGIN, END = "[[", "]]"
BOLD, DIM, UNDERLINED, INVERTED, RED, GREEN, YELLOW = "1", "2", "4", "7", "31", "32", "33"
INDENT = "    "
AT_BORDERS = 6
"""Pieces that are listed at either end of the prompt and of each response."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """What a terminal, or a log, can show.

    Attributes:
        width: most characters of a line.
    """

    colour: bool
    width: int = 100

    def paint(self, text: str, *codes: str) -> str:
        """The text in a style of ANSI terminals, where there are colours."""
        return f"\x1b[{';'.join(codes)}m{text}\x1b[0m" if self.colour and codes and text else text


class Segment(NamedTuple):
    """A text in one style."""

    text: str
    codes: tuple[str, ...] = ()


@dataclass(kw_only=True, slots=True)
class Viewed:
    """An example to show.

    Attributes:
        example: as its view has it.
        tree: what the model sees of it.
        cut: what each branch was cut by, in words; nothing where it is whole.
    """

    example: Example
    view: str
    tree: TokenTree
    cut: list[str]


def spread(trees: Iterable[TokenTree], number: int) -> list[int]:
    """Indices of a few trees: of each source in turn those whose ids have the smallest hashes.

    Neither a seed nor the order of rows changes which they are.
    """
    places: dict[str, list[tuple[float, int]]] = {}
    for index, tree in enumerate(trees):
        places.setdefault(tree.source, []).append((position("preview", tree.id), index))
    first = [[index for _, index in nsmallest(number, places[source])] for source in sorted(places)]
    turns = chain.from_iterable(zip_longest(*first))
    return [index for index in turns if index is not None][:number]


def show_example(viewed: Viewed, tokenizer: PreTrainedTokenizerBase, look: Look, *, title: str, limit: int) -> str:
    """An example with its tokens.

    Args:
        title: what comes before its id.
        limit: most tokens of a path, for comparison.
    """
    tree, special = viewed.tree, frozenset(tokenizer.all_special_ids)
    prompt, branches = tree_pieces(tokenizer, tree)
    names = ["chosen", *("rejected" for _ in tree.branches[1:])]
    counts = [f"{name} {len(ids):,}" for name, ids in zip(names, tree.branches, strict=True)]
    longest = len(tree.prompt) + max(map(len, tree.branches))
    lines = [
        look.paint(f"{title} {visible(tree.id)}", BOLD),
        f"  source {visible(tree.source)}, view {viewed.view}",
        f"  prompt {len(tree.prompt):,}, {', '.join(counts)} tokens; the longest path has {longest:,} of {limit:,}",
        *_facts(viewed.example, look),
        *lay_out(_segments(prompt, special), look, f"{INDENT}| "),
    ]
    for name, branch, cut in zip(names, branches, viewed.cut, strict=True):
        colour, sign = (GREEN, "+") if name == "chosen" else (RED, "-")
        end = [Segment(f" {cut} cut off here", (YELLOW,))] if cut else []
        scored = [Segment(BEGIN, (DIM,)), *_segments(branch, special, colour), Segment(END, (DIM,)), *end]
        lines += lay_out(scored, look, f"{INDENT}{look.paint(sign, colour)} ")
    borders = [("prompt", prompt), *zip(names, branches, strict=True)]
    lines += [look.paint(f"  tokens  {name:8}  {_borders(pieces)}", DIM) for name, pieces in borders]
    return "\n".join(lines)


def show_left_out(
    reason: str, number: int, what: str, look: Look, *, example: Example | None = None, special: Sequence[str] = ()
) -> str:
    """Why examples are left out, and the beginning of the first one.

    Args:
        what: says which one is the first and what is wrong with it.
        special: a text that holds one of these is shown around it.
    """
    lines = [look.paint(f"left out as {reason}: {number:,}", BOLD, YELLOW), *_wrapped(visible(what), look, "  ")]
    if example is not None:
        texts = [("|", example.system or ""), ("|", example.turns[-1].content), ("+", example.chosen)]
        texts += [("-", text) for text in example.rejected]
        lines += [f"{INDENT}{sign} {_excerpt(text, special, look.width - 6)}" for sign, text in texts if text]
    return "\n".join(lines)


def lay_out(segments: Iterable[Segment], look: Look, gutter: str) -> list[str]:
    """Lines behind a gutter, whose last sign is a dot where a line goes on; without them, the text is unchanged."""
    shown = [Segment(visible(text), codes) for text, codes in segments]
    further = re.sub(r"[|+-](?=\S* $)", ".", gutter)
    breaks = iter([*_breaks("".join(text for text, _ in shown), look.width - len(INDENT) - 2), -1])
    lines, place, next_break = [gutter], 0, next(breaks)
    for text, codes in shown:
        rest = text
        while place <= next_break < place + len(rest):
            head, rest = rest[: next_break - place], rest[next_break - place :]
            lines[-1] += look.paint(head, *codes)
            lines.append(further)
            if rest.startswith("\n"):
                lines[-1], rest, head = gutter, rest[1:], head + "\n"
            place, next_break = place + len(head), next(breaks)
        lines[-1] += look.paint(rest, *codes)
        place += len(rest)
    return lines


def _breaks(text: str, width: int) -> Iterator[int]:
    """Where lines end: at every newline, and before a word that does not fit."""
    column = 0
    for unit in re.finditer(r"\n|[^\S\n]+|\S+", text):
        begin, word = unit.start(), unit.group()
        if word == "\n":
            yield begin
            column = 0
            continue
        if column and column + len(word) > width and (not word.isspace() or len(word) > width):
            yield begin
            column = 0
        for start in range(width, len(word), width):
            yield begin + start
        column += len(word) if len(word) <= width else (len(word) - 1) % width + 1


def _segments(pieces: Sequence[Piece], special: frozenset[int], *codes: str) -> list[Segment]:
    return [
        Segment(piece.text, (*codes, *(UNDERLINED,) * (place % 2), *(INVERTED,) * special.issuperset(piece.ids)))
        for place, piece in enumerate(pieces)
    ]


def _borders(pieces: Sequence[Piece]) -> str:
    """The pieces at either end, with a stroke between tokens."""
    texts = [visible(piece.text).replace("\n", "\\n") for piece in pieces]
    if len(texts) <= 2 * AT_BORDERS:
        return "|".join(texts)
    return f"{'|'.join(texts[:AT_BORDERS])}| ... |{'|'.join(texts[-AT_BORDERS:])}"


def _facts(example: Example, look: Look) -> Iterator[str]:
    if example.preferences:
        yield from _wrapped(f"states {visible('; '.join(map(_stated, example.preferences)))}", look, "  ")
    facts = [] if example.preferences else ["no preference set"]
    facts.append(f"differs in {', '.join(map(visible, example.contrast))}" if example.contrast else "no contrast named")
    if example.margin is not None:
        facts.append(f"margin {example.margin:g}")
    yield f"  {', '.join(facts)}"


def _stated(preference: StatedPreference) -> str:
    names = (preference.dimension, preference.subdimension, preference.preference)
    return " / ".join(name for name in names if name) or preference.description


def _wrapped(text: str, look: Look, indent: str) -> list[str]:
    ends = [*_breaks(text, look.width - len(indent)), len(text)]
    return [indent + text[begin:end].strip("\n") for begin, end in zip([0, *ends], ends, strict=False)]


def _excerpt(text: str, special: Sequence[str], width: int) -> str:
    found = [place for place in map(text.find, special) if place >= 0]
    begin = max(0, min(found, default=0) - width // 3)
    part = visible(text[begin : begin + 2 * width]).replace("\n", "\\n")
    whole = ("..." if begin else "") + part
    return whole if len(whole) <= width else whole[: width - 3] + "..."
