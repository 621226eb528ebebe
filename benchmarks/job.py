"""What one process measures: plain data, so that the program which starts the processes imports no torch."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

OURS, TRL = "ours", "trl"
PLAIN = "ours, packing and sharing off"
CHECKPOINTED = "ours, activation checkpointing"
LIGER = "ours, Liger's projection"
COMPILED = "ours, compiled layers"
"""Systems: ours, the peer, and ours with a switch turned."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """A model and the lengths it is trained on.

    Attributes:
        shape: arguments of transformers' MistralConfig.
        divide_lengths: by how much the lengths of the workload are divided; 1 is what figures are about.
        dtype: of weights, gradients and optimizer state.
    """

    shape: dict[str, int]
    vocab_size: int = 32_000
    divide_lengths: int = 1
    dtype: str = "float32"


SIZES = {
    "tiny": Size(
        shape=dict(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
        ),
        vocab_size=512,
        divide_lengths=10,
    ),
    # 11.7 M parameters beside the embeddings and the head, in Mistral's proportions.
    "cpu": Size(
        shape=dict(
            hidden_size=384,
            intermediate_size=1344,
            num_hidden_layers=6,
            num_attention_heads=6,
            num_key_value_heads=2,
        ),
    ),
    "7b": Size(
        shape=dict(
            hidden_size=4096,
            intermediate_size=14_336,
            num_hidden_layers=32,
            num_attention_heads=32,
            num_key_value_heads=8,
        ),
        dtype="bfloat16",
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One system on one workload.

    Attributes:
        task: "train" (in repeats, on request), "search" (the best of `candidates`), "fill" (no model), "overlap",
            "tokens" or "calls" (no model, in repeats; examples are rows or calls).
        examples: examples of one repeat, which is one epoch; so every repeat of every system sees the same ones.
        step_examples: examples of one optimizer step.
        rejected: rejected responses of an example.
        most_tokens: of an example; a longer one is shrunk.
        copies: how often the data set holds these examples; a repeat then sees a part of an epoch.
        settings: what the system is told beside the workload.
        candidates: settings to search.
    """

    system: str
    objective: str
    size: str
    device: str
    examples: int
    step_examples: int
    task: str = "train"
    rejected: int = 1
    most_tokens: int | None = None
    copies: int = 1
    max_repeats: int = 9
    settings: dict[str, Any] = field(default_factory=dict)
    candidates: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.examples % self.step_examples:
            raise ValueError(f"examples is {self.examples}, not a multiple of step_examples={self.step_examples}")

    @property
    def steps_per_repeat(self) -> int:
        """Optimizer steps of one repeat."""
        return self.examples // self.step_examples

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Job:
        """The job that `to_json` wrote."""
        return cls(**json.loads(line))
