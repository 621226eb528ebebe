"""A few examples to token trees, with every dropped or cut example counted by reason."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from multifaceted.data.bad_rows import BadRowError, BadRows
from multifaceted.records import Example
from multifaceted.template import conversation, render_answered, render_prompts, special_tokens
from multifaceted.trees import TokenTree, as_tokens


class Overlong(StrEnum):
    """What happens to a path (prompt and branch) of more than `max_length` tokens, and to a tree that no row holds."""

    DROP = "drop"
    CUT = "cut"
    """Cut the response from the right, which also removes its EOS."""


@dataclass(kw_only=True, slots=True)
class Encoded:
    """Token trees, and what became of the examples that are not among them or not whole."""

    trees: Sequence[TokenTree]
    dropped: Counter[str] = field(default_factory=Counter)
    cut: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    """Rows that are trained on though they lack something."""
    views: Counter[str] = field(default_factory=Counter)
    """In which view how many are shown."""

    def count(self, other: Encoded) -> None:
        """Take over the counts of another part."""
        self.dropped += other.dropped
        self.cut += other.cut


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What may not be longer than what.

    Attributes:
        max_length: most tokens of one path, BOS and EOS included.
        max_tokens: most tokens of a tree: what a row holds.
        overlong: what happens to longer ones.
    """

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


def tokenize(
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    limits: Limits,
    *,
    with_rejected: bool,
    bad: BadRows,
) -> Encoded:
    """Token trees of examples that fit in memory, each under the tokenizer's chat template.

    Args:
        with_rejected: whether rejected responses become branches.
        bad: takes an example whose text spells a special token, that the template refuses or shows with equal
            responses, or where prompt and response share a token.
    """
    trees: list[TokenTree] = []
    result = Encoded(trees=trees)
    clean = _without_special_tokens(examples, tokenizer, bad)
    if not clean:
        return result
    # No token stands for more than its own characters, so a text beyond this alone is overlong. Its end decides
    # nothing, and tokenizing it all can take minutes.
    most = limits.max_length * max(map(len, tokenizer.get_vocab()))
    for example, prompt, paths in _tokens(clean, tokenizer, most, bad, with_rejected=with_rejected):
        with bad.row(f"example {example.id!r}"):
            branches = limits.apply(prompt, [_branch(prompt, path) for path in paths], result)
            _refuse_equal(branches)
            if branches:
                trees.append(
                    TokenTree(
                        id=example.id,
                        prompt=as_tokens(prompt),
                        branches=[as_tokens(branch) for branch in branches],
                        source=example.source,
                        dimensions=tuple(example.contrast),
                        margin=example.margin,
                    )
                )
    return result


def _tokens(
    examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, most: int, bad: BadRows, *, with_rejected: bool
) -> Iterator[tuple[Example, list[int], list[list[int]]]]:
    """Each example with the tokens of its prompt, and of the prompt with each answer.

    Args:
        most: characters after which a text is cut.
    """
    shown: list[tuple[Example, str, list[str]]] = []
    for example in examples:
        answers = [example.chosen, *(example.rejected if with_rejected else ())]
        with bad.row(f"example {example.id!r}"):
            shown.append((example, *_rendered(tokenizer, conversation(example), answers, most)))
    ids = iter(_token_ids(tokenizer, [text for _, prompt, paths in shown for text in (prompt, *paths)]))
    for example, _, paths in shown:
        yield example, next(ids), [next(ids) for _ in paths]


def _rendered(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], answers: list[str], most: int
) -> tuple[str, list[str]]:
    """The bytes of a prompt, and of the prompt with each answer; texts are cut after `most` characters."""
    if any(text[:most].isspace() for text in (*(message["content"] for message in messages), *answers)):
        raise BadRowError("blank_beginning", "a text begins with more blanks than data.max_length tokens can hold")
    short = [message | {"content": message["content"][:most]} for message in messages]
    try:
        prompt = render_prompts(tokenizer, [short])[0]
        return prompt, render_answered(tokenizer, [short] * len(answers), [answer[:most] for answer in answers])
    except TemplateError as error:
        raise BadRowError("template_refuses", f"the chat template cannot show it: {error}") from None


def _token_ids(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    # Without special tokens: the template has written BOS already, where there is one.
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
    return ids


def _branch(prompt: list[int], path: list[int]) -> list[int]:
    if path[: len(prompt)] != prompt:
        raise BadRowError(
            "boundary_inside_token",
            "the boundary of prompt and response falls inside a token, so the model would be trained on tokens it never"
            " sees when it generates; use a template that ends the prompt with a marker",
        )
    return path[len(prompt) :]


def _refuse_equal(branches: list[list[int]]) -> None:
    if any(branch == branches[0] for branch in branches[1:]):
        raise BadRowError(
            "equal_responses", "chosen and rejected are the same under the template, which may trim blanks around them"
        )


def _texts(example: Example) -> list[str]:
    return [*(message["content"] for message in conversation(example)), example.chosen, *example.rejected]


def _without_special_tokens(
    examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, bad: BadRows
) -> list[Example]:
    longest_first = sorted(special_tokens(tokenizer), key=len, reverse=True)
    special = re.compile("|".join(map(re.escape, longest_first)))
    clean: list[Example] = []
    for example in examples:
        with bad.row(f"example {example.id!r}"):
            found = next(filter(None, map(special.search, _texts(example))), None)
            if found:
                raise BadRowError(
                    "special_token",
                    f"its text spells the special token {found[0]!r}, which would begin or end a turn; remove or"
                    " escape it",
                )
            clean.append(example)
    return clean
