"""What the root apps do with a composed config: build, run, report, and turn known errors into a message and a code."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from multifaceted.config import TARGET, ConfigError, build, run_name, to_plain
from multifaceted.records import LOG, Estimate, Scores

log = logging.getLogger("multifaceted")

OK, FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 130


def train(config: DictConfig) -> int:
    """`train.py`: returns the exit code."""
    from multifaceted.training.config import TrainConfig
    from multifaceted.training.ranks import launched_externally
    from multifaceted.training.run import Outcome, run

    def stage() -> int:
        typed = build(config, TrainConfig)
        folder = _run_folder(typed.paths.outputs)
        _log_to(folder)
        if typed.num_devices > 1 and not launched_externally():
            outcome = _run_on_ranks(typed.num_devices, to_plain(typed), folder)
        else:
            outcome = run(typed, to_plain(typed), folder)
        return _report(outcome)

    def _report(outcome: Outcome) -> int:
        if not outcome.is_first_rank:
            return OK if outcome.interrupted_by is None else 128 + int(outcome.interrupted_by)
        shown = _relative(outcome.folder)
        if outcome.interrupted_by is not None:
            print(f"\nStopped by {outcome.interrupted_by.name}; {shown} holds the state. The same command continues.")
            return 128 + int(outcome.interrupted_by)
        if outcome.was_finished:
            print(f"{shown} is finished; overwrite=true starts it anew.")
        print(_summary_table(outcome.summary))
        print(f"\n{_relative(outcome.exported)} is ready. Next: {_next_command(outcome.exported)}")
        return OK

    return _guarded(stage)


def _run_on_ranks(num_ranks: int, plain: dict[str, Any], folder: Path) -> Any:
    """Train on several ranks of this machine; they read the composed config instead of composing it again."""
    from multifaceted.training.launch import launch

    return launch(num_ranks, _rank, plain, folder)


def _rank(plain: dict[str, Any], folder: Path) -> Any:
    """What a launched rank does."""
    from multifaceted.training.config import TrainConfig
    from multifaceted.training.run import run

    _log_to(folder)
    typed = build({key: value for key, value in plain.items() if key != TARGET}, TrainConfig)
    return run(typed, plain, folder)


def evaluate(config: DictConfig) -> int:
    """`eval.py`: returns the exit code."""
    from multifaceted.evaluation.run import EvalConfig, run

    def stage() -> int:
        typed = build(config, EvalConfig)
        _log_to(None)
        scores = run(typed, to_plain(typed))
        print(_score_table(scores))
        print(f"\nResponses, verdicts and scores are in {_relative(typed.folder)}")
        return OK

    return _guarded(stage)


def _run_folder(outputs: Path) -> Path:
    """Where this run lives: below `outputs` by its name, or where a sweep puts its job."""
    hydra = HydraConfig.get()
    if hydra.mode is RunMode.MULTIRUN:
        return Path(hydra.runtime.output_dir)
    return outputs / run_name(list(hydra.overrides.task))


def _guarded(stage: Callable[[], int]) -> int:
    """Run a stage; an error that the user can mend becomes one message without a traceback."""
    try:
        return stage()
    except ConfigError as error:
        _complain(f"config error: {error}")
        return REFUSED
    except (ValueError, OSError) as error:
        log.debug("refused", exc_info=True)
        _complain(f"error: {error}")
        return REFUSED
    except RuntimeError as error:
        if not type(error).__module__.startswith("multifaceted"):
            raise
        log.debug("failed", exc_info=True)
        _complain(f"error: {error}")
        return FAILED
    except KeyboardInterrupt:
        print("\nInterrupted. What was saved is kept; the same command continues.", file=sys.stderr)
        return INTERRUPTED


def _complain(message: str) -> None:
    """Print an error; a rank other than the first says which it is."""
    rank = int(os.environ.get("RANK", "0"))
    print(f"rank {rank}: {message}" if rank else message, file=sys.stderr)


class RunLog(logging.FileHandler):
    """The log file of a run, with tracebacks; silent until the run has its folder."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record."""
        if Path(self.baseFilename).parent.is_dir():
            super().emit(record)


def _log_to(folder: Path | None) -> None:
    """Log to the terminal and, where there is a run folder, to its log file; libraries say warnings of weight only."""
    warnings.filterwarnings("ignore", module=r"lightning\..*|torch\..*|transformers\..*")
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
    log.setLevel(logging.DEBUG)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _relative(path: Path) -> Path:
    return Path(os.path.relpath(path)) if path.is_absolute() and path.is_relative_to(Path.cwd()) else path


def _next_command(exported: Path) -> str:
    if exported.name == "policy":
        return f"python eval.py policy={_relative(exported)} task=mini"
    return f"a reward for any text, with AutoModelForSequenceClassification.from_pretrained('{_relative(exported)}')"


def _summary_table(summary: dict[str, Any]) -> str:
    """Validation metrics with a column for each dimension, then the facts of the run."""
    metrics = {key.removeprefix("val/"): value for key, value in summary.items() if key.startswith("val/")}
    names = sorted({key.split("/")[0] for key in metrics})
    groups = sorted({key.partition("/")[2] for key in metrics} - {""})
    dimensions = [group for group in groups if "/" not in group]
    rows = [["validation", "all", *dimensions]]
    rows += [[name, *(_number(metrics.get(f"{name}/{g}" if g else name)) for g in ("", *dimensions))] for name in names]
    facts = [[key, _number(value)] for key, value in summary.items() if not key.startswith("val/")]
    return f"\n{format_table(rows)}\n\n{format_table(facts)}"


def _score_table(scores: Scores) -> str:
    """One row a split; the controls below."""
    columns = ("adherence", "all_satisfied", "on_topic", "well_formed", "all_good", "chance")
    splits = list(dict.fromkeys(key.split("/")[0] for key in scores.metrics))
    rows = [["split", *columns]]
    rows += [[split, *(_interval(scores.metrics[f"{split}/{column}"]) for column in columns)] for split in splits]
    dimensions = sorted({key.split("/")[2] for key in scores.metrics if key.count("/") == 2})
    by_dimension = [["adherence", *dimensions]]
    by_dimension += [
        [split, *(_interval(scores.metrics[f"{split}/adherence/{d}"]) for d in dimensions)] for split in splits
    ]
    shown = {f"{split}/{column}" for split in splits for column in columns}
    controls = [["control", "value"]]
    controls += [[k, _interval(v)] for k, v in scores.metrics.items() if k not in shown and k.count("/") == 1]
    return "\n" + "\n\n".join(format_table(table) for table in (rows, by_dimension, controls))


def _interval(estimate: Estimate) -> str:
    if estimate.value is None:
        return "unscored"
    return f"{estimate.value:.3f} [{estimate.low:.2f}, {estimate.high:.2f}]"


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def format_table(rows: list[list[str]]) -> str:
    """Columns aligned, the first to the left and the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    )
