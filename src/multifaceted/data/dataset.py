"""The data of a run: a source, the template, and what may not be longer than what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from transformers import PreTrainedTokenizerBase

from multifaceted.data.blend import thin
from multifaceted.data.encode import Encoded, Overlong, encode
from multifaceted.data.licences import Use
from multifaceted.data.mix import Mix, show
from multifaceted.data.source import BadRows, DataSource, OnBadRow, check_examples
from multifaceted.data.template import set_template
from multifaceted.records import Example


@dataclass(kw_only=True, slots=True)
class Part:
    """The examples to train or to validate on, and the rows that could not, or were not chosen to, be among them."""

    examples: list[Example]
    bad: BadRows
    left_out: Counter[str] = field(default_factory=Counter)


@dataclass(kw_only=True, slots=True)
class Data:
    """Where examples come from and how they become tokens.

    Attributes:
        template: a name in `data/templates`, or "own" for the one the tokenizer brings.
        max_length: most tokens of a prompt with one response.
        overlong: what happens to a longer one.
        on_bad_row: what happens to a row that cannot be trained on.
        per_instruction: train on at most so many examples of an instruction, each under another system message.
        use: what the model is for; a collection whose licence forbids it is warned about.
    """

    source: DataSource
    max_length: int
    template: str = "janus"
    overlong: Overlong = Overlong.DROP
    on_bad_row: OnBadRow = OnBadRow.RAISE
    per_instruction: int | None = None
    use: Use = Use.RESEARCH

    def __post_init__(self) -> None:
        if self.max_length < 2:
            raise ValueError(f"max_length is {self.max_length}; it must hold a prompt and a response")
        if self.per_instruction is not None and self.per_instruction < 1:
            raise ValueError(f"per_instruction is {self.per_instruction}; it must be at least 1")

    def examples(self, mix: Mix, seed: int, *, needs_rejected: bool) -> tuple[Part, Part]:
        """Training and validation examples, checked; training ones as `mix` chooses them.

        Raises:
            DataError: bad rows, or examples that cannot be shown in the mix.
        """
        train, validation = (BadRows(policy=self.on_bad_row) for _ in range(2))
        learnt = check_examples(
            self.source.train(seed, train, mix.contrast_shares), train, needs_rejected=needs_rejected
        )
        held_out = check_examples(
            self.source.validation(seed, validation),
            validation,
            needs_rejected=needs_rejected,
            taken={example.id for example in learnt},
        )
        mix.refuse_unknown([*learnt, *held_out])
        thinned, others = thin(learnt, self.per_instruction)
        chosen, without_contrast = mix.choose_contrasts(thinned)
        return (
            Part(examples=chosen, bad=train, left_out=others + without_contrast),
            Part(examples=held_out, bad=validation),
        )

    def encode(
        self,
        part: Part,
        mix: Mix,
        seed: int,
        tokenizer: PreTrainedTokenizerBase,
        *,
        with_rejected: bool,
        max_tokens: int | None = None,
    ) -> Encoded:
        """Token trees of at most `max_tokens` tokens under the template, each example in one view of the mix.

        Raises:
            DataError: no example is left.
        """
        set_template(tokenizer, self.template)

        def in_views(examples: Sequence[Example], views: Mapping[str, str]) -> Encoded:
            shown = [show(example, views[example.id], self.source) for example in examples]
            return encode(
                shown,
                tokenizer,
                max_length=self.max_length,
                max_tokens=max_tokens,
                overlong=self.overlong,
                with_rejected=with_rejected,
                bad=part.bad,
            )

        examples, dropped = part.examples, part.left_out.copy()
        shares = mix.view_shares
        # Shares hold after drops only if an example stays or goes whichever view it gets.
        for view in shares if len(shares) > 1 else ():
            tried = in_views(examples, {example.id: view for example in examples})
            fits = {tree.id for tree in tried.trees}
            examples, dropped = [e for e in examples if e.id in fits], dropped + tried.dropped
        views = mix.assign([example.id for example in examples], seed)
        encoded = in_views(examples, views)
        encoded.dropped += dropped + part.bad.counts
        encoded.kept += part.bad.kept
        encoded.views = Counter(views[tree.id] for tree in encoded.trees)
        return encoded


def counts(encoded: Encoded) -> dict[str, int]:
    """What was dropped, cut, or kept though it lacks something, and how many are shown in which view.

    In the spelling of `summary.json`.
    """
    named: dict[str, Counter[str]] = {
        "dropped": encoded.dropped,
        "cut": encoded.cut,
        "kept": encoded.kept,
        "view": encoded.views,
    }
    return {f"{kind}/{reason}": number for kind, counter in named.items() for reason, number in sorted(counter.items())}
