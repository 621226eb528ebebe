"""Token ids as pieces of text, with a border wherever one token ends and the next begins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

from transformers import PreTrainedTokenizerBase

from multifaceted.trees import TokenTree

HALF = "\ufffd"
"""How a decoder spells bytes that are not a whole character."""


class Piece(NamedTuple):
    """What a token stands for, or several that only together are whole characters."""

    text: str
    ids: tuple[int, ...]


def pieces_of(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], before: Sequence[int] = ()) -> list[Piece]:
    """The pieces of `ids` where they follow the ids `before`; joined, they are the text that these ids add.

    A decoder whose text of a few ids is not part of its text of all of them leaves no borders to find: the result is
    then one piece.
    """
    first, whole = _decode(tokenizer, before), _decode(tokenizer, [*before, *ids])
    if not whole.startswith(first):
        first, whole, before = "", _decode(tokenizer, ids), ()
    text = whole[len(first) :]
    found = list(_pieces(tokenizer, [*before, *ids], len(before)))
    if "".join(piece.text for piece in found) != text:
        return [Piece(text, tuple(ids))]
    return found


def tree_pieces(tokenizer: PreTrainedTokenizerBase, tree: TokenTree) -> tuple[list[Piece], list[list[Piece]]]:
    """The pieces of a tree's prompt and of each branch where it follows the prompt."""
    prompt = tree.prompt.tolist()
    return pieces_of(tokenizer, prompt), [pieces_of(tokenizer, ids.tolist(), prompt) for ids in tree.branches]


def _pieces(tokenizer: PreTrainedTokenizerBase, ids: list[int], done: int) -> Iterator[Piece]:
    """Decode each token after the one before it: decoders treat the first token of a text in ways of their own."""
    anchor = max(0, done - 1)
    known = _decode(tokenizer, ids[anchor:done])
    for end in range(done + 1, len(ids) + 1):
        text = _decode(tokenizer, ids[anchor:end])
        if text.endswith(HALF) and end < len(ids):
            continue
        yield Piece(text[len(known) :], tuple(ids[done:end]))
        anchor, done = done, end
        known = _decode(tokenizer, ids[anchor:done])


def _decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    text = tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return cast(str, text)
