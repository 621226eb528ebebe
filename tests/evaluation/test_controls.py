"""Controls: what is changed, and how much it moves."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multifaceted.data.source import stated_message
from multifaceted.evaluation.controls import (
    IRRELEVANT,
    Control,
    Movement,
    against_others,
    base_id,
    flipped,
    mean_or_none,
    movement_matrix,
    restated,
    with_irrelevant,
    without_system,
)
from multifaceted.evaluation.mini import CONTROLLED, MiniTask
from multifaceted.mini.lexicon import taxonomy
from multifaceted.records import Prompt, Response, Scores, StatedPreference
from multifaceted.tables import score_table
from tests.evaluation.test_mini_task import gold


def preference(dimension, name):
    return StatedPreference(dimension=dimension, subdimension=dimension, preference=name, description=f"Wants {name}.")


PROMPT = Prompt(
    id="p",
    split="bench",
    system="Short and kind.",
    instruction="?",
    preferences=[preference("style", "short"), preference("harmlessness", "kind")],
    metadata={"source": "koala"},
)


def test_a_control_changes_one_thing():
    stated = restated(PROMPT, stated_message)
    flip = flipped(PROMPT, 0, preference("style", "long"), stated_message)
    irrelevant = with_irrelevant(PROMPT, stated_message)
    (bare,) = without_system([PROMPT])
    assert [p.id for p in (stated, flip, irrelevant, bare)] == [
        "stated-p",
        "flip-p",
        "irrelevant-p",
        "without_system-p",
    ]
    assert {base_id(p) for p in (stated, flip, irrelevant, bare)} == {"p"} and bare.system is None
    assert flip.system == stated.system.replace("Wants short.", "Wants long.")
    assert irrelevant.system == f"{stated.system} {IRRELEVANT.description}"
    assert irrelevant.preferences == stated.preferences == PROMPT.preferences
    assert [p.preference for p in flip.preferences] == ["long", "kind"]
    assert flip.metadata == {"source": "koala", "flipped": "long"} and PROMPT.metadata == {"source": "koala"}


def test_the_matrix_has_what_was_asked_for_against_what_moved():
    movements = [
        Movement(asked="style", before={"style": 1, "tone": 4}, after={"style": 5, "tone": 3}, cluster="a"),
        Movement(asked="style", before={"style": 3, "tone": 2}, after={"style": 5, "tone": None}, cluster="b"),
        Movement(asked="tone", before={"style": 3, "tone": 2}, after={"style": 3, "tone": 4}, cluster="a"),
    ]
    matrix = movement_matrix(movements)
    assert {key: estimate.value for key, estimate in matrix.items()} == {
        "moved_style/style": 3.0,
        "moved_style/tone": -1.0,
        "moved_tone/style": 0.0,
        "moved_tone/tone": 2.0,
    }
    assert matrix["moved_style/tone"].unscored == 1 and matrix["moved_style/style"].n == 2
    assert movements[0].followed == 5 and movements[0].kept == 3 and movements[1].kept is None


def test_the_mini_world_by_rule():
    task = MiniTask(num_prompts=60)
    prompts, rng = task.prompts(seed=5), random.Random(0)
    steered = {p.id: Response(id=p.id, text=gold(p, rng), finished=True) for p in prompts}
    metrics = task.metrics(prompts, task.verdicts(prompts, steered))
    for asked in taxonomy().dimensions:
        row = {d: metrics[f"{CONTROLLED}/moved_{asked}/{d}"].value for d in taxonomy().dimensions}
        assert row == {d: 1.0 if d == asked else 0.0 for d in row}, "rivals exclude each other, and gold follows"
    shown = score_table(Scores(task=task.name, policy={}, metrics=metrics))
    assert "asked for against moved" in shown and f"{CONTROLLED} harmlessness" in shown
    deaf = {p.id: Response(id=p.id, text="Steady practice helps.", finished=True) for p in prompts}
    moved = [e.value for key, e in task.metrics(prompts, task.verdicts(prompts, deaf)).items() if "/moved_" in key]
    assert moved == [0.0] * 16


@given(st.lists(st.lists(st.booleans(), min_size=4, max_size=4).filter(any), min_size=2, max_size=6), st.randoms())
def test_against_others_is_the_mean_over_every_other_set(stated, rng):
    holds = [[rng.random() < 0.5 for _ in row] for row in stated]
    expected = [
        np.mean(
            [
                np.mean([held for held, wanted in zip(response, other, strict=True) if wanted])
                for place, other in enumerate(stated)
                if place != mine
            ]
        )
        for mine, response in enumerate(holds)
    ]
    assert against_others(np.array(stated), np.array(holds)) == pytest.approx(expected)


def test_a_mean_of_the_rest_is_no_mean():
    assert mean_or_none([1.0, 3.0]) == 2.0 and mean_or_none([1.0, None]) is None and mean_or_none([]) is None
    assert {control.value for control in Control} >= {"flip", "without_system"}, "as the mini bench spells them"
