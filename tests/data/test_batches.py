"""Batches: every example once an epoch, in an order that follows from seed and position alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multifaceted.data.batch import Batch
from multifaceted.data.batches import EvaluationBatches, TrainingBatches
from multifaceted.trees import PADDING, TokenTree

CUTS = st.one_of(
    st.builds(Batch, examples=st.integers(1, 9), max_tokens=st.integers(40, 90), packing=st.booleans()),
    st.builds(
        lambda rows, most: Batch(tokens=rows * most, max_tokens=most, look_ahead=5),
        st.sampled_from([6, 12]),
        st.integers(20, 40),
    ),
    st.builds(Batch, examples=st.integers(1, 9), max_tokens=st.integers(60, 90), share_prefix=st.just(False)),
)


def trees(num):
    return [
        TokenTree(id=str(i), prompt=[1] * (3 + i % 5), branches=[[5] * (1 + i % 7), [6] * 2], source="s")
        for i in range(num)
    ]


def batches(num, batch=None, **settings):
    return TrainingBatches(
        trees=trees(num), batch=batch or Batch(examples=4, max_tokens=40), num_epochs=settings.pop("epochs", 1),
        seed=settings.pop("seed", 0), **settings,
    )  # fmt: skip


def ids(passes):
    return [name for batch in passes if batch.counts for name in batch.ids]


def ids_of(steps):
    return [name for step in steps for name in ids(step.passes)]


@given(num=st.integers(1, 40), batch=CUTS, epochs=st.integers(1, 3), world=st.integers(1, 3))
def test_every_example_once_an_epoch_whatever_the_cut(num, batch, epochs, world):
    ranks = [list(batches(num, batch, epochs=epochs, rank=rank, world_size=world)) for rank in range(world)]
    assert sorted(name for rank in ranks for name in ids_of(rank)) == sorted(str(i) for i in [*range(num)] * epochs)
    for steps in zip(*ranks, strict=True):
        assert len({len(step.passes) for step in steps}) == 1, "a rank would wait for the others"
        assert len({(step.examples, step.tokens) for step in steps}) == 1
        names = [name for step in steps for name in ids(step.passes)]
        assert len(names) == steps[0].examples and (batch.examples is None or len(names) <= batch.examples)
        assert all(part.rows.input_ids.numel() <= batch.max_tokens for step in steps for part in step.passes)
    assert len(ranks[0]) == batches(num, batch, epochs=epochs).num_steps


@given(num=st.integers(1, 40), batch=CUTS, stop=st.integers(0, 30))
def test_a_run_continues_from_a_position_on_any_number_of_ranks(num, batch, stop):
    whole = list(batches(num, batch, epochs=2))
    stop = min(stop, len(whole) - 1)
    settings = {"epochs": 2, "start_step": stop + 1, "start": whole[stop].position, "world_size": 2}
    parts = [list(batches(num, batch, rank=rank, **settings)) for rank in range(2)]
    for step, *both in zip(whole[stop + 1 :], *parts, strict=True):
        assert sorted(ids(step.passes)) == sorted(name for part in both for name in ids(part.passes))


def test_a_step_holds_the_same_examples_however_it_is_cut():
    whole, parts = batches(12), batches(12, Batch(examples=4, max_tokens=16))
    for one, many in zip(whole, parts, strict=True):
        assert len(one.passes) < len(many.passes)
        assert sorted(ids(one.passes)) == sorted(ids(many.passes))
        assert (one.examples, one.tokens) == (many.examples, many.tokens)


def test_order_depends_on_seed_and_epoch():
    first, again, other = (ids_of(batches(20, epochs=2, seed=seed)) for seed in (0, 0, 1))
    assert first == again != other
    assert first[:20] != first[20:]


def test_max_steps_ends_early():
    assert batches(20, max_steps=2).num_steps == 2 == len(list(batches(20, max_steps=2)))


@given(num=st.integers(1, 30), batch=CUTS, world=st.integers(1, 3))
def test_evaluation_sees_each_example_once(num, batch, world):
    seen = []
    for rank in range(world):
        part = EvaluationBatches(trees=trees(num), batch=batch, rank=rank, world_size=world)
        seen += ids(part[i] for i in range(len(part)))
    assert sorted(seen) == sorted(str(i) for i in range(num))


def test_reference_values_follow_their_branches():
    reference = {str(i): [float(i), i + 0.5] for i in range(6)}
    batch = next(iter(batches(6, reference=reference))).passes[0]
    assert batch.reference.tolist() == [value for name in batch.ids for value in reference[name]]


def test_packed_rows_on_a_cpu_have_no_padding():
    for step in batches(13):
        assert all((part.rows.tree_ids != PADDING).all() for part in step.passes)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"examples": 0}, "at least 1"),
        ({"examples": 1, "max_tokens": 0}, "at least 1"),
        ({}, "give one of them"),
        ({"examples": 1, "tokens": 8192}, "give one of them"),
        ({"tokens": 5000}, "multiple of max_tokens=8192"),
        ({"tokens": 8192, "packing": False}, "set examples"),
    ],
)
def test_impossible_batches_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Batch(**settings)


def test_rows_must_divide_among_ranks():
    with pytest.raises(ValueError, match=r"3 ranks with rows of 8192 .* set batch.tokens=24576"):
        Batch(tokens=16384).check_ranks(3)


def test_an_example_that_no_row_holds_without_sharing_is_named():
    with pytest.raises(ValueError, match=r"example '3' takes 18 tokens, and batch.max_tokens=16"):
        batches(7, Batch(examples=2, max_tokens=16, share_prefix=False))


def test_rows_for_a_gpu_have_few_widths():
    steps = list(batches(40, Batch(examples=4, max_tokens=64), on_gpu=True))
    widths = {part.rows.input_ids.shape[1] for step in steps for part in step.passes}
    assert widths <= set(range(8, 65, 8))
    padding = sum(int((part.rows.tree_ids == PADDING).sum()) for step in steps for part in step.passes)
    assert padding == sum(step.work.padding for step in steps) > 0
