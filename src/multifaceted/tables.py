"""Tables for the terminal, made from records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from multifaceted.records import Estimate, Scores

LEADING = (
    ("adherence", "all_satisfied", "on_topic", "well_formed", "all_good", "chance"),
    ("accuracy", "margin"),
    ("score", "score_spread", "unscored", "empty"),
    ("score", "turn_1", "turn_2", "unscored", "empty"),
    ("win_rate", "length_controlled_win_rate", "discrete_win_rate", "avg_length", "unscored", "empty"),
    ("win_rate", "rating", "consistency", "avg_length", "unscored", "empty"),
    ("expected_max_toxicity", "toxicity_probability", "perplexity", "distinct_2", "distinct_3", "empty"),
    ("stereotype_preferred", "absolute_difference"),
    ("accuracy", "parity", "unscored"),
    ("bias_ambig", "bias_disambig", "accuracy_ambig", "accuracy_disambig", "unscored"),
    ("quadratic_kappa", "kappa", "equal", "ordinal_alpha", "spearman"),
    ("nominal_alpha", "kappa", "equal"),
    ("difference", "win_rate", "tie_win", "win_decided"),
    ("win_rate", "length_controlled_win_rate", "tie_win", "win_decided", "consistency", "unscored", "empty"),
)
"""Of each kind of task, what one wants to read first; the first of them also by dimension."""


def summary_table(summary: dict[str, Any]) -> str:
    """Validation metrics with a column for each dimension, then the facts of the run."""
    metrics = {key.removeprefix("val/"): value for key, value in summary.items() if key.startswith("val/")}
    names = sorted({key.split("/")[0] for key in metrics})
    groups = sorted({key.partition("/")[2] for key in metrics} - {""})
    dimensions = [group for group in groups if "/" not in group]
    rows = [["validation", "all", *dimensions]]
    rows += [[name, *(number(metrics.get(f"{name}/{g}" if g else name)) for g in ("", *dimensions))] for name in names]
    facts = [[key, number(value)] for key, value in summary.items() if not key.startswith("val/")]
    return f"\n{format_table(rows)}\n\n{format_table(facts)}"


def plan_table(sections: Mapping[str, Mapping[str, Any]]) -> str:
    """A table for each section: names and numbers."""
    tables = [
        format_table([[title, ""], *([name, _grouped(value)] for name, value in rows.items())])
        for title, rows in sections.items()
    ]
    return "\n" + "\n\n".join(tables)


def report_tables(report: Mapping[str, Any], *, bar: str = "#") -> str:
    """The report of a preview: a table a section, and a histogram of lengths.

    Args:
        bar: what bars are made of.
    """
    apart = ("version", "run", "would_stop", "rows", "lengths", "histogram")
    rows, sections = report["rows"], {title: rows for title, rows in report.items() if title not in apart}
    counted = {name: number for name, number in rows.items() if number or name in ("rows", "examples")}
    tables = [
        plan_table({"rows": counted}).strip("\n"),
        _balance(rows),
        plan_table({title: _longest(names) for title, names in sections.items() if names}).strip("\n"),
        _length_table(report["lengths"]),
        _histogram(report["histogram"], bar),
    ]
    return "\n\n".join(tables)


def _balance(rows: Mapping[str, Any]) -> str:
    """Whether every row is an example or counted."""
    if rows["lost"] is None:
        return "An example may take several rows here, or rows are not counted: what was lost cannot be told."
    left_out = sum(number for name, number in rows.items() if name.split("/")[0].endswith("dropped"))
    terms = {
        "examples": rows["examples"],
        "for validation": rows["validation_examples"],
        "left out": left_out,
    }
    found = rows["rows"] + rows["further_examples_of_a_row"]
    total = f"{found:,} = " + " + ".join(f"{number:,} {name}" for name, number in terms.items() if number)
    return f"{total}: no row is lost" if not rows["lost"] else f"{total} + {rows['lost']:,} LOST WITHOUT BEING COUNTED"


def _longest(names: Mapping[str, Any], most: int = 20) -> dict[str, Any]:
    """The first of a section's rows, and how many follow."""
    shown = dict(list(names.items())[:most])
    return shown if len(names) <= most else {**shown, f"and {len(names) - most:,} more": ""}


def _length_table(lengths: Mapping[str, Mapping[str, float]]) -> str:
    columns = list(next(iter(lengths.values())))
    rows = [["tokens", *columns]]
    rows += [[name, *(f"{values[column]:,.0f}" for column in columns)] for name, values in lengths.items()]
    return format_table(rows)


def _histogram(histogram: Mapping[str, list[int]], bar: str, width: int = 14) -> str:
    """A row a bin, and in it a bar for each of prompt, responses and paths, on a scale of its own."""
    names = [name for name in histogram if name != "edges"]
    lines = [f"{'tokens':>15}  " + "  ".join(name.ljust(width + 8) for name in names)]
    edges = histogram["edges"]
    for place, (low, high) in enumerate(pairwise(edges)):
        cells = []
        for name in names:
            number, most = histogram[name][place], max(histogram[name])
            length = max(round(width * number / most), int(number > 0))
            cells.append(f"{bar * length:{width}} {number or '':>7}")
        lines.append(f"{low:>7,}-{high - 1:<7,}  " + "  ".join(cells))
    return "\n".join(line.rstrip() for line in lines)


