"""What a data set is, in numbers: what became of its rows, how long its examples are, and what they have in common."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multifaceted.data.dataset import Part
from multifaceted.data.encode import Encoded
from multifaceted.data.overlap.clean import Overlap
from multifaceted.data.overlap.duplicates import Reason
from multifaceted.data.overlap.rouge import preference_diversity, system_message_overlap
from multifaceted.data.visible import visible
from multifaceted.records import Example
from multifaceted.trees import TokenTree

Lengths = dict[str, NDArray[np.int64]]
"""Numbers of tokens, by what has them."""
BINS = 10
"""Bins of a histogram up to where 99 of 100 paths end; one more takes the rest."""
ON_BOUNDARIES = ("boundary_inside_token", "special_token")
"""Reasons for which the place of a response cannot be told from its tokens."""


def account(train: Part, encoded: Encoded, validation: Part, held_out: Encoded, *, joins_rows: bool) -> dict[str, Any]:
    """What became of the rows of both parts.

    Returns:
        Among others `lost`: rows that are neither examples nor counted, which is 0 unless there is a bug; None where
        rows cannot be counted against examples, because one takes several rows or the source counts none.
    """
    dropped = {"dropped": encoded.dropped, "validation_dropped": held_out.dropped}
    read = train.bad.read + validation.bad.read
    fates = {
        "examples": len(encoded.trees),
        "validation_examples": len(held_out.trees),
        **{f"{part}/{reason}": n for part, counts in dropped.items() for reason, n in sorted(counts.items())},
    }
    further = train.bad.further + validation.bad.further
    lost = None if joins_rows or not read else read + further - sum(fates.values())
    cut = {"cut": encoded.cut, "validation_cut": held_out.cut}
    return {
        "rows": read,
        "further_examples_of_a_row": further,
        **fates,
        "lost": lost,
        **{f"{part}/{reason}": n for part, counts in cut.items() for reason, n in sorted(counts.items())},
    }


def boundaries(*parts: Encoded) -> dict[str, int]:
    """Examples left out because prompt and response share a token, or a text spells a special one."""
    return {reason: sum(part.dropped[reason] for part in parts) for reason in ON_BOUNDARIES}


def contents(examples: Iterable[Example]) -> dict[str, dict[str, int]]:
    """What the examples have in common, in sections; one pass, and a few bytes of each are held.

    No system message counts as one of those that an instruction has.
    """
    of_instruction: dict[bytes, set[bytes]] = {}
    sources: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for example in examples:
        turns = [[turn.role, turn.content] for turn in example.turns]
        instruction, system = _digest(turns), _digest(example.system)
        of_instruction.setdefault(instruction, set()).add(system)
        sources[visible(example.source)] += 1
        counts["without_system_message"] += not example.system
        counts["without_preference_set"] += not example.preferences
        counts["several_turns"] += len(turns) > 1
    messages = Counter(min(len(systems), 4) for systems in of_instruction.values())
    return {
        "sources": dict(sources.most_common()),
        "prompts": {
            "without_system_message": counts["without_system_message"],
            "without_preference_set": counts["without_preference_set"],
            "several_turns": counts["several_turns"],
            "instructions": len(of_instruction),
            **{f"instructions/{name}": messages[number] for number, name in _MESSAGES.items()},
        },
    }


def overlaps(examples: Sequence[Example], overlap: Overlap) -> dict[str, dict[str, Any]]:
    """What occurs twice, what benches ask too, and ROUGE-L as the paper measures it; in sections."""
    prompts = overlap.prompts()
    found = overlap.search(examples, prompts)
    reached = found.contamination.prompts
    hit = {f"{name}/prompts_found": f"{len(reached.get(name, ()))} of {len(asked)}" for name, asked in prompts.items()}
    similar: dict[str, float | None] = {}
    for name, asked in prompts.items():
        score = system_message_overlap(examples, asked)
        if score.scores:
            similar |= {f"system_messages/{name}/mean": score.mean, f"system_messages/{name}/maximum": score.maximum}
    diversity = preference_diversity(examples)
    if diversity.scores:
        similar["preferences_of_an_instruction/mean"] = diversity.mean
        similar |= {f"preferences_of_an_instruction/{name}": value for name, value in diversity.by_dimension.items()}
    return {
        "duplicates": {reason.value: found.duplicates.counts[reason] for reason in Reason},
        "benches": {**hit, **found.contamination.counts},
        "rouge_l": {name: value and round(value, 4) for name, value in similar.items()},
    }


_MESSAGES = {
    1: "with_1_system_message",
    2: "with_2_system_messages",
    3: "with_3_system_messages",
    4: "with_more_system_messages",
}


def lengths_of(trees: Iterable[TokenTree]) -> Lengths:
    """Tokens of prompts, of responses, and of paths: a prompt with one of its responses."""
    found: dict[str, list[int]] = {"prompt": [], "chosen": [], "rejected": [], "path": []}
    for tree in trees:
        prompt, (chosen, *rejected) = len(tree.prompt), map(len, tree.branches)
        found["prompt"].append(prompt)
        found["chosen"].append(chosen)
        found["rejected"] += rejected
        found["path"] += [prompt + branch for branch in (chosen, *rejected)]
    return {name: np.asarray(values, dtype=np.int64) for name, values in found.items() if values}


def summaries(lengths: Lengths) -> dict[str, dict[str, float]]:
    """Least, median, mean, 95 % and most of each."""
    return {
        name: {
            "min": int(values.min()),
            "median": float(np.median(values)),
            "mean": float(values.mean()),
            "95 %": float(np.percentile(values, 95)),
            "max": int(values.max()),
        }
        for name, values in lengths.items()
    }


def histograms(lengths: Lengths) -> dict[str, list[int]]:
    """How many have a length in which bin.

    Returns:
        `edges`, one more than bins; the other lists are counts. A bin holds its lower edge and not its upper one.
    """
    edges = _edges(lengths["path"])
    return {"edges": edges, **{name: np.histogram(v, [*edges[:-1], np.inf])[0].tolist() for name, v in lengths.items()}}


def _edges(values: NDArray[np.int64]) -> list[int]:
    """Round numbers from 0 on; the last bin ends behind the largest value."""
    width, power = np.percentile(values, 99) / BINS, 1
    while 10 * power <= width:
        power *= 10
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= width)
    last = int(np.percentile(values, 99)) // step + 1
    edges = [step * place for place in range(last + 1)]
    return edges if values.max() < edges[-1] else [*edges, int(values.max()) + 1]


def draw(lengths: Lengths, path: Path, *, limit: int) -> None:
    """A figure of the lengths as a PNG.

    Args:
        limit: most tokens of a path.

    Raises:
        OSError: it cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1.9 * len(lengths)), layout="constrained")
    FigureCanvasAgg(figure)
    longest = int(lengths["path"].max())
    bins = np.linspace(0, longest + 1, 80).tolist()
    colours = {"prompt": "0.45", "chosen": "tab:green", "rejected": "tab:red", "path": "tab:blue"}
    for axis, (name, values) in zip(figure.subplots(len(lengths), 1, sharex=True), lengths.items(), strict=True):
        axis.hist(values, bins=bins, color=colours[name])
        axis.axvline(float(np.median(values)), color="black", linewidth=1)
        if limit <= 1.2 * longest:
            axis.axvline(limit, color="black", linewidth=1, linestyle="--")
        axis.set_title(f"{name}, median {np.median(values):.0f}", loc="left", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("tokens", fontsize=9)
    figure.supylabel("number of prompts, of responses, and of paths", fontsize=9)
    figure.suptitle(f"Tokens of training examples, of at most {limit:,} a path", fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _digest(value: Sequence[Any] | str | None) -> bytes:
    return hashlib.blake2b(json.dumps(value).encode(), digest_size=16).digest()
