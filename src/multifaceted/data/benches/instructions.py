"""Benches of instructions whose rows need little: AlpacaEval, FLASK, Koala, Self-Instruct."""

from __future__ import annotations

from collections.abc import Iterator

from multifaceted.data.bad_rows import BadRowError, BadRows
from multifaceted.data.benches.base import Found, rows_of
from multifaceted.data.benches.cells import Cells, content_id
from multifaceted.data.locations import Location
from multifaceted.data.text_files import Row
from multifaceted.records import Prompt


def alpaca_eval(cells: Cells, row: Row) -> Prompt:
    """A row of AlpacaEval: `instruction`, `dataset`, and the baseline's `output` and `generator` where they are there.

    Metadata: `index`, the place in the official order, by which published difficulties go (the column of that name,
    or the place in the file); `dataset`, the sub-source; `baseline`, `{"output", "generator"}` or None.
    """
    instruction = cells.text("instruction")
    output, generator = cells.optional_text("output"), cells.optional_text("generator")
    return Prompt(
        id=content_id(instruction),
        split="alpaca_eval",
        system=None,
        instruction=instruction,
        metadata={
            "index": cells.whole("index", below=10**6) if cells.any("index") is not None else row.number - 1,
            "dataset": cells.optional_text("dataset"),
            "baseline": None if output is None else {"output": output, "generator": generator},
        },
    )


def flask(cells: Cells, row: Row) -> Prompt:
    """A row of FLASK, in either of its layouts.

    `idx, instruction, answer, task, skill, domain, difficulty`, or as first released `question_id, text, answer, task,
    metrics, domain_labeled, difficulty_labeled`.

    Metadata: `reference_answer`, `task` (the sub-source), `skills` and `domains` (lists), `difficulty`.
    """
    return Prompt(
        id=cells.label("idx", "question_id"),
        split="flask",
        system=None,
        instruction=cells.text("instruction", "text"),
        metadata={
            "reference_answer": cells.optional_text("answer"),
            "task": cells.optional_text("task"),
            "skills": cells.texts("skill", "metrics"),
            "domains": cells.texts("domain", "domain_labeled"),
            "difficulty": cells.optional_text("difficulty", "difficulty_labeled"),
        },
    )


def koala(cells: Cells, row: Row) -> Prompt:
    """A row of the Koala test set: `id, prompt`. No metadata."""
    return Prompt(id=cells.label("id"), split="koala", system=None, instruction=cells.text("prompt"))


def self_instruct(path: Location, bad: BadRows, key: str) -> Iterator[Found]:
    """Read the user-oriented tasks of Self-Instruct: `id, instruction, instances[{input, output}], motivation_app`.

    An instance is a prompt: the instruction and, on a line of its own, the input where there is one. An instance that
    cannot be read is a bad row of its own; so is a task without instances.

    Metadata: `reference_answer`, the instance's output; `application`, what the task was thought of for.
    """
    for row in rows_of(path, bad, key):
        with bad.row(row.where):
            cells = Cells.of(row.value)
            instances = cells.items("instances")
            task, instruction = cells.label("id"), cells.text("instruction", if_empty="empty_prompt")
            application = cells.optional_text("motivation_app")
            if not instances:
                raise BadRowError("missing_column", "instances holds none")
            for number, value in enumerate(instances):
                where = f"{row.where}, instance {number + 1}"
                with bad.row(where):
                    instance = Cells.of(value, "an instance")
                    prompt = Prompt(
                        id=task if len(instances) == 1 else f"{task}_{number}",
                        split="self_instruct",
                        system=None,
                        instruction="\n".join(filter(None, [instruction, instance.optional_text("input")])),
                        metadata={
                            "reference_answer": instance.optional_text("output"),
                            "application": application,
                        },
                    )
                    yield Found(where, prompt)
