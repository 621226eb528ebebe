"""From a file of pairs to packed rows of tokens, measured: rate, and the memory that a larger file takes."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.collection import SYSTEM_WORDS, Writer
from benchmarks.data import in_repeats
from benchmarks.job import OURS, SIZES, Job
from benchmarks.memory import AnonymousPeak
from benchmarks.process import take_turns
from benchmarks.recipe import SEED
from benchmarks.stages import Bench, stage
from benchmarks.workload import MAX_LENGTH, PROMPT, RESPONSE

PAIRS = {"tiny": (300, 600), "cpu": (32_500, 65_000)}
ROW = 8192
"""Tokens of a row."""
SAMPLE = 3000
"""Texts of which the tokenizer is trained."""


def tokenizing(bench: Bench, budget: float) -> None:
    """Files of two sizes, each read, tokenized and packed."""
    jobs = [
        bench.job(OURS, "none", task="tokens", examples=pairs, step_examples=pairs, max_repeats=3)
        for pairs in PAIRS[bench.size]
    ]
    results = take_turns(jobs, budget, together=False)
    for job, result in zip(jobs, results, strict=True):
        bench.record.row(f"reading, tokenizing and packing {job.examples} pairs", result)
        bench.record.content["rows"][-1]["settings"] = result.facts.get("found", {})
    if failed := [result.error for result in results if result.error]:
        raise RuntimeError(failed[0])
    small, large = results
    cores = len(os.sched_getaffinity(0))
    bench.record.figure("tokens_rate", [60 * rate / cores for rate in large.rates])
    bench.record.figure("tokens_memory", [large.facts["anonymous_gb"] / small.facts["anonymous_gb"]])
    bench.record.figure("tokens_fill", [large.facts["found"]["fill"]])


def measure(job: Job) -> dict[str, Any]:
    """In a process of its own: the way of a run's data, from the file to the rows of its steps, nothing kept before."""
    from multifaceted.data.batch import Batch
    from multifaceted.data.batches import TrainingBatches
    from multifaceted.data.dataset import Data
    from multifaceted.data.mix import Mix
    from multifaceted.data.preference_files import PreferenceFiles
    from multifaceted.model.tokenizer import train_tokenizer

    writer = Writer(SEED)
    tokenizer = train_tokenizer((writer.text(RESPONSE.most) for _ in range(SAMPLE)), SIZES[job.size].vocab_size)
    batch = Batch(tokens=ROW, max_tokens=ROW)
    with tempfile.TemporaryDirectory() as name, AnonymousPeak() as peak:
        file = Path(name) / "pairs.jsonl"
        _write_pairs(file, job.examples, writer)
        data = Data(source=PreferenceFiles(train_file=file, validation_share=0.01), max_length=2 * MAX_LENGTH)
        found: dict[str, Any] = {}

        def prepare() -> None:
            with tempfile.TemporaryDirectory(dir=name) as cache:
                part, _ = data.examples(Mix(), SEED, needs_rejected=True, cache=Path(cache))
                encoded = data.encode(
                    part, Mix(), SEED, tokenizer, with_rejected=True, max_tokens=ROW, cache=Path(cache)
                )
                batches = TrainingBatches(trees=encoded.trees, batch=batch, num_epochs=1, seed=SEED)
                tokens = sum(map(len, encoded.trees))
                rows = sum(len(step.passes) for step in batches)
            found.update(fill=tokens / (rows * ROW), tokens=tokens, rows=rows, left_out=encoded.dropped.total())

        _, processor_seconds = in_repeats(prepare)
    found["processor_seconds"] = round(min(processor_seconds), 1)
    return {"found": found, "anonymous_gb": peak.gb}


def _write_pairs(path: Path, number: int, writer: Writer) -> None:
    """Texts of about as many tokens as words, at Janus-like lengths; the prompt's include the system message."""
    rng = np.random.default_rng(SEED)
    columns = [shape.sample(number, rng) for shape in (PROMPT, RESPONSE, RESPONSE)]
    with path.open("w", encoding="utf-8") as stream:
        for prompt, chosen, rejected in zip(*columns, strict=True):
            row = {
                "system": writer.text(min(SYSTEM_WORDS, prompt // 2)),
                "prompt": writer.text(prompt - min(SYSTEM_WORDS, prompt // 2)),
                "chosen": writer.text(chosen),
                "rejected": writer.text(rejected),
            }
            stream.write(json.dumps(row) + "\n")


TOKEN_STAGES = [stage("tokenizing: 32.5k and 65k pairs", 1, tokenizing)]
