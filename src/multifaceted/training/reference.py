"""The reference pass: log-probabilities under the starting policy, computed once and kept by content."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import os
import secrets
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import cast

import torch
from tqdm import tqdm

from multifaceted.data.batch import Batch
from multifaceted.data.batches import EvaluationBatches
from multifaceted.model.score import Scorer
from multifaceted.model.weights import parameter_fingerprint
from multifaceted.record_files import RecordError, alone_at, put_in_place, read_json, write_json
from multifaceted.records import VERSION
from multifaceted.training.module import NonFiniteLossError
from multifaceted.training.ranks import Ranks
from multifaceted.training.strategy import Arithmetic
from multifaceted.trees import TokenTree

log = logging.getLogger(__name__)

PART_TOKENS = 2**19
"""Tokens of a part of the cache, about: what an interruption loses is less than a minute of one GPU."""


def content_key(scorer: Scorer, trees: Sequence[TokenTree], arithmetic: Arithmetic, batch: Batch) -> str:
    """A key over weights, architecture, arithmetic, packing, and tokens, which stand for tokenizer and template too."""
    digest = hashlib.sha256(parameter_fingerprint(scorer.model).encode())
    cut = [batch.max_tokens, batch.look_ahead, batch.packing, batch.share_prefix, PART_TOKENS]
    digest.update(f"{arithmetic.name} {scorer.projection} {cut}".encode())
    digest.update(json.dumps(scorer.model.config.to_diff_dict(), sort_keys=True, default=str).encode())
    for tree in trees:
        pieces = [tree.prompt, *tree.branches]
        digest.update(json.dumps([tree.id, *map(len, pieces)]).encode())
        for ids in pieces:
            digest.update(ids.tobytes())
    return digest.hexdigest()[:32]


def evaluation_batches(trees: Sequence[TokenTree], batch: Batch, ranks: Ranks) -> EvaluationBatches:
    """The forward passes of this rank over trees, each once."""
    return EvaluationBatches(
        trees=trees, batch=batch, rank=ranks.rank, world_size=ranks.world_size, on_gpu=ranks.on_gpu
    )


@torch.no_grad()
def reference_logps(
    scorer: Scorer, trees: Sequence[TokenTree], batch: Batch, cache: Path, ranks: Ranks, arithmetic: Arithmetic
) -> dict[str, list[float]]:
    """The log-probability of every branch under the model as it is, by example id.

    What `cache` holds is read, part by part; the rest is computed over the rows of `EvaluationBatches` and written
    there, so that an interrupted pass goes on where it stood. A cache that cannot be written is said and left alone.
    """
    batches = evaluation_batches(trees, batch, ranks)
    folder = cache / "reference" / content_key(scorer, trees, arithmetic, batch)
    scorer.eval()
    values: dict[str, list[float]] = {}
    rows_a_part = max(1, PART_TOKENS // batch.max_tokens)
    parts = [batches.rows[begin : begin + rows_a_part] for begin in range(0, len(batches.rows), rows_a_part)]
    with tqdm(total=len(trees), desc="reference", unit="example", disable=None if ranks.is_first else True) as bar:
        for number, rows in enumerate(parts):
            path = folder / f"part-{number:05d}.json"
            branches = {trees[i].id: len(trees[i].branches) for row in rows for i in row}
            with alone_at(path) if ranks.is_first else contextlib.nullcontext():
                part = ranks.from_first(partial(_cached, path, branches))
                if part is None:
                    part = _score(scorer, batches.only(rows), ranks, arithmetic)
                    if ranks.is_first:
                        _keep(path, part)
            values |= part
            bar.update(len(branches))
    return values


def _score(scorer: Scorer, batches: EvaluationBatches, ranks: Ranks, arithmetic: Arithmetic) -> dict[str, list[float]]:
    values: dict[str, list[float]] = {}
    for position in range(len(batches)):
        batch = batches[position].to(ranks.device)
        with arithmetic.context():
            logps = scorer(batch.rows).tolist()
        if not batch.counts:
            continue
        bounds = [*batch.chosen.tolist(), len(logps)]
        for index, name in enumerate(batch.ids):
            values[name] = logps[bounds[index] : bounds[index + 1]]
    merged = {name: logps for part in ranks.gather(values) for name, logps in part.items()}
    for name, logps in merged.items():
        if not all(map(math.isfinite, logps)):
            raise NonFiniteLossError(
                f"under the starting policy the log-probabilities of example {name!r} are {logps}; look at the weights"
                f" that the run starts from, or compute in another precision than {arithmetic.name}"
            )
    return merged


def _cached(path: Path, branches: dict[str, int]) -> dict[str, list[float]] | None:
    """The values of a part, if it holds one for each branch."""
    if not path.exists():
        return None
    try:
        logps = cast(dict[str, list[float]], read_json(path)["logps"])
        if {name: len(values) for name, values in logps.items()} == branches:
            return logps
        reason = "it holds other examples"
    except (RecordError, OSError, KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        reason = str(error)
    log.warning("reference values are computed again: %s cannot be used: %s", path, reason)
    return None


def _keep(path: Path, part: dict[str, list[float]]) -> None:
    # Where locks cannot be had, another job may write it too.
    own = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        write_json(own, {"version": VERSION, "logps": part})
        put_in_place(own, path)
    except OSError as error:
        log.warning("reference values are not kept, so another run computes them again: %s", error)
