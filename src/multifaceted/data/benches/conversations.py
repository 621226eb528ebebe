"""Benches whose rows hold turns: MT-Bench and Vicuna as FastChat spells them, and Arena-Hard."""

from __future__ import annotations

from multifaceted.data.bad_rows import BadRowError
from multifaceted.data.benches.cells import Cells
from multifaceted.data.text_files import Row
from multifaceted.records import Prompt


def mt_bench(cells: Cells, row: Row) -> Prompt:
    """A row of MT-Bench: `question_id, category, turns, reference`.

    Metadata: `category`; `references`, an answer for each turn, or an empty list.
    """
    return _fastchat("mt_bench", cells)


def vicuna(cells: Cells, row: Row) -> Prompt:
    """A row of Vicuna's questions: `question_id, category, turns`. Metadata as for MT-Bench."""
    return _fastchat("vicuna", cells)


def _fastchat(name: str, cells: Cells) -> Prompt:
    instruction, *follow_ups = _turns(cells.texts("turns"))
    return Prompt(
        id=cells.label("question_id"),
        split=name,
        system=None,
        instruction=instruction,
        follow_ups=follow_ups,
        metadata={"category": cells.optional_text("category"), "references": cells.texts("reference")},
    )


def arena_hard(cells: Cells, row: Row) -> Prompt:
    """A row of Arena-Hard: `uid, prompt, category, cluster`, or in the layout of 2024 `question_id, turns[{content}]`.

    Metadata: `category`, `cluster` (the topic).
    """
    if cells.any("prompt") is not None:
        turns = [cells.text("prompt")]
    else:
        turns = _turns([Cells.of(turn, "a turn").text("content") for turn in cells.items("turns", "prompt")])
    return Prompt(
        id=cells.label("uid", "question_id"),
        split="arena_hard",
        system=None,
        instruction=turns[0],
        follow_ups=turns[1:],
        metadata={"category": cells.optional_text("category"), "cluster": cells.optional_text("cluster")},
    )


def _turns(turns: list[str]) -> list[str]:
    if not turns:
        raise BadRowError("missing_column", "turns holds none")
    return turns
