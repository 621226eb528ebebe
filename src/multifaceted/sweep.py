"""What a sweep tells at its end: which jobs passed, which failed and why, and what each scored.

A job that fails leaves `failure.json` in its folder instead of ending the sweep. The table is read from records alone,
so the jobs that a repeated sweep finds finished are in it too.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from multifaceted.record_files import read_json, write_json
from multifaceted.records import FAILURE, SCORES, SUMMARY, SWEEP, VERSION
from multifaceted.tables import format_table, number

FAILED = 1


class SweepReport(Callback):
    """Counts the jobs while they run; at the end prints a table, writes `sweep.json`, and exits 1 if any job failed.

    Args:
        columns: metrics of `summary.json` and `scores.json` to show; one that no job has is left out.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        self.columns = list(columns)
        self.jobs: list[tuple[Path, float]] = []
        self.started = 0.0

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Say which job begins."""
        self.started = time.monotonic()
        if "num" in config.hydra.job:
            print(f"\n── job {config.hydra.job.num}: {Path(config.hydra.runtime.output_dir).name}", flush=True)

    def on_job_end(self, config: DictConfig, job_return: Any, **kwargs: Any) -> None:
        """Note where the job's records are, and how long it took."""
        self.jobs.append((Path(config.hydra.runtime.output_dir), time.monotonic() - self.started))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print the table."""
        rows = [job_record(folder, seconds) for folder, seconds in self.jobs]
        folder = Path(config.hydra.sweep.dir)
        write_json(folder / SWEEP, {"version": VERSION, "jobs": rows})
        print(sweep_table(rows, self.columns))
        failed = [row["job"] for row in rows if row["state"] == "failed"]
        if failed:
            print(f"\n{len(failed)} of {len(rows)} jobs failed; the same command runs only what is missing.")
            sys.exit(FAILED)
        print(f"\n{len(rows)} jobs are in {folder}")


def job_record(folder: Path, seconds: float) -> dict[str, Any]:
    """State, error, metrics and wall time of a job."""
    record: dict[str, Any] = {"job": folder.name, "folder": str(folder), "state": "failed", "error": None}
    metrics: dict[str, Any] = {}
    if (folder / SUMMARY).exists():
        metrics |= read_json(folder / SUMMARY)
        record["state"] = "passed"
    for path in sorted(folder.glob(f"eval/*/{SCORES}")):
        metrics |= {name: estimate["value"] for name, estimate in read_json(path)["metrics"].items()}
    if (folder / FAILURE).exists():
        record |= {"state": "failed", "error": read_json(folder / FAILURE)["error"]}
    return {**record, "seconds": seconds, "metrics": metrics}


def sweep_table(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> str:
    """One line a job; below, why jobs failed."""
    shown = [column for column in columns if any(column in row["metrics"] for row in rows)]
    names = [column.split("/")[-1] if column.count("/") > 1 else column for column in shown]
    table = [["job", "state", *names, "seconds"]]
    table += [
        [row["job"], row["state"], *(number(row["metrics"].get(c)) for c in shown), f"{row['seconds']:.0f}"]
        for row in rows
    ]
    reasons = [f"{row['job']}: {row['error']}" for row in rows if row["error"]]
    return "\n\n".join(["\n" + format_table(table), *reasons])
