"""What the root apps do with a composed config: build, run, report, and turn known errors into a message and a code."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from multifaceted.config import EVALUATE_AFTER, TARGET, ConfigError, build, prepare_overrides, run_name, to_plain
from multifaceted.dry_run import show_plan, show_preview
from multifaceted.logs import log_to
from multifaceted.record_files import write_json
from multifaceted.records import FAILURE, POLICY, PREVIEW, VERSION
from multifaceted.tables import curve_table, score_table, sources_table, summary_table

if TYPE_CHECKING:
    from multifaceted.evaluation.config import EvalConfig
    from multifaceted.training.config import TrainConfig
    from multifaceted.training.run import Outcome

log = logging.getLogger("multifaceted")
for _name in ("torchao", "torch.utils._pytree"):
    # transformers imports torchao where it is installed, which then warns of kernels that nothing here uses.
    logging.getLogger(_name).setLevel(logging.ERROR)

OK, FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 130


def train(config: DictConfig) -> int:
    """`train.py`: returns the exit code."""
    from multifaceted.training.config import TrainConfig
    from multifaceted.training.ranks import launched_externally
    from multifaceted.training.run import run

    if launched_externally() and (_in_sweep() or config[EVALUATE_AFTER] is not None):
        # Ranks that fail alone would wait for each other from different jobs.
        print(
            f"error: a sweep and {EVALUATE_AFTER} start their own ranks; leave torchrun or srun out"
            " and set trainer.devices",
            file=sys.stderr,
        )
        sys.exit(REFUSED)

    def stage() -> int:
        typed = build(config, TrainConfig)
        if typed.push_to_hub is not None and _in_sweep():
            raise ConfigError(
                f"push_to_hub={typed.push_to_hub}: the jobs of a sweep would replace each other; leave it out, and"
                " push the run that you choose with the command of its job"
            )
        if typed.plan.enabled or typed.preview is not None:
            return _look(typed)
        folder = _run_folder(typed.paths.outputs)
        if _in_sweep():
            (folder / FAILURE).unlink(missing_ok=True)
        next_stage = _evaluation_of(
            folder / typed.export_name, config[EVALUATE_AFTER], writes=not typed.has_reward_head
        )
        log_to(folder)
        if typed.num_devices > 1 and not launched_externally():
            outcome = _run_on_ranks(typed.num_devices, to_plain(typed), list(config.trust), folder)
        else:
            outcome = run(typed, to_plain(typed), folder)
        return _finish(outcome, next_stage, typed.data.source.bench)

    return _guarded(stage)


def _look(config: TrainConfig) -> int:
    """Show what there is to say about a run before it is trained."""
    log_to(None)
    if config.plan.enabled:
        show_plan(config)
    if config.preview is not None:
        show_preview(config, config.paths.outputs / PREVIEW / run_name(list(HydraConfig.get().overrides.task)))
    return OK


def _evaluation_of(policy: Path, wanted: Any, *, writes: bool) -> EvalConfig | None:
    """What `evaluate_after` asks for: a task's name, or a list of overrides of `eval.py`; refused before training."""
    if wanted is None:
        return None
    from multifaceted.evaluation.config import EvalConfig
    from multifaceted.evaluation.reward_accuracy import RewardAccuracy

    overrides = [f"task={wanted}"] if isinstance(wanted, str) else [str(override) for override in wanted]
    evaluation = build(compose("eval", [f"policy={_quoted(policy)}", *prepare_overrides(overrides)]), EvalConfig)
    if isinstance(evaluation.task, RewardAccuracy) is writes:
        other = "a policy gives no rewards" if writes else "a reward model writes no text; set it to reward_accuracy"
        raise ConfigError(f"{EVALUATE_AFTER}={wanted!r}: {other}, or leave it out")
    return evaluation


def _quoted(path: Path) -> str:
    """A path as Hydra's grammar takes it, whatever it holds."""
    escaped = str(path).replace("'", "\\'")
    return f"'{escaped}'"


def _finish(outcome: Outcome, next_stage: EvalConfig | None, bench: str | None) -> int:
    """Say how a run ended, and evaluate it where that was asked for."""
    if not outcome.is_first_rank:
        return OK if outcome.interrupted_by is None else 128 + int(outcome.interrupted_by)
    shown = _relative(outcome.folder)
    if outcome.interrupted_by is not None:
        print(f"\nStopped by {outcome.interrupted_by.name}; {shown} holds the state. The same command continues.")
        return 128 + int(outcome.interrupted_by)
    if outcome.was_finished:
        print(f"{shown} is finished; overwrite=true starts it anew.")
    print(summary_table(outcome.summary))
    if outcome.pushed is not None:
        print(f"\n{_relative(outcome.exported)} is also at {outcome.pushed}")
    if next_stage is not None:
        return _evaluate(next_stage)
    print(f"\n{_relative(outcome.exported)} is ready. Next: {_next_command(outcome.exported, bench)}")
    return OK


