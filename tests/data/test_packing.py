"""Packing: nothing lost, nothing twice, rows nearly full, no example kept waiting."""

import copy
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multifaceted.data.packing import Position, all_rows, fullest, next_row, padded_rows, step_rows

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=40)


def janus_like(num, seed=0):
    """Lengths of trees with two branches, as in the paper's collections."""
    generator = np.random.default_rng(seed)
    prompt = np.clip(generator.lognormal(np.log(330), 0.45, num), 60, 1000)
    responses = np.clip(generator.lognormal(np.log(400), 0.4, (num, 2)), 40, 1000)
    return (prompt.astype(int) + responses.astype(int).sum(axis=1)).tolist()


@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=9), capacity=st.integers(30, 90))
def test_the_fullest_row_is_the_fullest(lengths, capacity):
    chosen = fullest(lengths, capacity)
    others = range(1, len(lengths))
    best = max(
        total
        for size in range(len(lengths))
        for some in combinations(others, size)
        if (total := lengths[0] + sum(lengths[i] for i in some)) <= capacity
    )
    assert chosen[0] == 0 and chosen == sorted(set(chosen)) and sum(lengths[i] for i in chosen) == best


@given(lengths=LENGTHS, look_ahead=st.integers(1, 12))
def test_a_stream_is_packed_once_and_nothing_waits_for_long(lengths, look_ahead):
    rows = list(all_rows(lengths, 60, look_ahead))
    assert sorted(place for row in rows for place in row) == list(range(len(lengths)))
    assert all(sum(lengths[place] for place in row) <= 60 for row in rows)
    assert all(place < sum(map(len, rows[:number])) + look_ahead for number, row in enumerate(rows) for place in row)


@given(lengths=LENGTHS, stop=st.integers(0, 20))
def test_a_stream_continues_from_its_position(lengths, stop):
    def take(position, num=100):
        return [row for _ in range(num) if (row := next_row(position, lengths.__getitem__, len(lengths), 60, 8))]

    whole, position = take(Position()), Position()
    before, saved = take(position, stop), copy.deepcopy(position)
    assert before + take(saved) == whole


@given(lengths=LENGTHS, world=st.integers(1, 4))
def test_the_rows_of_a_step_hold_every_tree_once(lengths, world):
    rows = step_rows(lengths, 60, world)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in row) <= 60 for row in rows)


@given(lengths=st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=3), min_size=1, max_size=20))
def test_padded_rows_fit_with_their_padding(lengths):
    groups = padded_rows(lengths, 100)
    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
    for group in groups:
        assert sum(len(lengths[i]) for i in group) * max(max(lengths[i]) for i in group) <= 100 or len(group) == 1


@pytest.mark.parametrize(("capacity", "least"), [(8192, 0.99), (4096, 0.97), (2560, 0.9)])
def test_rows_of_janus_like_trees_are_full(capacity, least):
    lengths = [length for length in janus_like(3000) if length <= capacity]
    rows = list(all_rows(lengths, capacity, 64))
    assert sum(lengths) / (len(rows) * capacity) >= least
