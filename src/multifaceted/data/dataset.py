"""The data of a run: a source, the template, and what may not be longer than what."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from multifaceted.data.bad_rows import BadRows, DataError, OnBadRow
from multifaceted.data.blend import thin
from multifaceted.data.cache import CacheError
from multifaceted.data.encode import Encoded, encode
from multifaceted.data.examples import ExampleDataset, store_examples
from multifaceted.data.licences import Use
from multifaceted.data.mix import RELEASED, Mix, Views
from multifaceted.data.overlap.clean import Found, Overlap
from multifaceted.data.source import DataSource, check_example, check_examples, check_use, refuse_none
from multifaceted.data.tokenize import Limits, Overlong
from multifaceted.records import Example
from multifaceted.template import refuse_lost_system, set_template

log = logging.getLogger(__name__)


@dataclass(kw_only=True, slots=True)
class Part:
    """The examples to train or to validate on, and the rows that could not, or were not chosen to, be among them."""

    examples: ExampleDataset
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
        number, self.examples = len(self.examples), self.examples.select(indices)
        if not len(self.examples):
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

    def examples(self, mix: Mix, seed: int, *, needs_rejected: bool, cache: Path | None = None) -> tuple[Part, Part]:
        """Training and validation examples, checked; training ones as `mix` chooses them.

        Args:
            cache: where those lie that are too many for memory.

        Raises:
            DataError: bad rows, examples that cannot be shown in the mix, a bench that is not there, or no example that
                does not overlap.
        """
        self.source.require_files()
        prompts = self.overlap.prompts() if self.overlap is not None else {}
        try:
            train, validation = self._read(mix, seed, needs_rejected=needs_rejected, cache=cache)
        except CacheError as error:
            log.warning("examples are read into memory, because %s cannot be written: %s", cache, error)
            train, validation = self._read(mix, seed, needs_rejected=needs_rejected, cache=None)
        mix.refuse_unknown(chain(train.examples, validation.examples))
        if self.overlap is not None:
            train.set_apart(self.overlap.search(train.examples, prompts), drop=self.overlap.drop)
        if self.per_instruction is not None:
            train.keep(thin(train.examples, self.per_instruction), "per_instruction")
        if mix.contrasts:
            train.keep(mix.choose_contrasts(train.examples), "other_contrast")
        return train, validation

    def _read(self, mix: Mix, seed: int, *, needs_rejected: bool, cache: Path | None) -> tuple[Part, Part]:
        """Read, check and store every example once."""
        bad, bad_held_out = BadRows(policy=self.on_bad_row), BadRows(policy=self.on_bad_row)
        ids: set[str] = set()
        held_out: list[bool] = []

        def checked() -> Iterator[Example]:
            for example, is_held_out in self.source.examples(seed, bad, bad_held_out, mix.contrast_shares):
                with (bad_held_out if is_held_out else bad).row(f"example {example.id!r}"):
                    if not self.source.is_checked:
                        check_example(example)
                    check_use(example, ids, needs_rejected=needs_rejected)
                    held_out.append(is_held_out)
                    yield example

        examples = store_examples(checked(), cache)
        parts = []
        for part, own_bad in enumerate((bad, bad_held_out)):
            indices = np.flatnonzero(np.asarray(held_out, dtype=bool) == bool(part)).tolist()
            refuse_none(len(indices), own_bad)
            parts.append(Part(examples=examples.select(indices), bad=own_bad))
        return parts[0], parts[1]

    def held_out(self, seed: int, *, option: str) -> Part:
        """Held-out pairs alone, for those who only validate: training files are not asked for.

        Args:
            option: the setting that says what becomes of bad rows, for messages.

        Raises:
            DataError: bad rows, or no pair.
        """
        source = self.source.held_out()
        source.require_files()
        bad = BadRows(policy=self.on_bad_row, option=option)
        found = source.validation(seed, bad)
        good = check_examples(found, bad, needs_rejected=True, is_checked=source.is_checked)
        return Part(examples=store_examples(good), bad=bad)

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
        views = Views(mix=mix, source=None if {*mix.view_shares} == {RELEASED} else self.source, seed=seed)
        if self._states_system(part.examples, views):
            refuse_lost_system(tokenizer, self.template)
        encoded = encode(
            part.examples,
            tokenizer,
            Limits(max_length=self.max_length, max_tokens=max_tokens, overlong=self.overlong),
            with_rejected=with_rejected,
            bad=part.bad,
            views=views,
            cache=cache,
        )
        encoded.dropped += part.left_out + part.bad.counts
        encoded.kept += part.kept({*encoded.trees.ids})
        return encoded

    def _states_system(self, examples: ExampleDataset, views: Views) -> bool:
        """Return whether an example has a system message in one of its views."""
        if views.source is None:
            return any(examples.cells("system"))
        return any(views.show(example, name).system for name in views.names for example in examples)


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
