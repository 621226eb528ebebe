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
from multifaceted.trees import TokenTree


class Overlong(StrEnum):
    """What happens to a path (prompt and branch) of more than `max_length` tokens."""

    DROP = "drop"
    CUT = "cut"
    """Cut the response from the right, which also removes its EOS."""


@dataclass(kw_only=True, slots=True)
class Encoded:
    """Token trees, and what became of the examples that are not among them or not whole."""

    trees: list[TokenTree]
    dropped: Counter[str] = field(default_factory=Counter)
    cut: Counter[str] = field(default_factory=Counter)
    views: Counter[str] = field(default_factory=Counter)
    """In which view how many are shown."""


def encode(
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    overlong: Overlong,
    with_rejected: bool,
    bad: BadRows,
) -> Encoded:
    """Encode examples, each under the tokenizer's chat template.

    Args:
        max_length: most tokens of one path, BOS and EOS included.
        with_rejected: whether rejected responses become branches.
        bad: takes an example whose text spells a special token, or where prompt and response share a token.

    Raises:
        DataError: nothing is left.
    """
    result = Encoded(trees=[])
    clean = _without_special_tokens(examples, tokenizer, bad)
    for example, prompt, paths in _tokens(clean, tokenizer, max_length, with_rejected=with_rejected):
        with bad.row(f"example {example.id!r}"):
            branches = [_branch(prompt, path) for path in paths]
            longest = len(prompt) + max(map(len, branches))
            if len(prompt) >= max_length:
                result.dropped["prompt_too_long"] += 1
                continue
            if longest > max_length and overlong is Overlong.DROP:
                result.dropped["path_too_long"] += 1
                continue
            if longest > max_length:
                result.cut["response_cut"] += 1
                branches = [branch[: max_length - len(prompt)] for branch in branches]
                if branches[0] in branches[1:]:
                    result.dropped["equal_after_cut"] += 1
                    continue
            result.trees.append(
                TokenTree(
                    id=example.id,
                    prompt=prompt,
                    branches=branches,
                    source=example.source,
                    dimensions=tuple(example.contrast),
                    margin=example.margin,
                )
            )
    if not result.trees:
        dropped = dict(result.dropped + bad.counts)
        raise DataError(
            f"no example is left of {len(examples)}: {dropped} at data.max_length={max_length};"
            " raise data.max_length or shorten the prompts"
        )
    return result


def _tokens(
    examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, max_length: int, *, with_rejected: bool
) -> Iterator[tuple[Example, list[int], list[list[int]]]]:
    """Each example with the tokens of its prompt, and of the prompt with each answer."""
    if not examples:
        return
    # No token stands for more than its own characters, so a text beyond this alone is overlong. Its end decides
    # nothing, and tokenizing it all can take minutes.
    most = max_length * max(map(len, tokenizer.get_vocab()))
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
