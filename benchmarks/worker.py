"""The process that measures one job: `python -m benchmarks.worker '<job>'`."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from typing import Any

from benchmarks.job import TRL, Job
from benchmarks.protocol import send


def main(line: str) -> None:
    """Do the job and tell the program, by lines of standard output, how it went."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    job = Job.from_json(line)
    from benchmarks.memory import peak_gb, reset_peak

    system: Any
    if job.task == "overlap":
        from benchmarks import data as system
    elif job.task == "calls":
        from benchmarks import calls as system
    elif job.task == "tokens":
        from benchmarks import tokens as system
    elif job.system == TRL:
        from benchmarks import peer as system
    else:
        from benchmarks import ours as system
    if job.task == "search":
        system.search(job, lambda **values: send("candidate", **values))
        send("done")
        return
    if job.task == "fill":
        send("done", **system.fill(job))
        return
    imports = peak_gb("cpu")
    reset_peak(job.device)
    facts = system.measure(job) if job.task in ("overlap", "tokens", "calls") else system.train(job)
    send("done", peak_gb=peak_gb(job.device), imports_gb=imports if job.device == "cpu" else 0.0, **facts)


if __name__ == "__main__":
    main(sys.argv[1])
