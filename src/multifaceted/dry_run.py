"""What `train.py` does instead of training: show what a run would need, or what it would learn from."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from multifaceted.records import LENGTHS, REPORT
from multifaceted.tables import plan_table, report_tables

if TYPE_CHECKING:
    from multifaceted.training.config import TrainConfig


def show_plan(config: TrainConfig) -> None:
    """Print what a run would need.

    Raises:
        ValueError: it cannot fit; says what does.
    """
    from multifaceted.training.plan import plan

    planned = plan(config)
    print(plan_table(planned.sections))
    if planned.refusal is not None:
        raise ValueError(planned.refusal)


def show_preview(config: TrainConfig, folder: Path) -> None:
    """Print examples as the model sees them and a report of the data, which is kept in `folder`.

    Raises:
        ValueError: the run would stop at a bad row; all is printed before.
    """
    from multifaceted.training.preview import preview

    has_colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    width = max(60, min(120, shutil.get_terminal_size((100, 24)).columns))
    found = preview(config, folder, colour=has_colours, width=width)
    _print("\n\n".join(["", *found.shown, report_tables(found.report, bar="█" if has_colours else "#")]))
    report, figure = (os.path.relpath(folder / name) for name in (REPORT, LENGTHS))
    print(f"\nThe report is in {report}, a figure of the lengths in {figure}")
    if found.refusal is not None:
        raise ValueError(found.refusal)


def _print(text: str) -> None:
    """Print a text that may hold characters which the terminal has not."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding))
