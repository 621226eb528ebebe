"""Batches: every example once an epoch, in an order that follows from seed and position alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multifaceted.data.batches import Batch, EvaluationBatches, TrainingBatches
from multifaceted.trees import TokenTree


def trees(num):
    return [
        TokenTree(id=str(i), prompt=[1] * (3 + i % 5), branches=[[5] * (1 + i % 7), [6] * 2], source="s")
        for i in range(num)
    ]


def batches(num, **settings):
    size = settings.pop("examples", 4)
    micro = settings.pop("micro", 2)
    return TrainingBatches(
        trees=trees(num), batch=Batch(examples=size, micro_examples=micro), num_epochs=settings.pop("epochs", 1),
        seed=settings.pop("seed", 0), **settings,
    )  # fmt: skip


def ids(many):
    return [name for batch in many if batch.counts for name in batch.ids]


@given(
    num=st.integers(1, 40),
    examples=st.integers(1, 9),
    micro=st.integers(1, 5),
    epochs=st.integers(1, 3),
    world=st.integers(1, 3),
)
def test_every_example_once_an_epoch_whatever_the_cut(num, examples, micro, epochs, world):
    ranks = [
        batches(num, examples=examples, micro=micro, epochs=epochs, rank=rank, world_size=world)
        for rank in range(world)
    ]
    seen = [name for rank in ranks for name in ids(rank[i] for i in range(len(rank)))]
    assert sorted(seen) == sorted(str(i) for i in range(num) for _ in range(epochs))
    assert len({len(rank) for rank in ranks}) == 1
    assert all(len(rank[i].ids) <= micro for rank in ranks for i in range(len(rank)))


def test_a_step_holds_the_same_examples_however_it_is_cut():
    whole, halves = batches(13, micro=4), batches(13, micro=2)
    for step in range(whole.num_steps):
        parts = [halves[step * halves.micro_per_step + part] for part in range(halves.micro_per_step)]
        assert sorted(ids([whole[step]])) == sorted(ids(parts))
        assert {part.step_examples for part in parts} == {whole[step].step_examples}
        assert {part.step_tokens for part in parts} == {whole[step].step_tokens}


def test_order_depends_on_seed_and_epoch():
    first, again, other = batches(20, epochs=2), batches(20, epochs=2), batches(20, epochs=2, seed=1)
    order = [first.step_indices(step) for step in range(first.num_steps)]
    assert order == [again.step_indices(step) for step in range(again.num_steps)]
    assert order != [other.step_indices(step) for step in range(other.num_steps)]
    assert order[:5] != order[5:]


def test_max_steps_ends_early():
    assert batches(20, max_steps=2).num_steps == 2 and len(batches(20, max_steps=2)) == 4


@given(num=st.integers(1, 30), micro=st.integers(1, 6), world=st.integers(1, 3))
def test_evaluation_sees_each_example_once(num, micro, world):
    seen = []
    for rank in range(world):
        part = EvaluationBatches(trees=trees(num), micro_examples=micro, rank=rank, world_size=world)
        seen += ids(part[i] for i in range(len(part)))
    assert sorted(seen) == sorted(str(i) for i in range(num))


def test_reference_values_follow_their_branches():
    reference = {str(i): [float(i), i + 0.5] for i in range(6)}
    batch = batches(6, reference=reference)[0]
    expected = [value for name in batch.ids for value in reference[name]]
    assert batch.reference.tolist() == expected


@pytest.mark.parametrize("settings", [{"examples": 0}, {"examples": 1, "micro_examples": 0}])
def test_impossible_batches_are_refused(settings):
    with pytest.raises(ValueError, match="at least 1"):
        Batch(**settings)
