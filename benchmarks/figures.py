"""What is asked of the measurements: each figure with its bound. A measurement is judged here and nowhere else."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """A number that is compared with a bound; a ratio is ours over the other system, side by side.

    Attributes:
        least, most: bounds, where there are any; both included.
        unit: of the number; "x" for a ratio.
        of_data: measured by `python -m benchmarks data`.
        of_inference: measured by `python -m benchmarks inference`.
    """

    key: str
    what: str
    least: float | None = None
    most: float | None = None
    unit: str = "x"
    on_gpu: bool = False
    of_data: bool = False
    of_inference: bool = False

    @property
    def asked(self) -> str:
        """The bound in words."""
        if self.least is not None and self.most is not None:
            bound = f"{self.least:g}-{self.most:g}"
        elif self.least is not None:
            bound = f">= {self.least:g}"
        else:
            bound = "reported" if self.most is None else f"<= {self.most:g}"
        return f"{bound} {self.unit}".strip() if bound != "reported" else bound

    def judge(self, values: Sequence[float]) -> dict[str, Any]:
        """The record of a figure that was measured so often."""
        value = spread(values)
        within = (self.least is None or value["median"] >= self.least) and (
            self.most is None or value["median"] <= self.most
        )
        asked = self.least is not None or self.most is not None
        return {"figure": self.key, "value": value, "repeats": len(values), "reached": within if asked else None}


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and greatest of some values."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def _on_gpu(objective: str) -> list[Figure]:
    name = objective.upper()
    memory = f"{name}: memory beyond weights, gradients and optimizer state, a useful token, against TRL"
    return [
        Figure(key=f"gpu_{objective}_mfu", what=f"{name}: MFU, useful work only", least=0.5, unit="", on_gpu=True),
        Figure(key=f"gpu_{objective}_step", what=f"{name} training step against TRL", least=1.5, on_gpu=True),
        Figure(key=f"gpu_{objective}_memory", what=memory, most=0.7, on_gpu=True),
    ]


_OVERLAP = "overlap, 200,000 rows against 1,000 bench prompts"
_TOKENS = "reading, tokenizing and packing 65,000 Janus-like pairs"
_OF_DATA = [
    Figure(key="tokens_rate", what=f"{_TOKENS}: pairs a minute a core", least=5000, unit="", of_data=True),
    Figure(key="tokens_memory", what=f"{_TOKENS}: memory over that of half as many", most=1.05, of_data=True),
    Figure(key="tokens_fill", what=f"{_TOKENS}: fill at 8,192", least=0.97, unit="of a row", of_data=True),
    Figure(key="overlap_seconds", what=f"{_OVERLAP}: seconds", most=300, unit="s", of_data=True),
    Figure(key="overlap_memory", what=f"{_OVERLAP}: peak memory, rows included", most=4, unit="GB", of_data=True),
    Figure(
        key="overlap_linear_time", what="overlap: processor time of a row, at 200k over 50k", most=1.15, of_data=True
    ),
    Figure(
        key="overlap_linear_memory",
        what="overlap: memory of a further row, beyond 100k over beyond 50k",
        most=1.15,
        of_data=True,
    ),
    Figure(key="overlap_recall_exact", what="overlap: planted copies found", least=1, unit="", of_data=True),
    Figure(key="overlap_recall_near", what="overlap: planted near copies found", unit="", of_data=True),
    Figure(key="overlap_leaked", what="overlap: planted bench prompts found", least=1, unit="", of_data=True),
    Figure(key="overlap_invented", what="overlap: rows found that were not planted", most=0, unit="", of_data=True),
]

_CALLS = "11,052 calls to a server, 64 in flight"
_KILLED = "the same with 5 % faults, killed at half and resumed"
_OF_INFERENCE = [
    Figure(key=f"calls_{key}", what=what, least=least, most=most, unit=unit, of_inference=True)
    for key, what, least, most, unit in (
        ("rate", f"{_CALLS}, answered after 1 s: rate over 64 a second", 0.9, None, ""),
        ("memory", f"{_CALLS}: peak memory over that at a tenth", None, 1.05, "x"),
        ("memory_later", f"{_CALLS}: peak memory over that at half", None, 1.01, "x"),
        ("processor", f"{_CALLS}, answered at once: processor time a call", None, None, "ms"),
        ("ceiling", f"{_CALLS}, answered at once: calls a second", None, None, ""),
        ("not_answered", f"{_KILLED}: calls without a reply at the end", None, 0, ""),
        ("not_kept", f"{_KILLED}: replies that were there at the kill and were not given back", None, 0, ""),
        ("paid_again", f"{_KILLED}: answers paid for twice, time-outs aside", None, 64, ""),
        ("paid_unaccounted", f"{_KILLED}: those of them that the ledger does not know as lost", None, 0, ""),
    )
]

FIGURES = {
    figure.key: figure
    for figure in (
        Figure(key="dpo_step", what="DPO training step against TRL with precomputed reference", least=4),
        Figure(key="dpo_epoch", what="DPO whole epoch, reference pass included, against TRL", least=3.5),
        Figure(key="orpo_step", what="ORPO training step against TRL", least=4),
        Figure(key="reward_model_step", what="reward model training step against TRL", least=1.8),
        Figure(key="dpo_groups", what="DPO, one chosen with two rejected, against TRL on the two pairs", least=6),
        Figure(key="dpo_plain", what="DPO pairs against ours with packing and sharing off", least=1.25),
        Figure(key="orpo_plain", what="ORPO pairs against ours with packing and sharing off", least=1.25),
        Figure(key="reward_model_plain", what="reward model pairs against ours with both off", least=1.25),
        Figure(key="dpo_groups_plain", what="DPO groups of three against ours with both off", least=1.7),
        Figure(key="dpo_memory", what="peak memory of DPO against TRL", most=0.6),
        Figure(key="orpo_memory", what="peak memory of ORPO against TRL", most=0.6),
        Figure(key="orpo_memory_checkpointed", what="the same, ORPO, ours with activation checkpointing"),
        Figure(key="dpo_memory_beyond_imports", what="the same, DPO, beyond what the imports take"),
        Figure(key="orpo_memory_beyond_imports", what="the same, ORPO, beyond what the imports take"),
        Figure(key="scale", what="examples a second at 10x the data", least=0.95, most=1.05),
        Figure(key="fill_tokens", what="packing fill at 8,192 with batch.tokens", least=0.97, unit="of a row"),
        Figure(key="fill_examples_16", what="packing fill at 8,192 with batch.examples=16", unit="of a row"),
        Figure(key="fill_examples_32", what="packing fill at 8,192 with batch.examples=32", unit="of a row"),
        *_OF_DATA,
        *_OF_INFERENCE,
        *(figure for objective in ("orpo", "dpo") for figure in _on_gpu(objective)),
        Figure(key="gpu_lora_peak", what="LoRA at 2,048 tokens: peak memory", most=22, unit="GiB", on_gpu=True),
        Figure(key="gpu_plan_memory", what="plan's memory over what was measured", least=0.9, most=1.1, on_gpu=True),
        Figure(key="gpu_plan_hours", what="plan's hours over what was measured", least=0.85, most=1.15, on_gpu=True),
    )
}
