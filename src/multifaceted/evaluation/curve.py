"""A curve over N of best-of-N: as the metrics of one record, and as a figure of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from multifaceted.evaluation.statistics import bootstrap_mean
from multifaceted.records import CURVE, Estimate, Prompt, Sample

REWARD = "reward"


def curve_metrics(
    prompts: Sequence[Prompt],
    metrics: Mapping[int, Mapping[str, Estimate]],
    best: Mapping[int, Mapping[str, Sample]],
) -> dict[str, Estimate]:
    """The metrics of every N as those of splits of their own, `<split>@<N>`, with the mean reward of what was chosen.

    Args:
        metrics: by N, of its `scores.json`.
        best: by N, for each prompt what was chosen.
    """
    curve: dict[str, Estimate] = {}
    for size, found in metrics.items():
        for key, estimate in found.items():
            split, metric = key.split("/", 1)
            curve[f"{split}@{size}/{metric}"] = estimate
        for split in dict.fromkeys(prompt.split for prompt in prompts):
            group = [prompt for prompt in prompts if prompt.split == split]
            rewards = [best[size][prompt.id].reward for prompt in group]
            clusters = [prompt.instruction for prompt in group]
            curve[f"{split}@{size}/{REWARD}"] = bootstrap_mean(rewards, clusters=clusters)
    return curve


def draw_curve(curve: Mapping[str, Estimate], folder: Path) -> None:
    """The leading metric of every split against N, its interval shaded, and the mean reward beside it: `curve.png`.

    Raises:
        OSError: it cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    leading = next(iter(curve)).split("/")[1]
    places = [key.split("/")[0].rpartition("@") for key in curve]
    splits, sizes = dict.fromkeys(split for split, _, _ in places), sorted({int(size) for _, _, size in places})
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, metric in zip(figure.subplots(1, 2), (leading, REWARD), strict=True):
        for number, split in enumerate(splits):
            found = [(size, curve.get(f"{split}@{size}/{metric}")) for size in sizes]
            rows = [(size, e.value, e.low, e.high) for size, e in found if e is not None and e.value is not None]
            at, value, low, high = np.array(rows, dtype=np.float64).reshape(-1, 4).T
            at = np.log2(at)
            axis.plot(at, value, marker="o", markersize=3, label=split, color=f"C{number}")
            axis.fill_between(at, low, high, alpha=0.12, color=f"C{number}")
        axis.set_xticks([math.log2(size) for size in sizes], [str(size) for size in sizes])
        axis.set_title(metric, loc="left", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("N, of which the reward model chooses one", fontsize=9)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside right center", fontsize=8, frameon=False)
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / CURVE, dpi=120)
