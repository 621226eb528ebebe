"""The instructions of a bench of one's own: from public benches, none seen in training, none in two of them.

As Multifaceted-Bench was begun (arXiv 2405.17977, appendix G). The paper says that instructions "shared" between the
benches were removed. Here one that two benches have is taken from neither. All of Self-Instruct's are in AlpacaEval, so
beside it Self-Instruct gives none; the paper has scores for both, and so must have compared them in another way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from multifaceted.data.bad_rows import DataError
from multifaceted.data.benches import Kind, bench_named
from multifaceted.data.overlap.normalise import normalise
from multifaceted.mini.holdout import position
from multifaceted.records import BenchInstruction, Prompt

PAPER = ("alpaca_eval", "flask", "koala", "mt_bench", "self_instruct")
REASONS = ("duplicate", "in_training", "shared", "not_chosen", "chosen")
"""What becomes of a prompt: the first of these that holds. `duplicate` means of another in its own source."""


@dataclass(kw_only=True, slots=True)
class BenchInstructions:
    """Which benches the instructions are from, and how many there are to be.

    Attributes:
        sources: names of benches; by default the paper's five.
        num_instructions: how many are chosen, of all sources together; by default as many as the paper has.
    """

    sources: list[str] = field(default_factory=lambda: list(PAPER))
    num_instructions: int = 315

    def __post_init__(self) -> None:
        if self.num_instructions < 1:
            raise ValueError(f"num_instructions is {self.num_instructions}; it must be at least 1")
        if not self.sources or len({*self.sources}) < len(self.sources):
            raise ValueError(f"sources is {self.sources}; name at least one bench, and each once")
        for name in self.sources:
            kind = bench_named(name).kind
            if kind is not Kind.INSTRUCTION:
                raise ValueError(f"sources has {name}, whose prompts are no instructions ({kind})")

    @property
    def name(self) -> str:
        """What the task is called, and its folder."""
        return "bench_instructions"

    def assemble(self, prompts: Mapping[str, Sequence[Prompt]], seen: Collection[str]) -> Assembled:
        """Choose instructions by a hash of their normalised text: no seed and no order of files changes them.

        Args:
            prompts: of every source.
            seen: instructions of the training data, normalised.

        Raises:
            DataError: too few are left.
        """
        sorted_out = {name: _sort_out(prompts[name]) for name in self.sources}
        uses = Counter(text for texts, _ in sorted_out.values() for text in texts)
        counts: dict[str, Counter[str]] = {}
        left: dict[str, tuple[str, Prompt]] = {}
        for name, (texts, duplicates) in sorted_out.items():
            refused = [text for text in texts if text in seen or uses[text] > 1]
            reasons = {text: "in_training" if text in seen else "shared" for text in refused}
            counts[name] = Counter(reasons.values()) + Counter({"duplicate": duplicates})
            left |= {text: (name, prompt) for text, prompt in texts.items() if text not in reasons}
        if len(left) < self.num_instructions:
            left_out = "; ".join(f"{name} {dict(reasons)}" for name, reasons in counts.items())
            raise DataError(
                f"{len(left)} instructions are left, and task.num_instructions is {self.num_instructions};"
                f" lower it or add to task.sources. Left out: {left_out}"
            )
        by_hash = sorted(left, key=lambda text: position("bench_instruction", text))
        for place, text in enumerate(by_hash):
            counts[left[text][0]]["chosen" if place < self.num_instructions else "not_chosen"] += 1
        chosen = (left[text] for text in by_hash[: self.num_instructions])
        return Assembled(
            instructions=[
                BenchInstruction(source=name, id=f"{name}/{prompt.id}", instruction=prompt.instruction)
                for name, prompt in chosen
            ],
            counts=counts,
        )


@dataclass(kw_only=True, slots=True)
class Assembled:
    """Instructions in the order of their hash, so that fewer are a beginning of more.

    Attributes:
        counts: prompts by source and by one of `REASONS`.
    """

    instructions: list[BenchInstruction]
    counts: dict[str, Counter[str]]


def _sort_out(prompts: Sequence[Prompt]) -> tuple[dict[str, Prompt], int]:
    """The first prompt of every normalised text, and how many others there are."""
    firsts: dict[str, Prompt] = {}
    for prompt in prompts:
        firsts.setdefault(normalise(prompt.instruction), prompt)
    return firsts, len(prompts) - len(firsts)
