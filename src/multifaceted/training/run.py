"""A training run from its config to `policy/`: one line per object, in the order in which data flows."""

from __future__ import annotations

import hashlib
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from multifaceted.data.licences import card_section
from multifaceted.hub import push, require_hub
from multifaceted.model.adapter import merge_adapter
from multifaceted.model.adapter_files import write_adapter
from multifaceted.model.export import export_model
from multifaceted.record_files import read_json, read_jsonl, write_json
from multifaceted.records import ADAPTER, CHECKPOINTS, METRICS, RUN, SUMMARY, VERSION
from multifaceted.tracking import run_facts
from multifaceted.training.checkpoint import Checkpoint, checkpoints, read_weights
from multifaceted.training.config import Export, TrainConfig
from multifaceted.training.fit import fit
from multifaceted.training.folder import RunFolderError, State, open_run_folder
from multifaceted.training.out_of_memory import memory_explained
from multifaceted.training.prepare import prepare
from multifaceted.training.ranks import Ranks, is_restart, joined
from multifaceted.training.saving import best_of
from multifaceted.training.start import Start


@dataclass(kw_only=True, slots=True)
class Outcome:
    """How a run ended. `summary` is empty when it was interrupted."""

    folder: Path
    exported: Path
    is_first_rank: bool = True
    summary: dict[str, Any] = field(default_factory=dict)
    interrupted_by: signal.Signals | None = None
    was_finished: bool = False
    pushed: str | None = None
    """The address on the hub."""


def run(config: TrainConfig, plain: dict[str, Any], folder: Path) -> Outcome:
    """Train, or continue, the run of `folder`, as one of the ranks of the job; a finished run is returned as it is.

    Args:
        plain: `config` as plain data, for `config.yaml`.

    Raises:
        RunFolderError, DataError, CheckpointError, HubError, ValueError: bad input, before any training.
        NonFiniteLossError: the loss diverged; checkpoints are kept.
        OutOfMemoryError: says what to lower; checkpoints are kept.
    """
    config.check_device()
    with joined(config.device_type, alone=config.strategy.shards) as ranks:
        config.check_ranks(ranks)
        if config.push_to_hub is None:
            return _run(config, plain, folder, ranks)
        name = config.push_to_hub
        ranks.from_first(lambda: require_hub(name))
        outcome = _run(config, plain, folder, ranks)
    if outcome.summary and outcome.is_first_rank:  # alone: an upload may take longer than ranks wait for each other
        outcome.pushed = _push(name, outcome)
    return outcome


def _push(name: str, outcome: Outcome) -> str:
    """Upload the exported model, and the adapter where there is one."""
    adapter = outcome.folder / ADAPTER
    return push(name, {"": outcome.exported, **({ADAPTER: adapter} if adapter.exists() else {})})


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

    def check(data_fingerprint: str) -> None:
        ranks.from_first(lambda: _write_facts(config, start, folder, data_fingerprint))

    with memory_explained(config, ranks):
        prepared = prepare(config, start, folder, ranks, check=check)
    ranks.from_first(lambda: _add_facts(folder, datasets_fingerprint=prepared.data.fingerprints))
    with memory_explained(config, ranks, prepared.module.scorer.model, prepared.batches.trees):
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
    export_model(model, prepared.data.tokenizer, outcome.exported, _card(folder, config), is_first=ranks.is_first)
    outcome.summary = {
        "version": VERSION,
        **ranks.from_first(lambda: _metrics_at(folder, chosen.step)),
        **prepared.data.counts,
        "exported_step": chosen.step,
        "steps": prepared.batches.num_steps,
        "examples": len(prepared.batches.trees),
        **fitted.throughput,
        "wall_seconds": time.monotonic() - started,
    }
    if ranks.is_first:
        write_json(folder / SUMMARY, outcome.summary)
    ranks.barrier()
    return outcome


def _write_facts(config: TrainConfig, start: Start, folder: Path, data_fingerprint: str) -> None:
    """Write `run.json`, or check that what the run continues on is what it began with.

    Raises:
        RunFolderError: its data, or the weights that it is compared with or adapted from, have changed.
    """
    base = start.base
    if base is None and config.objective.needs_reference and config.start is not None:
        base = start.source.base()
    ours = {"data_fingerprint": data_fingerprint, "base_fingerprint": base and base.fingerprint}
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


def _add_facts(folder: Path, **facts: Any) -> None:
    write_json(folder / RUN, read_json(folder / RUN) | facts)


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
        + card_section(config.data.source.terms(), config.data.use)
    )