def score_table(scores: Scores) -> str:
    """One row a split, by its leading metrics; then the first of them by dimension, and the other metrics."""
    named = {key.split("/")[1] for key in scores.metrics}
    fitting = [columns for columns in LEADING if columns[0] in named]
    leading = max(fitting, key=lambda columns: len(named & {*columns}), default=sorted(named))
    columns = [column for column in leading if column in named]
    splits = list(dict.fromkeys(key.split("/")[0] for key in scores.metrics if key.split("/")[1] in columns))
    rows = [["split", *columns]]
    rows += [[split, *(interval(scores.metrics.get(f"{split}/{column}")) for column in columns)] for split in splits]
    dimensions = sorted({key.split("/")[2] for key in scores.metrics if key.count("/") == 2})
    by_dimension = [[columns[0], *dimensions]]
    by_dimension += [
        [split, *(interval(scores.metrics.get(f"{split}/{columns[0]}/{d}")) for d in dimensions)]
        for split in splits
        if any(f"{split}/{columns[0]}/{d}" in scores.metrics for d in dimensions)
    ]
    shown = {f"{split}/{column}" for split in splits for column in columns}
    controls = [["other metrics", "value"]]
    controls += [
        [key, interval(estimate)]
        for key, estimate in scores.metrics.items()
        if key not in shown and key.count("/") == 1 and not (key.endswith("/cut") and not estimate.value)
    ]
    tables = [rows, by_dimension if dimensions else [], controls, _movements(scores, splits, dimensions)]
    return "\n" + "\n\n".join(format_table(table) for table in tables if table[1:])


def curve_table(scores: Scores) -> str:
    """Of best-of-N a column for every N: the leading metric of each split, and below, the mean reward."""
    tables = []
    for metric in (next(iter(scores.metrics)).split("/")[1], "reward"):
        cells = {key.removesuffix(f"/{metric}"): e for key, e in scores.metrics.items() if key.endswith(f"/{metric}")}
        splits = list(dict.fromkeys(place.rpartition("@")[0] for place in cells))
        sizes = list(dict.fromkeys(place.rpartition("@")[2] for place in cells))
        rows = [[metric, *(f"best of {size}" for size in sizes)]]
        rows += [[split, *(interval(cells.get(f"{split}@{size}")) for size in sizes)] for split in splits]
        tables.append(format_table(rows))
    return "\n" + "\n\n".join(tables)


def _movements(scores: Scores, splits: Sequence[str], dimensions: Sequence[str]) -> list[list[str]]:
    """A row for what a control asked for, and in it how much each dimension moved."""
    rows = [["asked for against moved", *dimensions]]
    for split in splits:
        keys = [key.split("/") for key in scores.metrics if key.startswith(f"{split}/moved_")]
        for metric in dict.fromkeys(metric for _, metric, _ in keys):
            cells = [interval(scores.metrics.get(f"{split}/{metric}/{dimension}")) for dimension in dimensions]
            rows.append([f"{split} {metric.removeprefix('moved_')}", *cells])
    return rows


def sources_table(summary: Mapping[str, Any], sources: Sequence[str]) -> str:
    """A row for each source: how many were read, and what became of them by reason; below, what they share."""
    counts = {source: _below(summary, source) for source in sources}
    reasons = list(dict.fromkeys(reason for row in counts.values() for reason in row))
    rows = [["source", *(reason.replace("_", " ") for reason in reasons)]]
    rows += [[source, *(str(row.get(reason, 0)) for reason in reasons)] for source, row in counts.items()]
    others = [[key, str(value)] for key, value in summary.items() if value and key.startswith(("training/", "shared/"))]
    return "\n" + "\n\n".join(format_table(table) for table in (rows, others) if table)


def _below(summary: Mapping[str, Any], name: str) -> dict[str, int]:
    return {key.removeprefix(f"{name}/"): value for key, value in summary.items() if key.startswith(f"{name}/")}


def interval(estimate: Estimate | None) -> str:
    """A value with its interval, short; nothing where it was not measured."""
    if estimate is None:
        return ""
    if estimate.value is None:
        return "unscored"
    return f"{estimate.value:.3f} [{estimate.low:.2f}, {estimate.high:.2f}]"


def number(value: Any) -> str:
    """Four digits of a float; anything else as it is, None as nothing."""
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _grouped(value: Any) -> str:
    """Thousands apart, because a plan's counts are long."""
    return f"{value:,}" if isinstance(value, int) else number(value)


def format_table(rows: list[list[str]]) -> str:
    """Columns aligned, the first to the left and the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    )
