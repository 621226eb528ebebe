"""From examples to token trees, with every dropped or cut example counted by reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from transformers import PreTrainedTokenizerBase

from multifaceted.data.source import DataError
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


def encode(
    examples: Sequence[Example],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    overlong: Overlong,
    with_rejected: bool,
) -> Encoded:
    """Encode examples, each under the tokenizer's chat template.

    Args:
        max_length: most tokens of one path, BOS and EOS included.
        with_rejected: whether rejected responses become branches.

    Raises:
        DataError: the boundary between prompt and response falls inside a token, a text spells a special token,
            or nothing is left.
    """
    messages = [conversation(example) for example in examples]
    answers = [[e.chosen, *(e.rejected if with_rejected else [])] for e in examples]
    _refuse_special_tokens(examples, tokenizer)
    prompts = _token_ids(tokenizer, render_prompts(tokenizer, messages))
    asked = [m for m, row in zip(messages, answers, strict=True) for _ in row]
    paths = iter(_token_ids(tokenizer, render_answered(tokenizer, asked, [a for row in answers for a in row])))
    result = Encoded(trees=[])
    for example, prompt, row in zip(examples, prompts, answers, strict=True):
        branches = [_branch(example, prompt, next(paths)) for _ in row]
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
        raise DataError(
            f"no example is left of {len(examples)}: {dict(result.dropped)} at data.max_length={max_length};"
            " raise data.max_length or shorten the prompts"
        )
    return result


def _token_ids(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return ids


def _branch(example: Example, prompt: list[int], path: list[int]) -> list[int]:
    if path[: len(prompt)] != prompt:
        raise DataError(
            f"example {example.id!r}: the boundary of prompt and response falls inside a token, so the model would be"
            " trained on tokens it never sees when it generates; use a template that ends the prompt with a marker"
        )
    return path[len(prompt) :]


def _refuse_special_tokens(examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase) -> None:
    specials = [token for token in tokenizer.all_special_tokens if token]
    for example in examples:
        texts = [example.system or "", example.chosen, *example.rejected, *(turn.content for turn in example.turns)]
        for text in texts:
            found = next((token for token in specials if token in text), None)
            if found is not None:
                raise DataError(
                    f"example {example.id!r}: its text spells the special token {found!r}, which would begin or end a"
                    " turn; remove or escape it"
                )
