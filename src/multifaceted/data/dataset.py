"""The data of a run: a source, the template, and what may not be longer than what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from multifaceted.data.bad_rows import BadRows, DataError, OnBadRow
from multifaceted.data.blend import thin
from multifaceted.data.encode import encode
from multifaceted.data.licences import Use
from multifaceted.data.mix import Mix, Shown
from multifaceted.data.overlap.clean import Found, Overlap
from multifaceted.data.source import DataSource, check_examples
from multifaceted.data.stored import select, store
from multifaceted.data.tokenize import Encoded, Overlong
from multifaceted.records import Example
from multifaceted.template import refuse_lost_system, set_template


@dataclass(kw_only=True, slots=True)
class Part:
    """The examples to train or to validate on, and the rows that could not, or were not chosen to, be among them."""

    examples: Sequence[Example]
    bad: BadRows
    left_out: Counter[str] = field(default_factory=Counter)

    def keep(self, indices: Sequence[int], reason: str) -> None:
        """Leave out all examples but these, for a reason."""
        if len(indices) < len(self.examples):
            self.left_out[reason] += len(self.examples) - len(indices)
            self._select(indices)

    def set_apart(self, found: Found, *, drop: bool) -> None:
        """Leave out, or only count, examples that occur twice or that show what a bench asks.

        Raises:
            DataError: all do.
        """
        reasons, samples = found.reasons, found.samples
        self.bad.samples = samples | self.bad.samples
        if drop:
            self.left_out += found.counts
            self._select([index for index in range(len(self.examples)) if index not in reasons])
        else:
            for index, reason in reasons.items():
                self.bad.keep(reason, samples[reason], self.examples[index].id)

    def kept(self, ids: AbstractSet[str]) -> Counter[str]:
        """How many of the examples with these ids lack something, by reason."""
        numbers = {reason: len(lacking & ids) for reason, lacking in self.bad.kept.items()}
        return Counter({reason: number for reason, number in numbers.items() if number})

    def _select(self, indices: Sequence[int]) -> None:
        number, self.examples = len(self.examples), select(self.examples, indices)
        if not self.examples:
            samples = "; ".join(f"{reason}: {self.bad.samples[reason]}" for reason in self.left_out)
            raise DataError(
                f"none of {number} examples is left to train on: {dict(self.left_out)}; {samples}. Name other data, or"
                " count such examples and keep them with data.overlap.drop=false"
            )


@dataclass(kw_only=True, slots=True)
class Data:
    """Where examples come from and how they become tokens.

    Attributes:
        template: a name in `templates/`, or "own" for the one the tokenizer brings.
        max_length: most tokens of a prompt with one response.
        overlong: what happens to a longer one.
        on_bad_row: what happens to a row that cannot be trained on.
        per_instruction: train on at most so many examples of an instruction, each under another system message.
        use: what the model is for; a collection whose licence forbids it is warned about.
        overlap: how duplicates and what benches ask are looked for among the training examples; null for not at all.
    """

    source: DataSource
    max_length: int
    template: str = "janus"
    overlong: Overlong = Overlong.DROP
    on_bad_row: OnBadRow = OnBadRow.RAISE
    per_instruction: int | None = None
    use: Use = Use.RESEARCH
    overlap: Overlap | None = None

    def __post_init__(self) -> None:
        if self.max_length < 2:
            raise ValueError(f"max_length is {self.max_length}; it must hold a prompt and a response")
        if self.per_instruction is not None and self.per_instruction < 1:
            raise ValueError(f"per_instruction is {self.per_instruction}; it must be at least 1")

    def examples(self, mix: Mix, seed: int, *, needs_rejected: bool, scratch: Path | None = None) -> tuple[Part, Part]:
        """Training and validation examples, checked; training ones as `mix` chooses them.

        Args:
            scratch: folder for the file of those that are too many for memory; by default the system's.

        Raises:
            DataError: bad rows, examples that cannot be shown in the mix, a bench that is not there, or no example that
                does not overlap.
        """
        self.source.require_files()
        prompts = self.overlap.prompts() if self.overlap is not None else {}
        ids: set[str] = set()

        def checked(examples: Iterable[Example], bad: BadRows) -> Part:
            good = check_examples(examples, bad, needs_rejected=needs_rejected, taken=ids)
            return Part(examples=store(good, scratch), bad=bad)

        bad = BadRows(policy=self.on_bad_row)
        train = checked(self.source.train(seed, bad, mix.contrast_shares), bad)
        bad = BadRows(policy=self.on_bad_row)
        validation = checked(self.source.validation(seed, bad), bad)
        mix.refuse_unknown(chain(train.examples, validation.examples))
        if self.overlap is not None:
            train.set_apart(self.overlap.search(train.examples, prompts), drop=self.overlap.drop)
        if self.per_instruction is not None:
            train.keep(thin(train.examples, self.per_instruction), "per_instruction")
        if mix.contrasts:
            train.keep(mix.choose_contrasts(train.examples), "other_contrast")
        return train, validation

    def encode(
        self,
        part: Part,
        mix: Mix,
        seed: int,
        tokenizer: PreTrainedTokenizerBase,
        *,
        with_rejected: bool,
        max_tokens: int | None = None,
        cache: Path | None = None,
    ) -> Encoded:
        """Token trees of at most `max_tokens` tokens under the template, each example in one view of the mix.

        Args:
            cache: where they are kept; see `encode`.

        Raises:
            DataError: no example is left.
            ValueError: tokenizer and template do not fit, or the template has no place for a system message.
        """
        set_template(tokenizer, self.template)
        in_views = partial(
            self._in_views,
            tokenizer=tokenizer,
            with_rejected=with_rejected,
            max_tokens=max_tokens,
            bad=part.bad,
            cache=cache,
        )
        examples, dropped = part.examples, part.left_out.copy()
        shares = mix.view_shares
        # Shares hold after drops only if an example stays or goes whichever view it gets.
        for view in shares if len(shares) > 1 else ():
            tried = in_views(examples, {example.id: view for example in examples})
            fits = {tree.id for tree in tried.trees}
            examples = select(examples, [index for index, e in enumerate(examples) if e.id in fits])
            dropped += tried.dropped
        views = mix.assign([example.id for example in examples], seed)
        encoded = in_views(examples, views)
        encoded.dropped += dropped + part.bad.counts
        ids = [tree.id for tree in encoded.trees]
        encoded.kept += part.kept({*ids})
        encoded.views = Counter(views[name] for name in ids)
        return encoded

    def _in_views(
        self,
        examples: Sequence[Example],
        views: Mapping[str, str],
        *,
        tokenizer: PreTrainedTokenizerBase,
        with_rejected: bool,
        max_tokens: int | None,
        bad: BadRows,
        cache: Path | None,
    ) -> Encoded:
        """Token trees of the examples, each in the view that its id has."""
        shown = Shown(examples, views, self.source)
        if any(example.system for example in shown):
            refuse_lost_system(tokenizer, self.template)
        return encode(
            shown,
            tokenizer,
            max_length=self.max_length,
            max_tokens=max_tokens,
            overlong=self.overlong,
            with_rejected=with_rejected,
            bad=bad,
            cache=cache,
        )


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
