"""Where messages go: the terminal, and the log file of a run."""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path

from multifaceted.records import LOG


class RunLog(logging.FileHandler):
    """The log file of a run, with tracebacks; silent until the run has its folder."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record."""
        if Path(self.baseFilename).parent.is_dir():
            super().emit(record)


def log_to(folder: Path | None) -> None:
    """Log to the terminal and, where there is a run folder, to its log file; libraries say warnings of weight only."""
    warnings.filterwarnings("ignore", module=r"lightning\..*|torch\..*|transformers\..*")
    if "transformers" in sys.modules:  # an app that has not imported it by now does not use it
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
    root = logging.getLogger()
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stdout)]
    if folder is not None:
        handlers.append(RunLog(folder / LOG, encoding="utf-8", delay=True))
    handlers[0].setLevel(logging.INFO)
    root.handlers = handlers
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(message)s"))
    root.setLevel(logging.WARNING)
    logging.getLogger("multifaceted").setLevel(logging.DEBUG)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
