"""What a fit needs, from a config: data to tokens, weights, reference values. All that can fail early fails here."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from multifaceted.data.batches import EvaluationBatches, TrainingBatches
from multifaceted.data.dataset import Part, counts
from multifaceted.data.encode import Encoded
from multifaceted.data.licences import objections
from multifaceted.data.source import texts_of
from multifaceted.model.build import ModelSource
from multifaceted.model.score import Scorer
from multifaceted.training.config import TrainConfig
from multifaceted.training.module import PreferenceModule, stream_seed
from multifaceted.training.out_of_memory import memory_explained
from multifaceted.training.ranks import Ranks
from multifaceted.training.reference import evaluation_batches, reference_logps
from multifaceted.training.start import Start, load_scorer
from multifaceted.trees import TokenTree

log = logging.getLogger(__name__)


@dataclass(kw_only=True, slots=True)
class TokenData:
    """The examples of a run as token trees."""

    tokenizer: PreTrainedTokenizerBase
    train: Encoded
    held_out: Encoded

    @property
    def fingerprints(self) -> dict[str, str]:
        """Those that `datasets` has for the tokens of both parts."""
        return {"training": self.train.fingerprint, "validation": self.held_out.fingerprint}

    @property
    def counts(self) -> dict[str, int]:
        """What was dropped, cut and shown in which view."""
        return counts(self.train) | {f"validation_{key}": number for key, number in counts(self.held_out).items()}


@dataclass(kw_only=True, slots=True)
class Prepared:
    """What a fit needs, built before it starts."""

    data: TokenData
    module: PreferenceModule
    batches: TrainingBatches
    pairs: EvaluationBatches


def prepare_data(
    config: TrainConfig, source: ModelSource, *, check: Callable[[str], None], is_first: bool = True
) -> TokenData:
    """Read the examples and encode them.

    Args:
        check: is given the fingerprint of the examples before they are encoded, and may refuse them.
        is_first: whether to say which rows were bad.

    Raises:
        DataError: bad rows, or no example is left.
    """
    train, validation = read_examples(config, is_first=is_first)
    check(f"{train.examples.fingerprint}{validation.examples.fingerprint}")
    data = encode_examples(config, source, train, validation)
    if is_first:
        for name, part, encoded in (("training", train, data.train), ("validation", validation, data.held_out)):
            part.bad.report(name)
            lost = encoded.dropped - part.bad.counts
            if lost:
                stay = len(encoded.trees)
                log.warning("%s: %s examples left out, %s stay: %s", name, lost.total(), stay, named(lost))
    return data


def named(counts: Counter[str]) -> str:
    """Counts in words, the largest first."""
    return ", ".join(f"{reason} {number}" for reason, number in counts.most_common())


def read_examples(config: TrainConfig, *, is_first: bool = True) -> tuple[Part, Part]:
    """The examples to train and to validate on.

    Args:
        is_first: whether to say what a licence forbids.

    Raises:
        DataError: bad rows, or none is left.
    """
    if is_first:
        for sentence in objections(config.data.source.terms(), config.data.use):
            log.warning("licence: %s", sentence)
    return config.data.examples(
        config.mix, config.seed, needs_rejected=config.objective.needs_rejected, cache=config.paths.cache
    )


def encode_examples(config: TrainConfig, source: ModelSource, train: Part, validation: Part) -> TokenData:
    """The same as token trees.

    Raises:
        DataError: bad rows, or none is left.
    """
    tokenizer = source.load_tokenizer(texts_of(train.examples))

    def encoded(part: Part, *, with_rejected: bool) -> Encoded:
        return config.data.encode(
            part,
            config.mix,
            view_seed(config),
            tokenizer,
            max_tokens=config.batch.max_tokens,
            with_rejected=with_rejected,
            cache=config.paths.cache,
        )

    return TokenData(
        tokenizer=tokenizer,
        train=encoded(train, with_rejected=config.objective.needs_rejected),
        held_out=encoded(validation, with_rejected=True),
    )


def view_seed(config: TrainConfig) -> int:
    """What decides which example is shown in which view."""
    return stream_seed(config.seed, "views")


def training_batches(config: TrainConfig, trees: Sequence[TokenTree], ranks: Ranks) -> TrainingBatches:
    """The optimizer steps of the run."""
    return TrainingBatches(
        trees=trees,
        batch=config.batch,
        num_epochs=config.num_epochs,
        max_steps=config.max_steps,
        seed=stream_seed(config.seed, "order"),
        rank=ranks.rank,
        world_size=ranks.world_size,
        on_gpu=ranks.on_gpu,
    )


def prepare(config: TrainConfig, start: Start, folder: Path, ranks: Ranks, *, check: Callable[[str], None]) -> Prepared:
    """Build everything that a fit needs."""
    data = prepare_data(config, start.source, check=check, is_first=ranks.is_first)
    _refuse_idle_ranks(len(data.train.trees), config, ranks)
    batches = training_batches(config, data.train.trees, ranks)
    pairs = evaluation_batches(data.held_out.trees, config.batch, ranks)
    scorer = load_scorer(config, start, data.tokenizer, folder, ranks)
    if config.objective.needs_reference:
        arithmetic = config.strategy.arithmetic(ranks, config.precision)
        for part in (batches, pairs):
            with memory_explained(config, ranks, scorer.model, part.trees):
                part.reference = reference_logps(
                    scorer, part.trees, config.batch, config.paths.cache, ranks, arithmetic
                )
    module = module_of(config, scorer, batches.num_steps, ranks)
    return Prepared(data=data, module=module, batches=batches, pairs=pairs)


def module_of(config: TrainConfig, scorer: Scorer, num_steps: int, ranks: Ranks) -> PreferenceModule:
    """What Lightning trains."""
    return PreferenceModule(
        scorer,
        config.objective,
        config.optimizer,
        config.schedule,
        total_steps=num_steps,
        clip_norm=config.clip_norm,
        seed=config.seed,
        ranks=ranks,
    )


def _refuse_idle_ranks(num_examples: int, config: TrainConfig, ranks: Ranks) -> None:
    least = min(num_examples, config.batch.examples or num_examples)
    if least < ranks.world_size:
        raise ValueError(
            f"{ranks.world_size} ranks share {num_examples} training rows, {least} a step: some ranks would have none;"
            " use fewer devices, a larger batch.examples or more data"
        )
