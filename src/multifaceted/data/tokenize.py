"""From an example to a token tree, or to the reason why there is none."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from multifaceted.data.bad_rows import BadRowError
from multifaceted.data.tokens import TokenizedExample
from multifaceted.records import Example
from multifaceted.template import conversation, render_answered, render_prompts, special_tokens
from multifaceted.trees import TokenTree, as_tokens


class Overlong(StrEnum):
    """What happens to a path (prompt and branch) of more than `max_length` tokens, and to a tree that no row holds."""

    DROP = "drop"
    CUT = "cut"
    """Cut the response from the right, which also removes its EOS."""


class TooLongError(BadRowError):
    """An example that has too many tokens. `reason` is its key in `summary.json`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, reason)


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """How many tokens a path and a tree may have.

    Attributes:
        max_length: most tokens of one path, BOS and EOS included.
        max_tokens: most tokens of a tree: what a row holds.
        overlong: what happens to longer ones.
    """

    max_length: int
    max_tokens: int | None = None
    overlong: Overlong = Overlong.DROP

    def apply(self, prompt: int, branches: Sequence[list[int]]) -> tuple[list[list[int]], str | None]:
        """Return the branches, cut where they must be, and the reason of the cut or None.

        Args:
            prompt: tokens of the prompt.

        Raises:
            TooLongError: the example is dropped.
        """
        room = self.max_length - prompt
        if room <= 0:
            raise TooLongError("prompt_too_long")
        longest = max(map(len, branches))
        if longest > room and self.overlong is Overlong.DROP:
            raise TooLongError("path_too_long")
        tree_room = self._longest_branch(prompt, [min(len(branch), room) for branch in branches])
        if tree_room < min(longest, room) and (self.overlong is Overlong.DROP or tree_room < 1):
            raise TooLongError("tree_too_long")
        if longest <= min(room, tree_room):
            return list(branches), None
        cut = [branch[: min(room, tree_room)] for branch in branches]
        if cut[0] in cut[1:]:
            raise TooLongError("equal_after_cut")
        return cut, "response_cut" if tree_room >= room else "tree_cut"

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
    in_other_views: Sequence[Sequence[Example]] = (),
) -> list[TokenizedExample]:
    """Tokenize examples, each under the tokenizer's chat template.

    An example is at fault, and the result says so, where its text spells a special token, the template refuses it or
    shows it with equal responses, or prompt and response share a token.

    Args:
        with_rejected: whether rejected responses become branches.
        in_other_views: for each example, the same under other system messages, of which only the prompts are tokenized:
            an example that is too long in one of them is dropped.
    """
    # No token stands for more than its own characters, so a text beyond this alone is overlong. Its end decides
    # nothing, and tokenizing it all can take minutes.
    most = limits.max_length * max(map(len, tokenizer.get_vocab()))
    longest_first = sorted(special_tokens(tokenizer), key=len, reverse=True)
    special = re.compile("|".join(map(re.escape, longest_first)))
    texts: list[str] = []
    rendered: list[tuple[int, int] | BadRowError] = []
    for place, example in enumerate(examples):
        others = in_other_views[place] if in_other_views else ()
        try:
            for shown in (example, *others):
                _refuse_special_tokens(shown, special)
            prompt, paths = _rendered(tokenizer, example, most, with_rejected=with_rejected)
            other_prompts = [_rendered_prompt(tokenizer, other, most) for other in others]
        except BadRowError as error:
            rendered.append(error)
            continue
        rendered.append((len(other_prompts), len(paths)))
        texts += [*other_prompts, prompt, *paths]
    # Without special tokens: the template has written BOS already, where there is one.
    ids = iter(tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else [])
    return [_tokenized(*found, ids, limits) for found in zip(examples, rendered, strict=True)]


def _tokenized(
    example: Example, rendered: tuple[int, int] | BadRowError, ids: Iterator[list[int]], limits: Limits
) -> TokenizedExample:
    """The tree of an example whose tokens are the next of `ids`."""
    if isinstance(rendered, BadRowError):
        return TokenizedExample(tree=None, dropped=rendered.reason, problem=str(rendered))
    other_prompts = [len(next(ids)) for _ in range(rendered[0])]
    prompt, paths = next(ids), [next(ids) for _ in range(rendered[1])]
    try:
        branches, cut = limits.apply(len(prompt), [_branch(prompt, path) for path in paths])
        for other in other_prompts:
            limits.apply(other, [path[len(prompt) :] for path in paths])
        if branches[0] in branches[1:]:
            raise BadRowError(
                "equal_responses",
                "chosen and rejected are the same under the template, which may trim blanks around them",
            )
    except BadRowError as error:
        problem = None if isinstance(error, TooLongError) else str(error)
        return TokenizedExample(tree=None, dropped=error.reason, problem=problem)
    tree = TokenTree(
        id=example.id,
        prompt=as_tokens(prompt),
        branches=[as_tokens(branch) for branch in branches],
        source=example.source,
        dimensions=tuple(example.contrast),
        margin=example.margin,
    )
    return TokenizedExample(tree=tree, cut=cut)


def _rendered(
    tokenizer: PreTrainedTokenizerBase, example: Example, most: int, *, with_rejected: bool
) -> tuple[str, list[str]]:
    """The bytes of a prompt, and of the prompt with each answer; texts are cut after `most` characters."""
    answers = [text[:most] for text in (example.chosen, *(example.rejected if with_rejected else ()))]
    _refuse_blank(answers)
    prompt = _rendered_prompt(tokenizer, example, most)
    try:
        return prompt, render_answered(tokenizer, [_messages(example, most)] * len(answers), answers)
    except TemplateError as error:
        raise _refused_by_template(error) from None


def _rendered_prompt(tokenizer: PreTrainedTokenizerBase, example: Example, most: int) -> str:
    messages = _messages(example, most)
    _refuse_blank([message["content"] for message in messages])
    try:
        return render_prompts(tokenizer, [messages])[0]
    except TemplateError as error:
        raise _refused_by_template(error) from None


def _messages(example: Example, most: int) -> list[dict[str, str]]:
    return [message | {"content": message["content"][:most]} for message in conversation(example)]


def _refuse_blank(texts: Sequence[str]) -> None:
    if any(text.isspace() for text in texts):
        raise BadRowError("blank_beginning", "a text begins with more blanks than data.max_length tokens can hold")


def _refused_by_template(error: TemplateError) -> BadRowError:
    return BadRowError("template_refuses", f"the chat template cannot show it: {error}")


def _branch(prompt: list[int], path: list[int]) -> list[int]:
    if path[: len(prompt)] != prompt:
        raise BadRowError(
            "boundary_inside_token",
            "the boundary of prompt and response falls inside a token, so the model would be trained on tokens it never"
            " sees when it generates; use a template that ends the prompt with a marker",
        )
    return path[len(prompt) :]


def _refuse_special_tokens(example: Example, special: re.Pattern[str]) -> None:
    texts = [*(message["content"] for message in conversation(example)), example.chosen, *example.rejected]
    found = next(filter(None, map(special.search, texts)), None)
    if found:
        raise BadRowError(
            "special_token",
            f"its text spells the special token {found[0]!r}, which would begin or end a turn; remove or escape it",
        )
