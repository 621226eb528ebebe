"""Tables for the terminal, made from records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from multifaceted.records import Estimate, Scores


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


def score_table(scores: Scores) -> str:
    """One row a split; the controls below."""
    columns = ("adherence", "all_satisfied", "on_topic", "well_formed", "all_good", "chance")
    splits = list(dict.fromkeys(key.split("/")[0] for key in scores.metrics))
    rows = [["split", *columns]]
    rows += [[split, *(interval(scores.metrics.get(f"{split}/{column}")) for column in columns)] for split in splits]
    dimensions = sorted({key.split("/")[2] for key in scores.metrics if key.count("/") == 2})
    by_dimension = [["adherence", *dimensions]]
    by_dimension += [
        [split, *(interval(scores.metrics.get(f"{split}/adherence/{d}")) for d in dimensions)] for split in splits
    ]
    shown = {f"{split}/{column}" for split in splits for column in columns}
    controls = [["control", "value"]]
    controls += [[k, interval(v)] for k, v in scores.metrics.items() if k not in shown and k.count("/") == 1]
    return "\n" + "\n\n".join(format_table(table) for table in (rows, by_dimension, controls))


def sources_table(summary: Mapping[str, int], sources: Sequence[str]) -> str:
    """A row for each source: how many were read, and what became of them by reason; below, what they share."""
    counts = {source: _below(summary, source) for source in sources}
    reasons = list(dict.fromkeys(reason for row in counts.values() for reason in row))
    rows = [["source", *(reason.replace("_", " ") for reason in reasons)]]
    rows += [[source, *(str(row.get(reason, 0)) for reason in reasons)] for source, row in counts.items()]
    others = [[key, str(value)] for key, value in summary.items() if value and key.startswith(("training/", "shared/"))]
    return "\n" + "\n\n".join(format_table(table) for table in (rows, others) if table)


def _below(summary: Mapping[str, int], name: str) -> dict[str, int]:
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
