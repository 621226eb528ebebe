"""From examples to token trees, with every dropped or cut example counted by reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from transformers import PreTrainedTokenizerBase

from multifaceted.data.source import BadRowError, BadRows, DataError
from multifaceted.data.template import conversation, render_answered, render_prompts
from multifaceted.records import Example
from multifaceted.trees import TokenTree, as_tokens

AT_ONCE = 1000
"""Examples that are tokenized together: lists of ids take nine times the memory of a tree's arrays."""


class Overlong(StrEnum):
    """What happens to a path (prompt and branch) of more than `max_length` tokens, and to a tree that no row holds."""

    DROP = "drop"
    CUT = "cut"
    """Cut the response from the right, which also removes its EOS."""


@dataclass(kw_only=True, slots=True)
class Encoded:
    """Token trees, and what became of the examples that are not among them or not whole."""

    trees: list[TokenTree]
    dropped: Counter[str] = field(default_factory=Counter)
    cut: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    """Rows that are trained on though they lack something."""
    views: Counter[str] = field(default_factory=Counter)
    """In which view how many are shown."""


def encode(
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    max_tokens: int | None = None,
    overlong: Overlong,
    with_rejected: bool,
    bad: BadRows,
) -> Encoded:
    """Encode examples, each under the tokenizer's chat template.

    Args:
        max_length: most tokens of one path, BOS and EOS included.
        max_tokens: most tokens of a tree: what a row holds.
        with_rejected: whether rejected responses become branches.
        bad: takes an example whose text spells a special token, or where prompt and response share a token.

    Raises:
        DataError: nothing is left.
    """
    result = Encoded(trees=[])
    limits = Limits(max_length=max_length, max_tokens=max_tokens, overlong=overlong)
    clean = _without_special_tokens(examples, tokenizer, bad)
    # No token stands for more than its own characters, so a text beyond this alone is overlong. Its end decides
    # nothing, and tokenizing it all can take minutes.
    most = max_length * max(map(len, tokenizer.get_vocab()))
    for begin in range(0, len(clean), AT_ONCE):
        part = clean[begin : begin + AT_ONCE]
        for example, prompt, paths in _tokens(part, tokenizer, most, with_rejected=with_rejected):
            with bad.row(f"example {example.id!r}"):
                branches = limits.apply(prompt, [_branch(prompt, path) for path in paths], result)
                if branches:
                    result.trees.append(
                        TokenTree(
                            id=example.id,
                            prompt=as_tokens(prompt),
                            branches=[as_tokens(branch) for branch in branches],
                            source=example.source,
                            dimensions=tuple(example.contrast),
                            margin=example.margin,
                        )
                    )
    if not result.trees:
        dropped = dict(result.dropped + bad.counts)
        raise DataError(
            f"no example is left of {len(examples)}: {dropped} at data.max_length={max_length};"
            " raise data.max_length (and batch.max_tokens) or shorten the prompts"
        )
    return result


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What may not be longer than what; see `encode`."""

    max_length: int
    max_tokens: int | None
    overlong: Overlong

    def apply(self, prompt: list[int], branches: list[list[int]], result: Encoded) -> list[list[int]]:
        """The branches, cut where they must be; none where the example is dropped. Both are counted in `result`."""
        room = self.max_length - len(prompt)
        if room <= 0:
            result.dropped["prompt_too_long"] += 1
            return []
        longest = max(map(len, branches))
        if longest > room and self.overlong is Overlong.DROP:
            result.dropped["path_too_long"] += 1
            return []
        tree_room = self._longest_branch(len(prompt), [min(len(branch), room) for branch in branches])
        if tree_room < min(longest, room) and (self.overlong is Overlong.DROP or tree_room < 1):
            result.dropped["tree_too_long"] += 1
            return []
        if longest <= min(room, tree_room):
            return branches
        result.cut["response_cut" if tree_room >= room else "tree_cut"] += 1
        branches = [branch[: min(room, tree_room)] for branch in branches]
        if branches[0] in branches[1:]:
            result.dropped["equal_after_cut"] += 1
            return []
        return branches

    def _longest_branch(self, prompt: int, branches: list[int]) -> int:
        """The most tokens that a branch may have for the tree to fit in a row, if only longer ones are cut."""
        if self.max_tokens is None:
            return max(branches)
        left = self.max_tokens - prompt
        for index, length in enumerate(sorted(branches)):
            if length * (len(branches) - index) > left:
                return max(0, left // (len(branches) - index))
            left -= length
        return max(branches)


def _tokens(
    examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, most: int, *, with_rejected: bool
) -> Iterator[tuple[Example, list[int], list[list[int]]]]:
    """Each example with the tokens of its prompt, and of the prompt with each answer.

    Args:
        most: characters after which a text is cut.
    """
    messages = [[m | {"content": m["content"][:most]} for m in conversation(example)] for example in examples]
    answers = [[answer[:most] for answer in (e.chosen, *(e.rejected if with_rejected else ()))] for e in examples]
    prompts = _token_ids(tokenizer, render_prompts(tokenizer, messages))
    asked = [m for m, row in zip(messages, answers, strict=True) for _ in row]
    paths = iter(_token_ids(tokenizer, render_answered(tokenizer, asked, [a for row in answers for a in row])))
    for example, prompt, row in zip(examples, prompts, answers, strict=True):
        yield example, prompt, [next(paths) for _ in row]


def _token_ids(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return ids


def _branch(prompt: list[int], path: list[int]) -> list[int]:
    if path[: len(prompt)] != prompt:
        raise BadRowError(
            "boundary_inside_token",
            "the boundary of prompt and response falls inside a token, so the model would be trained on tokens it never"
            " sees when it generates; use a template that ends the prompt with a marker",
        )
    return path[len(prompt) :]


def _texts(example: Example) -> list[str]:
    return [*(message["content"] for message in conversation(example)), example.chosen, *example.rejected]


def _without_special_tokens(
    examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, bad: BadRows
) -> list[Example]:
    specials = [token for token in tokenizer.all_special_tokens if token]
    clean: list[Example] = []
    for example in examples:
        with bad.row(f"example {example.id!r}"):
            for token in specials:
                if any(token in text for text in _texts(example)):
                    raise BadRowError(
                        "special_token",
                        f"its text spells the special token {token!r}, which would begin or end a turn; remove or"
                        " escape it",
                    )
            clean.append(example)
    return clean
