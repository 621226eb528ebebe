"""The mini task on responses whose scores are known."""

import random

import numpy as np
import pytest

from multifaceted.evaluation.mini import CONTROLLED, FLIP, WITHOUT_SYSTEM, MiniTask
from multifaceted.evaluation.statistics import bootstrap_mean
from multifaceted.mini import world
from multifaceted.mini.holdout import Part
from multifaceted.mini.lexicon import kinds
from multifaceted.records import Response

TASK = MiniTask(num_prompts=60)
PROMPTS = TASK.prompts(seed=5)


def gold(prompt, rng):
    kind = next(kind for kind in kinds() if kind.name == prompt.metadata["kind"])
    names = tuple(p.preference for p in prompt.preferences)
    return world.answer(world.Scene(kind=kind, topic=prompt.metadata["topic"], ask="", names=names), names, rng)


def scored(answer):
    rng = random.Random(0)
    responses = {p.id: Response(id=p.id, text=answer(p, rng), finished=True) for p in PROMPTS}
    return TASK.metrics(PROMPTS, TASK.verdicts(PROMPTS, responses))


def test_gold_responses_score_one_and_chance_stays_chance():
    metrics = scored(gold)
    for split in world.SPLITS:
        for name in ("adherence", "all_satisfied", "on_topic", "well_formed", "all_good"):
            assert metrics[f"{split}/{name}"].value == 1.0
        assert metrics[f"{split}/adherence/style"].value == 1.0
        assert 0.1 < metrics[f"{split}/chance"].value < 0.4
    assert metrics[f"{CONTROLLED}/flip_followed"].value == metrics[f"{CONTROLLED}/flip_kept"].value == 1.0
    assert metrics["one_dimension/adherence/style"].value == 1.0 and metrics["one_dimension/adherence/style"].n == 60


def test_an_answer_that_ignores_the_system_message_scores_chance():
    metrics = scored(lambda prompt, rng: "Steady practice helps. You can start small.")
    assert metrics[f"{CONTROLLED}/adherence"].value == pytest.approx(metrics[f"{CONTROLLED}/chance"].value, abs=0.06)
    assert metrics[f"{CONTROLLED}/on_topic"].value == 0.0


def test_an_empty_or_unfinished_response_satisfies_nothing_it_should_not():
    metrics = scored(lambda prompt, rng: "")
    assert metrics["seen/adherence"].value == 0.0 and metrics["seen/well_formed"].value == 0.0
    rng = random.Random(0)
    cut = {p.id: Response(id=p.id, text=gold(p, rng), finished=False) for p in PROMPTS}
    assert TASK.metrics(PROMPTS, TASK.verdicts(PROMPTS, cut))["seen/well_formed"].value == 0.0


def test_chance_is_the_expectation_over_shuffles():
    rng = random.Random(1)
    prompts = [p for p in PROMPTS if p.split == "seen"]
    responses = {p.id: Response(id=p.id, text=gold(p, rng), finished=True) for p in PROMPTS}
    verdicts = TASK.verdicts(prompts, responses)
    draws = []
    for _ in range(300):
        order = list(range(len(prompts)))
        rng.shuffle(order)
        pairs = [(prompts[j], v) for i, (j, v) in enumerate(zip(order, verdicts, strict=True)) if i != j]
        draws += [np.mean([q.preference in v["satisfied"] for q in p.preferences]) for p, v in pairs]
    metrics = TASK.metrics(PROMPTS, TASK.verdicts(PROMPTS, responses))
    assert metrics["seen/chance"].value == pytest.approx(float(np.mean(draws)), abs=0.01)


def test_controls_change_what_they_say():
    bare = [p for p in PROMPTS if p.split == WITHOUT_SYSTEM]
    same = [p for p in PROMPTS if p.split == CONTROLLED]
    assert [p.instruction for p in bare] == [p.instruction for p in same]
    assert all(p.system is None and len(p.messages()) == 1 for p in bare)
    assert [p.instruction for p in PROMPTS if p.split == FLIP] == [p.instruction for p in same]
    assert len({p.id for p in PROMPTS}) == len(PROMPTS)


def test_bootstrap_interval():
    values = [0.0] * 50 + [1.0] * 50
    estimate = bootstrap_mean([*values, None])
    assert estimate.value == 0.5 and estimate.n == 100 and estimate.unscored == 1
    # The standard error of a proportion of one half over 100 is 0.05.
    assert estimate.low == pytest.approx(0.402, abs=0.02) and estimate.high == pytest.approx(0.598, abs=0.02)
    assert bootstrap_mean([None]).value is None


def test_the_task_refuses_the_training_part():
    with pytest.raises(ValueError, match="part is 'train'"):
        MiniTask(part=Part.TRAIN)


def test_one_prompt_has_no_other_to_be_shuffled_with():
    with pytest.raises(ValueError, match="num_prompts is 1; shuffled preference sets need at least 2"):
        MiniTask(num_prompts=1)
