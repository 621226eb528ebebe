"""What a fit needs, from a config: data to tokens, weights, reference values. All that can fail early fails here."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from multifaceted.data.batches import EvaluationBatches, TrainingBatches
from multifaceted.data.dataset import counts
from multifaceted.data.encode import Encoded
from multifaceted.data.licences import objections
from multifaceted.data.source import texts_of
from multifaceted.model.build import ModelSource
from multifaceted.model.score import Scorer
from multifaceted.records import Example
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
    config: TrainConfig, source: ModelSource, *, check: Callable[[Sequence[Example]], None], is_first: bool = True
) -> TokenData:
    """Read the examples and encode them.

    Args:
        check: is shown the examples before they are encoded, and may refuse them.
        is_first: whether to say which rows were bad.

    Raises:
        DataError: bad rows, or no example is left.
    """
    if is_first:
        for sentence in objections(config.data.source.terms(), config.data.use):
            log.warning("licence: %s", sentence)
    needs_rejected = config.objective.needs_rejected
    train, validation = config.data.examples(config.mix, config.seed, needs_rejected=needs_rejected)
    check([*train.examples, *validation.examples])
    tokenizer = source.load_tokenizer(texts_of(train.examples))
    order, most = stream_seed(config.seed, "views"), config.batch.max_tokens
    data = TokenData(
        tokenizer=tokenizer,
        train=config.data.encode(train, config.mix, order, tokenizer, max_tokens=most, with_rejected=needs_rejected),
        held_out=config.data.encode(validation, config.mix, order, tokenizer, max_tokens=most, with_rejected=True),
    )
    if is_first:
        train.bad.report("training")
        validation.bad.report("validation")
    return data


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


def prepare(
    config: TrainConfig, start: Start, folder: Path, ranks: Ranks, *, check: Callable[[Sequence[Example]], None]
) -> Prepared:
    """Build everything that a fit needs."""
    data = prepare_data(config, start.source, check=check, is_first=ranks.is_first)
    _refuse_idle_ranks(len(data.train.trees), config, ranks)
    batches = training_batches(config, data.train.trees, ranks)
    pairs = evaluation_batches(data.held_out.trees, config.batch, ranks)
    scorer = load_scorer(config, start, data.tokenizer, folder, ranks)
    if config.objective.needs_reference:
        arithmetic = config.strategy.arithmetic(ranks, config.precision)
        trees = [*data.train.trees, *data.held_out.trees]
        with memory_explained(config, ranks, scorer.model, trees):
            batches.reference = pairs.reference = reference_logps(
                scorer, trees, config.batch, config.paths.cache, ranks, arithmetic
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
