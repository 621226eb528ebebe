"""The one table, from the JSON files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures import FIGURES

UNMEASURED = "unmeasured"


def read_results(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """The results of several machines."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def render(results: Sequence[dict[str, Any]]) -> str:
    """Figures of all machines, then what was measured on each, in Markdown."""
    parts = ["## Figures", _figures(results)]
    for result in results:
        known = ", ".join(f"{name} {version}" for name, version in result["versions"].items() if version)
        parts += [f"## {result['hardware']}", f"Commit {result['commit'][:20]}; {known}.", _rows(result)]
        if result.get("searches"):
            parts += ["Settings of TRL that were searched:", _searches(result)]
        if result.get("checks"):
            parts += ["Both systems do the same work:", _checks(result)]
    return "\n\n".join(parts)


def _figures(results: Sequence[dict[str, Any]]) -> str:
    measured: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for result in results:
        for figure in result.get("figures", []):
            measured.setdefault(figure["figure"], []).append((result["hardware"], figure))
    lines = []
    for key, figure in FIGURES.items():
        entries = measured.get(key)
        if not entries:
            lines.append([figure.what, figure.asked, UNMEASURED, "", "GPU" if figure.on_gpu else "CPU"])
            continue
        for hardware, entry in entries:
            reached = {True: "yes", False: "**no**", None: ""}[entry["reached"]]
            lines.append([figure.what, figure.asked, _spread(entry["value"]), reached, hardware])
    return _table(["what", "asked", "measured [low, high]", "reached", "machine"], lines)


def _rows(result: dict[str, Any]) -> str:
    lines = []
    for row in result["rows"]:
        rate = row["examples_per_second"]
        error = (row.get("error") or "").split("\n")[0]
        lines.append(
            [
                row["workload"],
                row["system"],
                _spread(rate) if rate else f"skipped: {error}",
                _number(row["peak_memory_gb"]),
                _number(row.get("peak_memory_beyond_imports_gb")),
                str(row.get("repeats", "")),
                _settings(row["settings"]) + (f"; {error}" if rate and error else ""),
            ]
        )
    header = ["workload", "system", "examples/s [low, high]", "peak GB", "beyond imports", "repeats", "settings"]
    return _table(header, lines)


def _searches(result: dict[str, Any]) -> str:
    lines = [
        [
            row["workload"],
            _settings(row["settings"]),
            _number(row["examples_per_second"]) or f"failed: {row['error']}",
            _number(row["peak_memory_gb"]),
        ]
        for row in result["searches"]
    ]
    return _table(["workload", "settings", "examples/s", "peak GB"], lines)


def _checks(result: dict[str, Any]) -> str:
    lines = [
        [check["what"], *(", ".join(f"{loss:.6f}" for loss in check[system]) for system in ("ours", "trl"))]
        for check in result["checks"]
    ]
    return _table(["what", "ours", "TRL"], lines)


def _settings(settings: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in settings.items())


def _spread(value: dict[str, float]) -> str:
    if value["low"] == value["high"]:
        return _number(value["median"])
    return f"{_number(value['median'])} [{_number(value['low'])}, {_number(value['high'])}]"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)
