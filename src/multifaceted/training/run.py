"""A training run from its config to `policy/`: one line per object, in the order in which data flows."""

from __future__ import annotations

import hashlib
import json
import signal
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from multifaceted.data.batches import EvaluationBatches, TrainingBatches
from multifaceted.data.dataset import counts
from multifaceted.data.source import texts_of
from multifaceted.model.adapter import merge_adapter
from multifaceted.model.adapter_files import write_adapter
from multifaceted.model.export import export_model
from multifaceted.records import (
    ADAPTER,
    CHECKPOINTS,
    METRICS,
    RUN,
    SUMMARY,
    VERSION,
    Example,
    read_json,
    read_jsonl,
    write_json,
)
from multifaceted.training.checkpoint import Checkpoint, checkpoints, read_weights
from multifaceted.training.config import Export, TrainConfig
from multifaceted.training.fit import Prepared, fit
from multifaceted.training.folder import RunFolderError, State, open_run_folder
from multifaceted.training.module import PreferenceModule, stream_seed
from multifaceted.training.out_of_memory import memory_explained
from multifaceted.training.ranks import Ranks, is_restart, joined
from multifaceted.training.reference import reference_logps
from multifaceted.training.saving import best_of
from multifaceted.training.start import Start, load_scorer
from multifaceted.training.tracking import run_facts


@dataclass(kw_only=True, slots=True)
class Outcome:
    """How a run ended. `summary` is empty when it was interrupted."""

    folder: Path
    exported: Path
    is_first_rank: bool = True
    summary: dict[str, Any] = field(default_factory=dict)
    interrupted_by: signal.Signals | None = None
    was_finished: bool = False


def run(config: TrainConfig, plain: dict[str, Any], folder: Path) -> Outcome:
    """Train, or continue, the run of `folder`, as one of the ranks of the job; a finished run is returned as it is.

    Args:
        plain: `config` as plain data, for `config.yaml`.

    Raises:
        RunFolderError, DataError, CheckpointError, ValueError: bad input, before any training.
        NonFiniteLossError: the loss diverged; checkpoints are kept.
        OutOfMemoryError: says what to lower; checkpoints are kept.
    """
    config.check_device()
    with joined(config.device_type, alone=config.strategy.shards) as ranks, memory_explained(config):
        config.check_ranks(ranks)
        return _run(config, plain, folder, ranks)


def _run(config: TrainConfig, plain: dict[str, Any], folder: Path, ranks: Ranks) -> Outcome:
    started = time.monotonic()
    outcome = Outcome(folder=folder, exported=folder / config.export_name, is_first_rank=ranks.is_first)
    start = Start.of(config, ranks)
    # A job that is started again by its launcher has begun anew already.
    overwrite = config.overwrite and not is_restart()
    state = ranks.from_first(lambda: open_run_folder(folder, plain, overwrite=overwrite))
    if state is State.FINISHED:
        outcome.summary, outcome.was_finished = read_json(folder / SUMMARY), True
        return outcome
    prepared = _prepare(config, start, folder, ranks)
    fitted = fit(config, plain, folder, prepared, ranks)
    if fitted.stopped_by is not None:
        outcome.interrupted_by = fitted.stopped_by
        return outcome
    chosen = ranks.from_first(lambda: _checkpoint_to_export(config, folder))
    model = prepared.module.scorer.model
    read_weights(chosen.folder, model, ranks)
    if start.base is not None:
        write_adapter(model, start.base, folder / ADAPTER, is_first=ranks.is_first)
        merge_adapter(model)
    export_model(model, prepared.tokenizer, outcome.exported, _card(folder, config), is_first=ranks.is_first)
    outcome.summary = {
        "version": VERSION,
        **ranks.from_first(lambda: _metrics_at(folder, chosen.step)),
        **prepared.counts,
        "exported_step": chosen.step,
        "steps": prepared.batches.num_steps,
        "examples": len(prepared.batches.trees),
        "examples_per_second": fitted.examples_per_second,
        "wall_seconds": time.monotonic() - started,
    }
    if ranks.is_first:
        write_json(folder / SUMMARY, outcome.summary)
    ranks.barrier()
    return outcome


