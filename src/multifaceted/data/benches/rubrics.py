"""Benches that are scored from 1 to 5 against rubrics: Multifaceted-Bench and BiGGen-Bench.

Metadata of both: `reference_answer`, a text that is worth a 5; `rubrics`, a list of
`{"criteria": text, "score_descriptions": {"1": text, ..., "5": text}}`.
"""

from __future__ import annotations

from typing import Any

from multifaceted.data.bad_rows import BadRowError
from multifaceted.data.benches.cells import Cells, content_id
from multifaceted.data.text_files import Row
from multifaceted.records import Prompt, StatedPreference

SCORES = "12345"


def multifaceted_bench(cells: Cells, row: Row) -> Prompt:
    """A row of Multifaceted-Bench, as the hub has it or with the names it had before its release.

    `source, preference_set, system, prompt, reference_answer, rubrics`, or `id, user_prompt, system_prompt,
    main_source, original_source, preference, rubric`. A row without an id, as the hub's are, gets one that is
    made of its system message and prompt. Metadata also has `source`, the benchmark or sub-source of the instruction.
    """
    system, instruction = cells.text("system", "system_prompt"), cells.text("prompt", "user_prompt")
    return Prompt(
        id=content_id(system, instruction) if cells.any("id") is None else cells.label("id"),
        split="multifaceted_bench",
        system=system or None,
        instruction=instruction,
        preferences=[_preference(value) for value in cells.items("preference_set", "preference", optional=True)],
        metadata={
            "source": cells.optional_text("source", "original_source", "main_source"),
            "reference_answer": cells.text("reference_answer"),
            "rubrics": [_rubric(value) for value in _filled(cells.items("rubrics", "rubric"))],
        },
    )


def biggen_bench(cells: Cells, row: Row) -> Prompt:
    """A row of BiGGen-Bench: `id, capability, task, system_prompt, input, reference_answer, score_rubric`.

    The columns `response`, `feedback` and `score` are placeholders, and not read. Metadata also has `capability` and
    `task`; of rubrics there is one.
    """
    rubric = cells.object("score_rubric")
    described = {score: rubric.text(f"score{score}_description") for score in SCORES}
    return Prompt(
        id=cells.label("id"),
        split="biggen_bench",
        system=cells.optional_text("system_prompt"),
        instruction=cells.text("input"),
        metadata={
            "capability": cells.optional_text("capability"),
            "task": cells.optional_text("task"),
            "reference_answer": cells.text("reference_answer"),
            "rubrics": [{"criteria": rubric.text("criteria"), "score_descriptions": described}],
        },
    )


def _preference(value: Any) -> StatedPreference:
    cells = Cells.of(value, "a preference")
    names = ("dimension", "subdimension", "preference", "description")
    return StatedPreference(**{name: cells.text(name) for name in names})


def _rubric(value: Any) -> dict[str, Any]:
    rubric = Cells.of(value, "a rubric")
    descriptions = rubric.object("score_descriptions")
    return {
        "criteria": rubric.text("criteria"),
        "score_descriptions": {score: descriptions.text(score) for score in SCORES},
    }


def _filled(rubrics: list[Any]) -> list[Any]:
    if not rubrics:
        raise BadRowError("missing_column", "rubrics holds none, so nothing could be scored")
    return rubrics
