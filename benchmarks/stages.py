"""The measurements on a CPU, stage by stage. Every stage gets its share of the time that is left."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.job import CHECKPOINTED, OURS, PLAIN, TRL, Job
from benchmarks.process import Result, ask, take_turns
from benchmarks.record import Record, beyond_imports

BATCHED = [{"per_device_train_batch_size": n, "train_sampling_strategy": "group_by_length"} for n in (1, 2, 4)]
"""Settings of TRL, the likeliest first: a search may run out of time."""
MORE = [
    {"per_device_train_batch_size": 1},
    {**BATCHED[0], "attn_implementation": "eager"},
]

SHORT_ROWS = {"max_tokens": 4096}
"""Our settings beside TRL: as fast on a CPU as rows of 8,192 tokens, and smaller."""

NAMES = {"dpo": "DPO", "orpo": "ORPO", "reward_model": "reward model"}


@dataclass(kw_only=True, slots=True)
class Bench:
    """What stages share.

    Attributes:
        step_examples: pairs of an optimizer step; groups of three take half as many.
        settings: the peer's best settings of each objective, once they are searched.
    """

    record: Record
    size: str
    device: str
    step_examples: int
    max_repeats: int = 9
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    has_peer: bool = field(default_factory=lambda: importlib.util.find_spec("trl") is not None)

    def job(self, system: str, objective: str, **changes: Any) -> Job:
        """A job of one optimizer step a repeat; the peer has the settings that were found."""
        basis = Job(
            system=system,
            objective=objective,
            size=self.size,
            device=self.device,
            examples=self.step_examples,
            step_examples=self.step_examples,
            max_repeats=self.max_repeats,
            settings=self.settings.get(objective, BATCHED[0]) if system == TRL else {},
        )
        return replace(basis, **changes)


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """A part of the program that can fail without the others.

    Attributes:
        weight: its share of the time, relative to those that are left.
        least: seconds below which it is left out.
    """

    name: str
    weight: float
    run: Callable[[Bench, float], None]
    least: float = 0.0


def run_stages(bench: Bench, stages: Sequence[Stage], minutes: float, say: Callable[[str], None]) -> None:
    """Run the stages within the time, saving after each."""
    deadline = time.monotonic() + 60 * minutes
    for index, stage in enumerate(stages):
        left = max(0.0, deadline - time.monotonic())
        share = left * stage.weight / sum(later.weight for later in stages[index:])
        say(f"[{index + 1}/{len(stages)}] {stage.name}: about {share:.0f} s of {left:.0f} s that are left")
        try:
            if share < stage.least:
                raise TimeoutError(f"{share:.0f} s are left of the {stage.least:.0f} s that it takes")
            stage.run(bench, share)
        except Exception as error:  # the other stages are worth having
            bench.record.skipped(stage.name, "all", f"{type(error).__name__}: {error}")
            say(f"      failed: {type(error).__name__}: {error}")
        bench.record.save()


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Ours over theirs, turn by turn."""
    return [a / b for a, b in zip(ours, theirs, strict=False)]


def search(objective: str, candidates: list[dict[str, Any]], bench: Bench, budget: float) -> None:
    """Find the peer's fastest settings for pairs of an objective."""
    workload = f"{NAMES[objective]} pairs"
    if not bench.has_peer:
        return
    number = max(c["per_device_train_batch_size"] for c in candidates)
    job = bench.job(TRL, objective, task="search", examples=number, step_examples=number, candidates=candidates)
    events, error = ask(replace(job, max_repeats=1), budget)
    found = [event for event in events if event["event"] == "candidate"]
    for event in found:
        bench.record.put(
            "searches",
            ("workload", "settings"),
            {
                "workload": workload,
                "settings": event["settings"],
                "examples_per_second": number / event["seconds"] if event["seconds"] else None,
                "peak_memory_gb": event["peak_gb"],
                "error": event["error"],
            },
        )
    measured = [event for event in found if event["error"] is None]
    bench.settings[objective] = min(measured, key=lambda e: e["seconds"])["settings"] if measured else candidates[0]
    if not measured:
        raise RuntimeError(error or f"no settings of TRL worked: {[event['error'] for event in found]}")


def compare(
    workload: str, bench: Bench, jobs: Sequence[Job], budget: float, *, together: bool = True
) -> dict[str, Result]:
    """Measure systems in turn on a workload and add their rows; the peer is skipped where it is not installed."""
    runnable = [job for job in jobs if job.system != TRL or bench.has_peer]
    results = {r.job.system: r for r in take_turns(runnable, budget, together=together)}
    for job in jobs:
        if job.system in results:
            bench.record.row(workload, results[job.system])
        else:
            bench.record.skipped(workload, job.system, "trl is not installed")
    return results


def pairs(objective: str, bench: Bench, budget: float) -> None:
    """Ours and the peer on pairs."""
    workload, record = f"{NAMES[objective]} pairs", bench.record
    jobs = [bench.job(OURS, objective, settings=SHORT_ROWS), bench.job(TRL, objective)]
    results = compare(workload, bench, jobs, budget)
    ours, trl = (results.get(system, Result(job=jobs[0])) for system in (OURS, TRL))
    record.figure(f"{objective}_step", ratios(ours.rates, trl.rates))
    if ours.facts and trl.facts:
        record.check(f"{NAMES[objective]}: losses of the first steps", ours.facts["losses"], trl.facts["losses"])
        if objective != "reward_model":
            record.figure(f"{objective}_memory", [ours.facts["peak_gb"] / trl.facts["peak_gb"]])
            beyond = [beyond_imports(result.facts) or 0.0 for result in (ours, trl)]
            record.figure(f"{objective}_memory_beyond_imports", [beyond[0] / beyond[1]])
    if objective == "dpo":
        _epoch(record, [result for result in (ours, trl) if result.facts])


