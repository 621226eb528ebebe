"""The results of one machine: `results/<hardware>.json`, written anew after every stage."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.figures import FIGURES, spread
from benchmarks.process import ROOT, Result

VERSION = 1
RESULTS = Path(__file__).parent / "results"
PACKAGES = (
    "torch",
    "transformers",
    "lightning",
    "trl",
    "accelerate",
    "liger-kernel",
    "torchao",
    "datasets",
    "rensa",
    "rapidfuzz",
    "openai",
)


class Record:
    """Rows of what was measured, and figures that compare them.

    Args:
        add: to what the file already holds, measured at the same commit with the same versions.
    """

    def __init__(self, folder: Path, device: str, suffix: str = "", *, add: bool = False) -> None:
        self.hardware = hardware(device)
        self.path = folder / f"{re.sub(r'[^A-Za-z0-9]+', '-', self.hardware).strip('-').lower()}{suffix}.json"
        facts = {"version": VERSION, "hardware": self.hardware, "versions": versions(), "commit": commit()}
        self.content: dict[str, Any] = {**facts, "rows": [], "figures": [], "searches": [], "checks": []}
        if add and self.path.exists():
            found = json.loads(self.path.read_text(encoding="utf-8"))
            if any(found.get(key) != value for key, value in facts.items()):
                raise ValueError(f"{self.path} was measured at another commit or with other versions: measure all anew")
            self.content = found

    def put(self, kind: str, identity: Sequence[str], entry: dict[str, Any]) -> None:
        """Add an entry, in place of one that is equal in the keys of `identity`."""
        kept = [old for old in self.content[kind] if any(old[key] != entry[key] for key in identity)]
        self.content[kind] = [*kept, entry]

    def save(self) -> None:
        """Write the file; what stood in it before is gone."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(self.content, indent=1) + "\n", encoding="utf-8")
        partial.replace(self.path)

    def row(self, workload: str, result: Result, seconds: Sequence[float] | None = None) -> None:
        """Add what a system did on a workload, or why it did not.

        Args:
            seconds: of each repeat, where they are not those of the training steps alone.
        """
        facts = result.facts
        taken = result.seconds if seconds is None else seconds
        self.put(
            "rows",
            ("workload", "system"),
            {
                "workload": workload,
                "system": result.job.system,
                "examples_per_second": spread([result.job.examples / s for s in taken]) if taken else None,
                "peak_memory_gb": facts.get("peak_gb"),
                "peak_memory_beyond_imports_gb": beyond_imports(facts),
                "settings": {"step_examples": result.job.step_examples, **result.job.settings},
                "repeats": len(taken),
                "error": result.error,
            },
        )

    def skipped(self, workload: str, system: str, reason: str) -> None:
        """Add a row of a system that was not measured."""
        unknown = dict.fromkeys(("examples_per_second", "peak_memory_gb", "peak_memory_beyond_imports_gb"))
        names = {"workload": workload, "system": system}
        row: dict[str, Any] = {**names, **unknown, "settings": {}, "repeats": 0, "error": reason}
        self.put("rows", ("workload", "system"), row)

    def figure(self, key: str, values: Sequence[float]) -> None:
        """Judge a figure; one that could not be measured is left out."""
        if values:
            self.put("figures", ("figure",), FIGURES[key].judge(values))

    def check(self, what: str, ours: list[float], theirs: list[float]) -> None:
        """Add the losses of the first steps of both systems, to show that they do the same work."""
        self.put("checks", ("what",), {"what": what, "ours": ours, "trl": theirs})


def beyond_imports(facts: dict[str, Any]) -> float | None:
    """Peak memory without what the process held before it built a model."""
    return facts["peak_gb"] - facts["imports_gb"] if "peak_gb" in facts else None


def hardware(device: str) -> str:
    """The machine in words: a GPU's name, or a processor's with its cores."""
    if device == "cuda":
        command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader", "--id=0"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = re.findall(r"model name\s*:\s*(.+)", info)
    return f"{names[0] if names else platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} cores"


def versions() -> dict[str, str | None]:
    """Of Python and of the packages that matter; None where one is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def commit() -> str:
    """The commit that was measured, with "+changes" where files differ from it; the date without git."""
    try:
        head, changed = (
            subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.CalledProcessError):
        return f"unknown, {time.strftime('%Y-%m-%d')}"
    return head + ("+changes" if changed else "")