def _prepare(config: TrainConfig, start: Start, folder: Path, ranks: Ranks) -> Prepared:
    """Data to tokens, weights, reference values: everything that can fail before training does so here."""
    needs_rejected = config.objective.needs_rejected
    train, validation = config.data.examples(config.mix, config.seed, needs_rejected=needs_rejected)
    ranks.from_first(lambda: _write_facts(config, start, folder, [*train.examples, *validation.examples]))
    tokenizer = start.source.load_tokenizer(texts_of(train.examples))
    order = stream_seed(config.seed, "views")
    encoded = config.data.encode(train, config.mix, order, tokenizer, with_rejected=needs_rejected)
    held_out = config.data.encode(validation, config.mix, order, tokenizer, with_rejected=True)
    if ranks.is_first:
        train.bad.report("training")
        validation.bad.report("validation")
    _refuse_idle_ranks(len(encoded.trees), config, ranks)
    scorer = load_scorer(config, start, tokenizer, folder, ranks)
    micro = config.batch.micro_examples
    reference = None
    if config.objective.needs_reference:
        trees = [*encoded.trees, *held_out.trees]
        reference = reference_logps(
            scorer, trees, micro, config.paths.cache, ranks, config.strategy.arithmetic(ranks, config.precision)
        )
    batches = TrainingBatches(
        trees=encoded.trees,
        batch=config.batch,
        num_epochs=config.num_epochs,
        max_steps=config.max_steps,
        seed=stream_seed(config.seed, "order"),
        rank=ranks.rank,
        world_size=ranks.world_size,
        reference=reference,
    )
    pairs = EvaluationBatches(
        trees=held_out.trees, micro_examples=micro, rank=ranks.rank, world_size=ranks.world_size, reference=reference
    )
    module = PreferenceModule(
        scorer, config.objective, config.optimizer, config.schedule, batches.num_steps, config.seed, ranks
    )
    dropped = counts(encoded) | {f"validation_{key}": number for key, number in counts(held_out).items()}
    return Prepared(tokenizer=tokenizer, module=module, batches=batches, pairs=pairs, counts=dropped)


def _refuse_idle_ranks(num_examples: int, config: TrainConfig, ranks: Ranks) -> None:
    least = min(num_examples, config.batch.examples)
    if least < ranks.world_size:
        raise ValueError(
            f"{ranks.world_size} ranks share {num_examples} training rows, {config.batch.examples} a step: some ranks"
            " would have none; use fewer devices, a larger batch.examples or more data"
        )


def _write_facts(config: TrainConfig, start: Start, folder: Path, examples: list[Example]) -> None:
    """Write `run.json`, or check that what the run continues on is what it began with.

    Raises:
        RunFolderError: its data, or the weights that it is compared with or adapted from, have changed.
    """
    digest = hashlib.sha256()
    for example in examples:
        digest.update(json.dumps(asdict(example), sort_keys=True).encode())
    base = start.base
    if base is None and config.objective.needs_reference and config.start is not None:
        base = start.source.base()
    ours = {"data_fingerprint": digest.hexdigest()[:16], "base_fingerprint": base and base.fingerprint}
    if (folder / RUN).exists():
        theirs = read_json(folder / RUN)
        for key, value in ours.items():
            if theirs.get(key) != value:
                raise RunFolderError(
                    f"{folder} began with other {'data' if key.startswith('data') else 'weights to start from'}"
                    f" ({key}: {theirs.get(key)} -> {value}); restore them, or start anew with overwrite=true"
                )
        return
    identity = hashlib.sha256(f"{folder}{time.time()}".encode()).hexdigest()[:8]
    write_json(folder / RUN, {**run_facts(config.seed), **ours, "wandb_id": identity})


def _checkpoint_to_export(config: TrainConfig, folder: Path) -> Checkpoint:
    """The best checkpoint by the monitored metric, or the last."""
    every = checkpoints(folder / CHECKPOINTS)
    best = best_of(every, config.validation) if config.export is Export.BEST else None
    return best or every[-1]


def _metrics_at(folder: Path, step: int) -> dict[str, float]:
    """Validation metrics logged at a step."""
    rows = (row for row in read_jsonl(folder / METRICS) if row["step"] == step)
    return {key: value for row in rows for key, value in row.items() if key.startswith("val/")}


def _card(folder: Path, config: TrainConfig) -> str:
    return (
        f"# {folder.name}\n\nTrained with multifaceted ({type(config.objective).__name__}, seed {config.seed}). State"
        " what you value in the system message; the chat template of the tokenizer gives the bytes it was trained on.\n"
    )