def checkpointed(bench: Bench, budget: float) -> None:
    """Ours with less memory: what a step then takes, against the peer's peak as it was measured before."""
    settings = {**SHORT_ROWS, "activation_checkpointing": True}
    results = compare("ORPO pairs", bench, [bench.job(CHECKPOINTED, "orpo", settings=settings)], budget)
    peaks = [row["peak_memory_gb"] for row in bench.record.content["rows"] if _is_peer_on(row, "ORPO pairs")]
    if results[CHECKPOINTED].facts and peaks:
        record = bench.record
        record.figure("orpo_memory_checkpointed", [results[CHECKPOINTED].facts["peak_gb"] / peaks[-1]])


def _is_peer_on(row: dict[str, Any], workload: str) -> bool:
    return bool(row["workload"] == workload and row["system"] == TRL and row["peak_memory_gb"])


def switched_off(objective: str, rejected: int, bench: Bench, budget: float) -> None:
    """Ours with and without packing and sharing, at default settings; without, a group is two pairs."""
    name = f"{NAMES[objective]} {'pairs' if rejected == 1 else 'groups of three'}"
    number = max(1, bench.step_examples // rejected)
    changes: dict[str, Any] = {"rejected": rejected, "examples": number, "step_examples": number}
    results = compare(
        f"{name}, default rows", bench, [bench.job(s, objective, **changes) for s in (OURS, PLAIN)], budget
    )
    key = f"{objective}_plain" if rejected == 1 else f"{objective}_groups_plain"
    bench.record.figure(key, ratios(results[OURS].rates, results[PLAIN].rates))


def _epoch(record: Record, results: Sequence[Result]) -> None:
    """Rows and ratio of an epoch with its reference pass."""
    rates = []
    for result in results:
        taken = [seconds + result.facts["reference_seconds"] for seconds in result.seconds]
        record.row("DPO pairs, one epoch with its reference pass", result, taken)
        rates.append([result.job.examples / seconds for seconds in taken])
    if len(rates) == 2:
        record.figure("dpo_epoch", ratios(*rates))


def groups(bench: Bench, budget: float) -> None:
    """One chosen response with two rejected ones; the peer gets the two pairs. Examples are instructions."""
    number = max(1, bench.step_examples // 2)
    changes: dict[str, Any] = {"rejected": 2, "examples": number, "step_examples": number}
    jobs = [bench.job(OURS, "dpo", settings=SHORT_ROWS, **changes), bench.job(TRL, "dpo", **changes)]
    results = compare("DPO groups of three", bench, jobs, budget)
    if TRL in results:
        bench.record.figure("dpo_groups", ratios(results[OURS].rates, results[TRL].rates))


def scale(bench: Bench, budget: float) -> None:
    """Our rate on ten times the data. An example counts by its tokens, because the two see different ones."""
    jobs = [bench.job(OURS, "reward_model", copies=copies) for copies in (1, 10)]
    small, large = take_turns(jobs, budget)
    for name, result in (("reward model pairs, the data once", small), ("the same, ten times the data", large)):
        bench.record.row(name, result)
    if large.facts and small.facts:
        mean = small.facts["repeat_tokens"][0]
        tokens = large.facts["repeat_tokens"]
        rates = [rate * n / mean for rate, n in zip(large.rates, tokens, strict=False)]
        bench.record.figure("scale", ratios(rates, small.rates))


def fill(bench: Bench, budget: float) -> None:
    """How full packed rows of 8,192 tokens are."""
    number = 64 if bench.size == "tiny" else 4096
    settings = {
        "fill_tokens": {"tokens": 8192},
        "fill_examples_16": {"examples": 16},
        "fill_examples_32": {"examples": 32},
    }
    changes: dict[str, Any] = {"task": "fill", "examples": number, "step_examples": number}
    events, error = ask(bench.job(OURS, "orpo", candidates=[*settings.values()], **changes), budget)
    if error:
        raise RuntimeError(error)
    for key, share in zip(settings, events[-1]["fill"], strict=True):
        bench.record.figure(key, [share])


def stage(name: str, weight: float, function: Callable[..., None], *arguments: Any, least: float = 0.0) -> Stage:
    """A stage of a function that takes the bench and a budget in seconds after its own arguments."""
    return Stage(name=name, weight=weight, run=lambda bench, budget: function(*arguments, bench, budget), least=least)


# Weights are about the seconds of a stage with one repeat, on two cores.
CPU_STAGES = [
    stage("packing fill", 15, fill),
    stage("search: TRL's DPO", 85, search, "dpo", [*BATCHED, *MORE]),
    stage("DPO pairs", 130, pairs, "dpo"),
    stage("search: TRL's ORPO", 50, search, "orpo", BATCHED),
    stage("ORPO pairs", 100, pairs, "orpo"),
    stage("ORPO pairs, checkpointed", 40, checkpointed),
    stage("search: TRL's reward model", 35, search, "reward_model", BATCHED),
    stage("reward model pairs", 60, pairs, "reward_model"),
    stage("DPO groups of three", 130, groups),
    *(stage(f"{NAMES[name]}: both off", 60, switched_off, name, 1) for name in NAMES),
    stage("DPO groups of three: both off", 80, switched_off, "dpo", 2),
    stage("ten times the data", 45, scale),
]
