"""The data of a run: a source, the template, and what may not be longer than what."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from multifaceted.data.encode import Encoded, Overlong, encode
from multifaceted.data.source import DataSource, check_examples
from multifaceted.data.template import set_template
from multifaceted.records import Example


@dataclass(kw_only=True, slots=True)
class Data:
    """Where examples come from and how they become tokens.

    Attributes:
        template: a name in `data/templates`, or "own" for the one the tokenizer brings.
        max_length: most tokens of a prompt with one response.
        overlong: what happens to a longer one.
    """

    source: DataSource
    max_length: int
    template: str = "janus"
    overlong: Overlong = Overlong.DROP

    def __post_init__(self) -> None:
        if self.max_length < 2:
            raise ValueError(f"max_length is {self.max_length}; it must hold a prompt and a response")

    def examples(self, seed: int, *, needs_rejected: bool) -> tuple[list[Example], list[Example]]:
        """Training and validation examples, checked."""
        train, validation = self.source.train(seed), self.source.validation(seed)
        check_examples(train, needs_rejected=needs_rejected)
        check_examples(validation, needs_rejected=needs_rejected)
        return train, validation

    def encode(self, examples: list[Example], tokenizer: PreTrainedTokenizerBase, *, with_rejected: bool) -> Encoded:
        """Token trees under the template."""
        set_template(tokenizer, self.template)
        return encode(
            examples, tokenizer, max_length=self.max_length, overlong=self.overlong, with_rejected=with_rejected
        )


def counts(encoded: Encoded) -> dict[str, int]:
    """What was dropped and cut, in the spelling of `summary.json`."""
    named: dict[str, Counter[str]] = {"dropped": encoded.dropped, "cut": encoded.cut}
    return {f"{kind}/{reason}": number for kind, counter in named.items() for reason, number in sorted(counter.items())}
