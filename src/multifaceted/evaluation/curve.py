"""A curve over N of best-of-N: as the metrics of one record, and as a figure of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from multifaceted.evaluation.statistics import bootstrap_mean
from multifaceted.records import Estimate, Prompt, Sample

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


def draw_curve(curve: Mapping[str, Estimate], path: Path) -> None:
    """The leading metric of every split against N, its interval shaded, and the mean reward beside it, as a PNG.

    Raises:
        OSError: it cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    leading = next(iter(curve)).split("/")[1]
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, metric in zip(figure.subplots(1, 2), (leading, REWARD), strict=True):
        lines: dict[str, list[tuple[int, float, float, float]]] = {}
        for key, e in curve.items():
            place, name = key.split("/", 1)
            split, _, size = place.rpartition("@")
            if name == metric and e.value is not None and e.low is not None and e.high is not None:
                lines.setdefault(split, []).append((int(size), e.value, e.low, e.high))
        for split, points in lines.items():
            sizes, values, lows, highs = zip(*points, strict=True)
            axis.plot(sizes, values, marker="o", markersize=3, label=split)
            axis.fill_between(sizes, lows, highs, alpha=0.12)
        axis.set_xscale("log", base=2)
        axis.set_xticks(sorted({point[0] for points in lines.values() for point in points}))
        axis.xaxis.set_major_formatter("{x:.0f}")
        axis.set_title(metric, loc="left", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("N, of which the reward model chooses one", fontsize=9)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside right center", fontsize=8, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