def _run_on_ranks(num_ranks: int, plain: dict[str, Any], trust: list[str], folder: Path) -> Any:
    """Train on several ranks of this machine; they read the composed config instead of composing it again."""
    from multifaceted.training.launch import launch

    return launch(num_ranks, _rank, plain, trust, folder)


def _rank(plain: dict[str, Any], trust: list[str], folder: Path) -> Any:
    """What a launched rank does."""
    from multifaceted.training.config import TrainConfig
    from multifaceted.training.run import run

    log_to(folder)
    typed = build({key: value for key, value in plain.items() if key != TARGET} | {"trust": trust}, TrainConfig)
    return run(typed, plain, folder)


def evaluate(config: DictConfig) -> int:
    """`eval.py`: returns the exit code."""
    from multifaceted.evaluation.config import EvalConfig

    def stage() -> int:
        typed = build(config, EvalConfig)
        log_to(None)
        return _evaluate(typed)

    return _guarded(stage)


def synthesize(config: DictConfig) -> int:
    """`synthesize.py`: returns the exit code."""
    from multifaceted.synthesis.run import SynthesizeConfig, run

    def stage() -> int:
        typed = build(config, SynthesizeConfig)
        log_to(None)
        summary = run(typed)
        print(sources_table(summary, typed.task.sources))
        print(f"\n{summary['chosen']} instructions and their counts are in {_relative(typed.folder)}")
        return OK

    return _guarded(stage)


def _evaluate(config: EvalConfig) -> int:
    from multifaceted.evaluation.inspect_log import write_inspect_log
    from multifaceted.evaluation.run import run
    from multifaceted.evaluation.tracking import track

    plain = to_plain(config)
    scores = run(config, plain)
    if config.inspect_log:
        write_inspect_log(config.folder)
    if config.logger is not None:
        track(config.logger, config.folder, scores, plain)
    print(score_table(scores) if config.best_of is None else curve_table(scores))
    print(f"\nWhat was asked, answered and found is in {_relative(config.folder)}")
    return OK


def leave(code: int) -> None:
    """End the process with its exit code. A failed job does not end the sweep it belongs to; a signal does."""
    if code and (code > 128 or not _in_sweep()):
        sys.exit(code)


def _in_sweep() -> bool:
    return HydraConfig.initialized() and HydraConfig.get().mode is RunMode.MULTIRUN


def _run_folder(outputs: Path) -> Path:
    """Where this run lives: below `outputs` by its name, or where a sweep puts its job."""
    hydra = HydraConfig.get()
    if _in_sweep():
        return Path(hydra.runtime.output_dir)
    return outputs / run_name(list(hydra.overrides.task))


def _guarded(stage: Callable[[], int]) -> int:
    """Run a stage; an error that the user can mend becomes one message without a traceback, and so does any in a sweep.

    Other errors are bugs and keep their traceback; in a sweep it goes to the job's log.
    """
    try:
        return stage()
    except ConfigError as error:
        return _failed(f"config error: {error}", REFUSED)
    except (ValueError, OSError) as error:
        return _failed(f"error: {error}", REFUSED)
    except KeyboardInterrupt:
        print("\nInterrupted. What was saved is kept; the same command continues.", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if type(error).__module__.startswith("multifaceted"):
            return _failed(f"error: {error}", FAILED)
        if _in_sweep():
            return _failed(f"error: {type(error).__name__}: {error}", FAILED)
        raise


def _failed(message: str, code: int) -> int:
    """Say why a stage failed, a rank other than the first with its number; in a sweep also to the table at its end."""
    log.debug("failed", exc_info=True)
    rank = int(os.environ.get("RANK", "0"))
    print(f"rank {rank}: {message}" if rank else message, file=sys.stderr)
    if _in_sweep():
        record = {"version": VERSION, "code": code, "error": message}
        write_json(Path(HydraConfig.get().runtime.output_dir) / FAILURE, record)
    return code


def _relative(path: Path) -> Path:
    return Path(os.path.relpath(path)) if path.is_absolute() and path.is_relative_to(Path.cwd()) else path


def _next_command(exported: Path, bench: str | None) -> str:
    path = _relative(exported)
    if exported.name != POLICY:
        return f"python eval.py policy={path} task=reward_accuracy"
    return f"python eval.py policy={path} task={bench}" if bench else f"transformers serve {path} (docs/serving.md)"
