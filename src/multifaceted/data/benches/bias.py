"""Benches of social bias whose files are one table: CrowS-Pairs and BBQ."""

from __future__ import annotations

from multifaceted.data.bad_rows import BadRowError
from multifaceted.data.benches.cells import Cells
from multifaceted.data.text_files import Row
from multifaceted.records import Prompt

ANSWERS = ("ans0", "ans1", "ans2")


def crows_pairs(cells: Cells, row: Row) -> Prompt:
    """A row of CrowS-Pairs: two sentences that differ in the group they speak of. The first column has no name.

    Metadata: `sentences`, `{"more", "less"}` by how stereotyping they are; `direction`, whether the pair states a
    stereotype (`stereo`) or goes against one (`antistereo`); `bias_type`.
    """
    return Prompt(
        id=cells.label("", "id"),
        split="crows_pairs",
        system=None,
        instruction="",
        metadata={
            "sentences": {side: cells.text(f"sent_{side}", if_empty="empty_sentence") for side in ("more", "less")},
            "direction": cells.text("stereo_antistereo"),
            "bias_type": cells.text("bias_type"),
        },
    )


def bbq(cells: Cells, row: Row) -> Prompt:
    """A row of BBQ: a context, a question and three answers, one of which is that it cannot be known.

    The instruction is context, question and lettered answers, a line each; metadata has the parts, for a task that
    asks otherwise or compares likelihoods: `context`, `question`, `answers` (three), `groups` (of whom each answer
    speaks, `unknown` of nobody), `label` (the right answer's place), `category`, `context_condition` (`ambig` or
    `disambig`), `question_polarity` (`neg` or `nonneg`), `question_index`, `stereotyped_groups`.
    """
    context, question = (cells.text(name, if_empty="empty_prompt") for name in ("context", "question"))
    answers = [cells.text(name, if_empty="empty_answer") for name in ANSWERS]
    category, info = cells.text("category"), cells.object("answer_info")
    options = [f"({letter}) {answer}" for letter, answer in zip("abc", answers, strict=True)]
    return Prompt(
        id=f"{category}/{cells.label('example_id')}",
        split="bbq",
        system=None,
        instruction="\n".join([context, question, *options]),
        metadata={
            "context": context,
            "question": question,
            "answers": answers,
            "groups": [_group(info, name) for name in ANSWERS],
            "label": cells.whole("label", below=len(ANSWERS)),
            "category": category,
            "context_condition": cells.text("context_condition"),
            "question_polarity": cells.text("question_polarity"),
            "question_index": cells.label("question_index"),
            "stereotyped_groups": cells.object("additional_metadata").texts("stereotyped_groups"),
        },
    )


def _group(info: Cells, name: str) -> str:
    """The last of what `answer_info` says of an answer: its words, and the group they mean."""
    said = info.texts(name)
    if not said:
        raise BadRowError("missing_column", f"answer_info says nothing of {name}")
    return said[-1]
