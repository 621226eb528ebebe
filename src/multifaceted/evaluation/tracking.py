"""An evaluation in Weights & Biases: its figures by their keys in `scores.json`, and two tables."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from multifaceted.evaluation.results import Result, read_results
from multifaceted.record_files import read_json
from multifaceted.records import POLICY, REWARD_MODEL, RUN, Scores
from multifaceted.tracking import Wandb

SUMMARY_COLUMNS = ("split", "metric", "dimension", "value", "low", "high", "n", "unscored")
ABOUT = ("id", "split", "system", "instruction", "response", "cut")
TURN = "\n\n---\n\n"
"""Between what the user says first and later, and between the answers."""
Row = list[Any]


def track(logger: Wandb, folder: Path, scores: Scores, config: dict[str, Any]) -> None:
    """Log what an evaluation's folder holds; the same folder continues the same run.

    Logged are `eval/<task>/<split>/<metric>[/<dimension>]`, a table `summary` of the metrics with their intervals, and
    a table `responses`: a row a verdict, with the prompt and the response it is about.

    Args:
        config: of the evaluation, as plain data.
    """
    policy = scores.policy
    identity = hashlib.sha256(f"{scores.task} {policy['fingerprint']} {folder}".encode()).hexdigest()[:8]
    run = logger.start(
        folder, f"{_shown(policy['path'])} {scores.task}", identity, config | _made_by(Path(policy["path"])), job="eval"
    )
    if run is None:
        return
    import wandb

    with run:
        figures = {f"eval/{scores.task}/{key}": estimate.value for key, estimate in scores.metrics.items()}
        run.log({key: value for key, value in figures.items() if value is not None})
        tables = {"summary": (list(SUMMARY_COLUMNS), summary_rows(scores))}
        if results := read_results(folder):
            tables["responses"] = response_table(results)
        for name, (columns, rows) in tables.items():
            run.log({f"eval/{scores.task}/{name}": wandb.Table(columns=columns, data=rows, allow_mixed_types=True)})


def _shown(path: str) -> str:
    """What a policy is called: by the run that exported it, or as whoever serves or published it calls it.

    >>> _shown("outputs/orpo/policy"), _shown("mistralai/Mistral-7B-Instruct-v0.2")
    ('orpo', 'mistralai/Mistral-7B-Instruct-v0.2')
    """
    exported = Path(path).name in (POLICY, REWARD_MODEL)
    return Path(path).parent.name if exported and Path(path).parent.name else path


def _made_by(policy: Path) -> dict[str, str]:
    """The run that trained a policy, where its folder says."""
    record = policy.parent / RUN
    trained = read_json(record).get("wandb_id") if record.exists() else None
    return {} if trained is None else {"trained_by": trained}


def summary_rows(scores: Scores) -> list[Row]:
    """A row a metric, by `SUMMARY_COLUMNS`."""
    rows = []
    for key, estimate in scores.metrics.items():
        split, metric, dimension = (*key.split("/", 2), "")[:3]
        rows.append(
            [split, metric, dimension, estimate.value, estimate.low, estimate.high, estimate.n, estimate.unscored]
        )
    return rows


def response_table(results: Sequence[Result]) -> tuple[list[str], list[Row]]:
    """A row a verdict, with what it is about; a row a response of which nothing was said.

    Returns:
        The columns, `ABOUT` and then every field of a verdict, and the rows.
    """
    known = {"id", "split", "version"}
    fields = dict.fromkeys(name for result in results for v in result.verdicts for name in v if name not in known)
    rows: list[Row] = []
    for result in results:
        prompt, response = result.prompt, result.response
        asked = TURN.join([prompt.instruction, *prompt.follow_ups])
        answered = ["", False] if response is None else [TURN.join(response.turns), not response.finished]
        about = [prompt.id, prompt.split, prompt.system or "", asked, *answered]
        rows += [[*about, *(_cell(verdict.get(name)) for name in fields)] for verdict in result.verdicts or ({},)]
    return [*ABOUT, *fields], rows


def _cell(value: Any) -> Any:
    """A value as a table takes it in a column of one type."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(str, value))
    return str(value) if isinstance(value, dict) else value
