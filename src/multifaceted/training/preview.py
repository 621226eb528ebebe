"""A preview of a run's data: what the model will see of it, and what it is in numbers. Reads no weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from multifaceted.data.bad_rows import OnBadRow
from multifaceted.data.dataset import Part
from multifaceted.data.mix import Shown, show
from multifaceted.data.overlap.clean import Overlap
from multifaceted.data.preview import Look, Viewed, show_example, show_left_out, spread
from multifaceted.data.report import account, boundaries, contents, draw, histograms, lengths_of, overlaps, summaries
from multifaceted.data.tokenize import Limits, Overlong, tokenize
from multifaceted.data.tokens import TokenizedExample
from multifaceted.record_files import write_json
from multifaceted.records import LENGTHS, REPORT, VERSION, Example
from multifaceted.training.config import TrainConfig
from multifaceted.training.prepare import TokenData, encode_examples, read_examples, view_seed
from multifaceted.training.start import source_of
from multifaceted.trees import Tokens, TokenTree

UNCUT = 16
"""Times `data.max_length`: how far a text is tokenized to say by how much it is too long."""
AT_ONCE = 256
"""Examples in which a reason is looked for together."""
LIMITS = {
    "prompt_too_long": "the prompt alone is as long as data.max_length",
    "path_too_long": "the prompt with a response is longer than data.max_length",
    "tree_too_long": "the prompt with all responses is longer than batch.max_tokens",
    "equal_after_cut": "what is left of chosen and rejected after the cut is the same",
    "per_instruction": "data.per_instruction takes no more examples of its instruction",
    "other_contrast": "mix.contrasts takes no more pairs that differ in this",
}
"""Reasons that no message of a row explains."""


@dataclass(kw_only=True, slots=True)
class Preview:
    """A preview to print.

    Attributes:
        shown: examples, and what was left out, as text.
        report: what `report.json` holds.
        refusal: why the run would stop; None where it would not.
    """

    shown: list[str]
    report: dict[str, Any]
    refusal: str | None = None


def preview(config: TrainConfig, folder: Path, *, colour: bool, width: int) -> Preview:
    """Look at a run's data. Bad rows are counted and shown, also where the run would stop at them.

    Args:
        folder: for the report and its figure.
        colour, width: what the terminal has.

    Raises:
        DataError, ValueError: what would stop the run before training, bad rows apart, or a negative number.
        OSError: the folder cannot be written.
    """
    number = config.preview or 0
    if number < 0:
        raise ValueError(f"preview={number}; give a number of examples to show, 0 for the report alone")
    counting = replace(config, data=replace(config.data, on_bad_row=OnBadRow.DROP))
    train, validation = read_examples(counting)
    refused = Counter(train.bad.counts + train.left_out)
    data = encode_examples(counting, source_of(counting), train, validation)
    looked = _Looked(config=counting, data=data, part=train)
    look = Look(colour=colour, width=width)
    shown = [*looked.examples(number, look), *looked.left_out(validation, refused, look)]
    lengths = lengths_of(data.train.trees)
    refusal = _stops(config, train, validation)
    report: dict[str, Any] = {
        "version": VERSION,
        "run": folder.name,
        "would_stop": refusal,
        "rows": account(train, data.train, validation, data.held_out, joins_rows=config.data.source.joins_rows),
        "views": dict(data.train.views),
        "boundaries": boundaries(data.train, data.held_out),
        **contents(looked.kept()),
        **overlaps(looked.kept(), config.data.overlap or Overlap()),
        "lengths": summaries(lengths),
        "histogram": histograms(lengths),
    }
    draw(lengths, folder / LENGTHS, limit=config.data.max_length)
    write_json(folder / REPORT, report)
    return Preview(shown=shown, report=report, refusal=refusal)


def _stops(config: TrainConfig, train: Part, validation: Part) -> str | None:
    errors = train.bad.errors + validation.bad.errors
    if not errors or config.data.on_bad_row is OnBadRow.DROP:
        return None
    bad = train.bad if train.bad.errors else validation.bad
    first = bad.samples[next(iter(bad.errors))]
    return (
        f"the run would stop at the first of {errors.total()} bad rows: {first}. Mend them, or leave them out and count"
        " them: data.on_bad_row=drop"
    )


@dataclass(kw_only=True, slots=True)
class _Looked:
    """The training examples of a run, beside their trees."""

    config: TrainConfig
    data: TokenData
    part: Part

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self.data.tokenizer

    def kept(self) -> Shown:
        """The examples that have a tree, in the order of the trees, each in its view."""
        ids = self.data.train.trees.ids
        kept = {*ids}
        indices = [index for index, name in enumerate(self.part.examples.cells("id")) if name in kept]
        views = self.config.mix.assign(ids, view_seed(self.config))
        return Shown(self.part.examples.select(indices), views, self.config.data.source)

    def examples(self, number: int, look: Look) -> Iterator[str]:
        """A spread over the training examples, with one that was cut if there are any."""
        trees, kept = self.data.train.trees, self.kept()
        chosen = [self._viewed(index, kept) for index in spread(trees, number)]
        if chosen and self.data.train.cut and not any(any(viewed.cut) for viewed in chosen):
            full = (index for index, tree in enumerate(trees) if self._may_be_cut(tree))
            found = (viewed for viewed in (self._viewed(index, kept) for index in full) if any(viewed.cut))
            chosen += islice(found, 1)
        if chosen:
            yield (
                f"{len(chosen)} of {len(trees):,} training examples, in turn one of each source. [[ ]] stand around"
                " what is scored;\n| is the prompt, + chosen, - rejected, and . where a line goes on."
            )
        for place, viewed in enumerate(chosen, start=1):
            yield show_example(
                viewed,
                self.tokenizer,
                look,
                title=f"example {place} of {len(chosen)}:",
                limit=self.config.data.max_length,
            )

    def left_out(self, validation: Part, refused: Collection[str], look: Look) -> Iterator[str]:
        """The first example of each reason, and for what was refused before it had tokens, its message.

        Args:
            refused: those reasons.
        """
        train, held_out = self.data.train.dropped, self.data.held_out.dropped
        firsts = self._firsts({*train} - {*refused})
        messages = validation.bad.samples | self.part.bad.samples
        for reason, number in (train + held_out).most_common():
            first = firsts.get(reason)
            what = f"first {messages[reason]}" if reason in messages else LIMITS.get(reason, "")
            if first is not None and reason not in messages:
                what += f"; first {first.id!r} of {self._size(first)}"
            special = self.tokenizer.all_special_tokens if reason == "special_token" else ()
            yield show_left_out(reason, number, what, look, example=first, special=special)

    def _firsts(self, wanted: set[str]) -> dict[str, Example]:
        """The first example that is left out for each reason, in the view in which it is."""
        found: dict[str, Example] = {}
        ids, source = {*self.data.train.trees.ids}, self.config.data.source
        absent = (example for example in self.part.examples if example.id not in ids)
        while wanted - found.keys() and (some := list(islice(absent, AT_ONCE))):
            for view in self.config.mix.view_shares:
                shown = [show(example, view, source) for example in some]
                if self._reasons(shown) - found.keys():
                    for reason, example in ((reason, e) for e in shown for reason in self._reasons([e])):
                        found.setdefault(reason, example)
        return found

    def _reasons(self, examples: Sequence[Example]) -> set[str]:
        config = self.config
        limits = Limits(
            max_length=config.data.max_length, max_tokens=config.batch.max_tokens, overlong=config.data.overlong
        )
        return {row.dropped for row in self._tokenized(examples, limits) if row.dropped is not None}

    def _size(self, example: Example) -> str:
        """The tokens of an example that is left out, as far as they are counted."""
        tree = self._tokenized([example], self._far)[0].tree
        if tree is None:
            return f"a prompt of more than {self._far.max_length:,} tokens"
        prompt, *branches = (f"{len(ids):,}" for ids in (tree.prompt, *tree.branches))
        return f"{prompt} tokens of prompt and {', '.join(branches)} of responses"

    def _viewed(self, index: int, kept: Shown) -> Viewed:
        example, tree = kept[index], self.data.train.trees[index]
        whole = self._tokenized([example], self._far)[0].tree
        branches = whole.branches if whole is not None else []
        cut = [self._cut(tree.prompt, *both) for both in zip(branches, tree.branches, strict=True)]
        return Viewed(example=example, view=kept.views[tree.id], tree=tree, cut=cut)

    def _cut(self, prompt: Tokens, whole: Tokens, kept: Tokens) -> str:
        if len(whole) == len(kept):
            return ""
        at_least = "at least " if len(prompt) + len(whole) == self._far.max_length else ""
        return f"{at_least}{len(whole) - len(kept):,} tokens"

    @property
    def _far(self) -> Limits:
        return Limits(max_length=UNCUT * self.config.data.max_length, max_tokens=None, overlong=Overlong.CUT)

    def _may_be_cut(self, tree: TokenTree) -> bool:
        """Whether its longest path, or the tree, is as long as it may be."""
        longest = len(tree.prompt) + max(map(len, tree.branches))
        is_full = len(tree) + len(tree.branches) > self.config.batch.max_tokens
        return is_full or longest == self.config.data.max_length

    def _tokenized(self, examples: Sequence[Example], limits: Limits) -> list[TokenizedExample]:
        return tokenize(examples, self.tokenizer, limits, with_rejected=self.config.objective.needs_rejected)
