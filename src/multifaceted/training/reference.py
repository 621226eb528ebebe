"""The reference pass: log-probabilities under the starting policy, computed once and kept by content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from multifaceted.data.batches import EvaluationBatches
from multifaceted.model.score import branch_logps, parameter_fingerprint
from multifaceted.records import VERSION, RecordError, read_json, write_json
from multifaceted.trees import TokenTree


def content_key(model: PreTrainedModel, trees: Sequence[TokenTree]) -> str:
    """A key over weights, architecture and tokens. Tokens stand for tokenizer, template and data at once."""
    digest = hashlib.sha256(parameter_fingerprint(model).encode())
    digest.update(json.dumps(model.config.to_diff_dict(), sort_keys=True, default=str).encode())
    for tree in trees:
        digest.update(json.dumps([tree.id, tree.prompt, tree.branches]).encode())
    return digest.hexdigest()[:32]


@torch.no_grad()
def reference_logps(
    model: PreTrainedModel, trees: Sequence[TokenTree], micro_examples: int, cache: Path
) -> dict[str, list[float]]:
    """The log-probability of every branch under `model`, by example id; read from `cache` if it is there."""
    path = cache / "reference" / f"{content_key(model, trees)}.json"
    try:
        cached: dict[str, list[float]] = read_json(path)["logps"]
    except (RecordError, KeyError):
        pass
    else:
        return cached
    was_training = model.training
    model.eval()
    values: dict[str, list[float]] = {}
    batches = EvaluationBatches(trees=trees, micro_examples=micro_examples)
    for position in tqdm(range(len(batches)), desc="reference", unit="batch", disable=None):
        batch = batches[position].to(model.device)
        logps = branch_logps(model, batch.rows).tolist()
        bounds = [*batch.chosen.tolist(), len(logps)]
        for index, name in enumerate(batch.ids):
            values[name] = logps[bounds[index] : bounds[index + 1]]
    model.train(was_training)
    write_json(path, {"version": VERSION, "logps": values})
    return values
