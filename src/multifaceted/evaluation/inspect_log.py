"""An evaluation in inspect_ai's log format, so that its viewer opens it: `inspect view --log-dir <folder>`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from multifaceted.evaluation.results import Result, read_results
from multifaceted.record_files import read_json
from multifaceted.records import RUN, SCORES

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog, EvalSample
    from inspect_ai.scorer import Score

INSPECT_LOG = "inspect.eval"


def require_inspect() -> None:
    """Refuse to promise a log that cannot be written.

    Raises:
        ValueError: inspect_ai is not installed.
    """
    try:
        import inspect_ai.log  # noqa: F401
    except ImportError:
        raise ValueError(
            "inspect_log=true needs inspect_ai, which is not installed: pip install --editable '.[inspect]'"
        ) from None


def write_inspect_log(folder: Path) -> Path:
    """Write `inspect.eval` beside the records of an evaluation, from them alone.

    A prompt is a sample and each verdict about its response one of the sample's scores, with the judge's text as its
    explanation. A verdict without a score is inspect_ai's unscored. Metrics are those of `scores.json`, by split.

    Raises:
        RecordError: a record is missing or broken.
    """
    from inspect_ai.log import write_eval_log

    path = folder / INSPECT_LOG
    write_eval_log(inspect_log(folder), path)
    return path


def inspect_log(folder: Path) -> EvalLog:
    """What `write_inspect_log` writes."""
    from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalMetric, EvalResults, EvalScore, EvalSpec

    run, scores = read_json(folder / RUN), read_json(folder / SCORES)
    metrics: dict[str, dict[str, EvalMetric]] = {}
    for key, estimate in scores["metrics"].items():
        if estimate["value"] is not None:
            split, _, name = key.partition("/")
            metric = EvalMetric(name=name, value=estimate["value"], metadata=estimate)
            metrics.setdefault(split, {})[name] = metric
    samples = [_sample(result) for result in read_results(folder)]
    return EvalLog(
        status="success",
        eval=EvalSpec(
            created=datetime.fromtimestamp((folder / SCORES).stat().st_mtime, UTC).isoformat(),
            task=scores["task"],
            dataset=EvalDataset(name=scores["task"], samples=len(samples)),
            model=f"multifaceted/{scores['policy']['path']}",
            config=EvalConfig(epochs=1),
            metadata={"policy": scores["policy"], "judge": run.get("judge"), "facts": run.get("facts")},
        ),
        results=EvalResults(
            total_samples=len(samples),
            completed_samples=len(samples),
            scores=[EvalScore(name=split, scorer=split, metrics=named) for split, named in metrics.items()],
        ),
        samples=samples,
    )


def _sample(result: Result) -> EvalSample:
    from inspect_ai.log import EvalSample
    from inspect_ai.model import ChatMessageAssistant, ChatMessageSystem, ChatMessageUser, ModelOutput

    prompt, response = result.prompt, result.response
    assert response is not None  # the config has refused tasks without responses
    kinds = {"system": ChatMessageSystem, "user": ChatMessageUser, "assistant": ChatMessageAssistant}
    asked = [kinds[m["role"]](content=m["content"]) for m in prompt.messages(response.turns[:-1])]
    last = ModelOutput.from_content(
        "multifaceted", response.turns[-1], stop_reason="stop" if response.finished else "max_tokens"
    )
    return EvalSample(
        id=prompt.id,
        epoch=1,
        input=asked,
        target=str(prompt.metadata.get("reference_answer", "")),
        messages=[*asked, last.message],
        output=last,
        scores={name: score for verdict in result.verdicts for name, score in _scores(verdict)},
        metadata={"split": prompt.split, "preferences": [p.preference for p in prompt.preferences]},
    )


def _scores(verdict: Mapping[str, Any]) -> Iterator[tuple[str, Score]]:
    """A judge's verdict as one score; each thing that rules say as one of its own."""
    from inspect_ai.scorer import Score

    if "judge" not in verdict:
        for name, value in verdict.items():
            if name not in ("id", "split"):
                yield name, Score(value=value if isinstance(value, bool | int | float | str) else json.dumps(value))
        return
    parts = [str(verdict[name]) for name in ("dimension", "order") if verdict.get(name)]
    if verdict.get("rubric") is not None:
        parts.insert(0, f"rubric {verdict['rubric'] + 1}")
    if verdict["prompt"] != verdict["response"]:
        parts.append(f"by {verdict['prompt']}")
    name = ", ".join([*parts, f"run {verdict['run'] + 1}", f"attempt {verdict['attempt']}"])
    about = {"judge": verdict["judge"], "asked": verdict["asked"], "empty": verdict["empty"]}
    if verdict["score"] is None:
        yield name, Score.unscored(reason="grader_failed", explanation=verdict["text"], metadata=about)
    else:
        yield name, Score(value=verdict["score"], explanation=verdict["text"], metadata=about)
