"""The measurements on one GPU: a model of Mistral-7B's shape with random weights, of which a device holds one at once.

So processes follow one another instead of taking turns, and a ratio compares the first repeat with the first.
"""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from typing import Any

from benchmarks.job import COMPILED, LIGER, OURS, SIZES, TRL
from benchmarks.process import Result, take_turns
from benchmarks.record import Record
from benchmarks.stages import NAMES, Bench, compare, ratios, search, stage

GIB = 1.073741824
"""In GB."""
SWITCH_SECONDS = 45
"""What building the model and a few steps take; with less than that left, a switch is not measured."""
LORA_SETTINGS = {"activation_checkpointing": True, "adapter": "lora", "max_tokens": 2048}


def optimizer_of(bench: Bench) -> dict[str, Any]:
    """The optimizer of both sides: with its state in 8 bits where weights are in bf16."""
    return {"eight_bit": True} if SIZES[bench.size].dtype == "bfloat16" else {}


def candidates(bench: Bench) -> list[dict[str, Any]]:
    """Settings of TRL to search. Without checkpointing a step computes a quarter less, where it fits."""
    found: list[dict[str, Any]] = [
        {
            "per_device_train_batch_size": number,
            "gradient_checkpointing": checkpointing,
            "train_sampling_strategy": "group_by_length",
            **optimizer_of(bench),
        }
        for number, checkpointing in ((4, False), (8, True), (2, False), (4, True))
    ]
    if importlib.util.find_spec("liger_kernel") is not None:
        found.insert(1, {**found[0], "use_liger_kernel": True})
    return found


def search_on_gpu(objective: str, bench: Bench, budget: float) -> None:
    """Find the peer's fastest settings."""
    search(objective, candidates(bench), bench, budget)


def pairs_on_gpu(objective: str, bench: Bench, budget: float) -> None:
    """Ours, then the peer, on pairs."""
    settings = {"activation_checkpointing": True, **optimizer_of(bench)}
    jobs = [replace(bench.job(OURS, objective), settings=settings), bench.job(TRL, objective)]
    results = compare(f"{NAMES[objective]} pairs", bench, jobs, budget, together=False)
    ours = results[OURS]
    _utilisation(objective, bench.record, ours)
    if TRL not in results:
        return
    trl = results[TRL]
    bench.record.figure(f"gpu_{objective}_step", ratios(ours.rates, trl.rates))
    if ours.facts and trl.facts:
        bench.record.check(f"{NAMES[objective]}: losses of the first steps", ours.facts["losses"], trl.facts["losses"])
        bench.record.figure(f"gpu_{objective}_memory", [_activations(ours) / _activations(trl)])


def _activations(result: Result) -> float:
    """GB beyond weights, gradients and optimizer state, for each useful token of a forward pass."""
    facts = result.facts
    return float((facts["peak_gb"] - facts["imports_gb"] - facts["static_gb"]) / facts["pass_tokens"])


def _utilisation(objective: str, record: Record, ours: Result) -> None:
    """MFU, and the plan against what was measured."""
    facts = ours.facts
    if not facts:
        return
    record.figure("gpu_plan_memory", [facts["plan_gb"] / facts["peak_gb"]])
    if facts["peak_flops"] is not None:
        record.figure(f"gpu_{objective}_mfu", [facts["flops"] / s / facts["peak_flops"] for s in ours.seconds])
        record.figure("gpu_plan_hours", [facts["plan_seconds"] / s for s in ours.seconds])


def lora(bench: Bench, budget: float) -> None:
    """Peak memory of training an adapter, on rows of 2,048 tokens."""
    job = replace(bench.job(OURS, "dpo"), settings=LORA_SETTINGS, most_tokens=2048)
    (result,) = take_turns([job], budget)
    bench.record.row("DPO pairs of at most 2,048 tokens, LoRA", result)
    if result.facts:
        bench.record.figure("gpu_lora_peak", [result.facts["peak_gb"] / GIB])


def switch(system: str, settings: dict[str, Any], bench: Bench, budget: float) -> None:
    """Ours with a switch turned that is off by default."""
    settings = {"activation_checkpointing": True, **optimizer_of(bench), **settings}
    compare("ORPO pairs", bench, [replace(bench.job(system, "orpo"), settings=settings)], budget)


GPU_STAGES = [
    stage("search: TRL's ORPO", 10, search_on_gpu, "orpo"),
    stage("ORPO pairs", 13, pairs_on_gpu, "orpo"),
    stage("search: TRL's DPO", 10, search_on_gpu, "dpo"),
    stage("DPO pairs", 13, pairs_on_gpu, "dpo"),
    stage("LoRA", 6, lora),
    stage(LIGER, 6, switch, LIGER, {"projection": "liger"}, least=SWITCH_SECONDS),
    stage(COMPILED, 6, switch, COMPILED, {"compile": True}, least=SWITCH_SECONDS),
]
