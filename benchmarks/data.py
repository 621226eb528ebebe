"""What is done to data before training, measured: one stage of the program a part, and what its processes do."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from benchmarks.job import OURS, Job
from benchmarks.process import Result, take_turns
from benchmarks.protocol import send, told_to_go_on
from benchmarks.stages import Bench, stage

T = TypeVar("T")

ROWS = {"tiny": (500, 1000, 2000), "cpu": (50_000, 100_000, 200_000)}
PROMPTS = {"tiny": 50, "cpu": 1000}
"""Of the bench."""
NEAR = 0.8


def overlap(bench: Bench, budget: float) -> None:
    """Duplicates in collections of three sizes, and what they have in common with a bench."""
    jobs = [
        bench.job(
            OURS,
            "none",
            task="overlap",
            examples=rows,
            step_examples=rows,
            max_repeats=3,
            settings={"prompts": PROMPTS[bench.size]},
        )
        for rows in ROWS[bench.size]
    ]
    results = take_turns(jobs, budget, together=False)
    for job, result in zip(jobs, results, strict=True):
        bench.record.row(f"overlap, {job.examples} rows against {job.settings['prompts']} prompts", result)
        bench.record.content["rows"][-1]["settings"] = {"near": NEAR, **job.settings, **result.facts.get("found", {})}
    if failed := [result.error for result in results if result.error]:
        raise RuntimeError(failed[0])
    _judge(bench, results)


def _judge(bench: Bench, results: Sequence[Result]) -> None:
    small, middle, large = results
    figure = bench.record.figure
    figure("overlap_seconds", large.seconds)
    figure("overlap_memory", [large.facts["peak_gb"]])
    # By the processor's time, which does not grow with what else runs on the machine.
    seconds = [[s / each.job.examples for s in each.facts["processor_seconds"]] for each in (small, large)]
    figure("overlap_linear_time", [each / min(seconds[0]) for each in seconds[1]])
    growth = [
        (more.facts["peak_gb"] - less.facts["peak_gb"]) / (more.job.examples - less.job.examples)
        for less, more in ((small, middle), (middle, large))
    ]
    figure("overlap_linear_memory", [growth[1] / growth[0]])
    for kind, key in (("exact", "overlap_recall_exact"), ("near", "overlap_recall_near"), ("leaked", "overlap_leaked")):
        figure(key, [result.facts["recall"][kind] for result in results])
    figure("overlap_invented", [result.facts["invented"] for result in results])


def measure(job: Job) -> dict[str, Any]:
    """In a process of its own: search a collection for what was planted in it, as often as the program asks."""
    from benchmarks.collection import make_collection
    from benchmarks.memory import resident_gb
    from multifaceted.data.overlap.clean import Overlap

    collection = make_collection(job.examples, job.settings["prompts"])
    held = resident_gb()
    config = Overlap(near=NEAR)
    found, processor_seconds = in_repeats(lambda: [*config.search(collection.examples, collection.prompts).reasons])
    gone = {*(found or ())}
    planted = collection.planted
    leaked = set().union(*(rows for kind, rows in planted.items() if kind.startswith("leaked")))
    kinds = {"exact": planted["exact"], "near": planted["near"], "leaked": leaked}
    return {
        "recall": {kind: len(rows & gone) / len(rows) for kind, rows in kinds.items()},
        "invented": len(gone - set().union(*kinds.values())),
        "processor_seconds": processor_seconds,
        "found": {
            "processor_seconds": round(min(processor_seconds), 1),
            "collection_gb": round(held, 2),
            "left_out": len(gone),
        },
    }


def in_repeats(work: Callable[[], T]) -> tuple[T | None, list[float]]:
    """What `work` returned last, and the processor's seconds of each repeat; wall seconds go to the program."""
    send("ready")
    result: T | None = None
    processor_seconds = []
    while told_to_go_on():
        began, processor = time.perf_counter(), time.process_time()
        result = work()
        processor_seconds.append(time.process_time() - processor)
        send("repeat", seconds=time.perf_counter() - began)
    return result, processor_seconds


DATA_STAGES = [stage("overlap: 50k, 100k, 200k rows", 1, overlap)]
