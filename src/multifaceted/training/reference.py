"""The reference pass: log-probabilities under the starting policy, computed once and kept by content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from multifaceted.data.batches import EvaluationBatches
from multifaceted.model.score import Scorer
from multifaceted.model.weights import parameter_fingerprint
from multifaceted.records import VERSION, RecordError, read_json, write_json
from multifaceted.training.ranks import Ranks
from multifaceted.training.strategy import Arithmetic
from multifaceted.trees import TokenTree


def content_key(model: PreTrainedModel, trees: Sequence[TokenTree], arithmetic: Arithmetic) -> str:
    """A key over weights, architecture, arithmetic and tokens, which stand for tokenizer, template and data at once."""
    digest = hashlib.sha256(parameter_fingerprint(model).encode())
    digest.update(arithmetic.name.encode())
    digest.update(json.dumps(model.config.to_diff_dict(), sort_keys=True, default=str).encode())
    for tree in trees:
        digest.update(json.dumps([tree.id, tree.prompt, tree.branches]).encode())
    return digest.hexdigest()[:32]


@torch.no_grad()
def reference_logps(
    scorer: Scorer,
    trees: Sequence[TokenTree],
    micro_examples: int,
    cache: Path,
    ranks: Ranks,
    arithmetic: Arithmetic,
) -> dict[str, list[float]]:
    """The log-probability of every branch under the model as it is, by example id; read from `cache` if it is there."""
    path = cache / "reference" / f"{content_key(scorer.model, trees, arithmetic)}.json"
    cached = ranks.from_first(lambda: _cached(path))
    if cached is not None:
        return cached
    scorer.eval()
    values: dict[str, list[float]] = {}
    batches = EvaluationBatches(
        trees=trees, micro_examples=micro_examples, rank=ranks.rank, world_size=ranks.world_size
    )
    hidden = None if ranks.is_first else True
    for position in tqdm(range(len(batches)), desc="reference", unit="batch", disable=hidden):
        batch = batches[position].to(ranks.device)
        with arithmetic.context():
            logps = scorer(batch.rows).tolist()
        bounds = [*batch.chosen.tolist(), len(logps)]
        for index, name in enumerate(batch.ids):
            values[name] = logps[bounds[index] : bounds[index + 1]]
    merged = {name: logps for part in ranks.gather(values) for name, logps in part.items()}
    if ranks.is_first:
        write_json(path, {"version": VERSION, "logps": merged})
    return merged


def _cached(path: Path) -> dict[str, list[float]] | None:
    try:
        return cast(dict[str, list[float]], read_json(path)["logps"])
    except (RecordError, KeyError):
        return None
