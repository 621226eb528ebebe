"""Examples and token trees in data sets are the ones that were put there."""

import os
import pickle
import string
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multifaceted.data.cache import CacheError
from multifaceted.data.examples import store_examples
from multifaceted.data.tokens import TokenTrees
from multifaceted.records import Example, StatedPreference, Turn
from multifaceted.trees import TokenTree

texts = st.text(max_size=12)
examples = st.builds(
    Example,
    id=texts,
    system=st.none() | texts,
    turns=st.lists(st.builds(Turn, role=st.sampled_from(["user", "assistant"]), content=texts), max_size=3),
    chosen=texts,
    rejected=st.lists(texts, max_size=2),
    preferences=st.lists(
        st.builds(StatedPreference, dimension=texts, subdimension=texts, preference=texts, description=texts),
        max_size=2,
    ),
    contrast=st.lists(texts, max_size=2),
    source=texts,
    margin=st.none() | st.floats(allow_nan=False),
)
tokens = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=5)
trees = st.builds(
    TokenTree,
    id=texts,
    prompt=tokens,
    branches=st.lists(tokens, min_size=1, max_size=3),
    source=texts,
    dimensions=st.lists(st.text(string.ascii_lowercase), max_size=2).map(tuple),
    margin=st.none() | st.floats(allow_nan=False),
)


def plain(tree):
    pieces = [ids.tolist() for ids in (tree.prompt, *tree.branches)]
    return tree.id, pieces, tree.source, tree.dimensions, tree.margin


@settings(max_examples=30)
@given(rows=st.lists(examples, min_size=1, max_size=8), is_small=st.booleans(), order=st.randoms(use_true_random=False))
def test_stored_examples_are_a_sequence_of_the_same_ones(tmp_path_factory, rows, is_small, order):
    folder = tmp_path_factory.mktemp("cache")
    stored = store_examples(iter(rows), folder, in_memory=8 if is_small else 0)
    assert bool(stored.dataset.cache_files) is not is_small
    assert list(stored) == rows == [stored[i] for i in range(len(stored))]
    assert list(stored[1:-1]) == rows[1:-1]
    indices = order.sample(range(len(rows)), len(rows) // 2)
    chosen = stored.select(range(len(rows))).select(indices)
    assert list(chosen) == [rows[i] for i in indices]
    assert chosen.fingerprint == store_examples([rows[i] for i in indices]).fingerprint


@given(rows=st.lists(examples, min_size=1, max_size=4), other=examples)
def test_a_fingerprint_is_that_of_the_content_and_its_order(rows, other):
    own = store_examples(rows).fingerprint
    for changed in ([*rows[:-1], other], [*rows, other], rows[::-1]):
        assert (store_examples(changed).fingerprint == own) == (changed == rows)


def test_the_file_goes_with_its_last_use_and_what_a_killed_job_left_after_a_day(tmp_path):
    left = [tmp_path / "datasets" / name for name in ("examples-old", "examples-new", "tmpold", "tmpnew")]
    for path in left:
        (path.mkdir(parents=True) if "examples" in path.name else path.write_text("half"))
        if "old" in path.name:
            os.utime(path, (time.time() - 90_000,) * 2)
    rows = [Example(id=str(i), system=None, turns=[], chosen="") for i in range(3)]
    stored = store_examples(rows, tmp_path, in_memory=1)
    some = stored.select([2, 0])
    assert [path.exists() for path in left] == [False, True, False, True]
    del stored
    assert [example.id for example in some] == ["2", "0"] and len(list((tmp_path / "datasets").iterdir())) == 3
    del some
    assert {*(tmp_path / "datasets").iterdir()} == {left[1], left[3]}


def test_an_error_of_reading_is_not_one_of_the_cache(tmp_path):
    def broken():
        yield Example(id="a", system=None, turns=[], chosen="")
        yield Example(id="b", system=None, turns=[], chosen="")
        raise PermissionError("the source")

    with pytest.raises(PermissionError, match="the source"):
        store_examples(broken(), tmp_path, in_memory=1)
    (tmp_path / "datasets").rmdir()
    (tmp_path / "datasets").write_text("a file where the folder goes")
    rows = [Example(id=str(i), system=None, turns=[], chosen="") for i in range(3)]
    with pytest.raises(CacheError):
        store_examples(rows, tmp_path, in_memory=1)


@given(rows=st.lists(trees, max_size=9), order=st.randoms(use_true_random=False))
def test_stored_trees_are_a_sequence_of_the_same_ones(rows, order):
    stored = pickle.loads(pickle.dumps(TokenTrees.of(rows)))
    expected = [plain(tree) for tree in rows]
    assert [plain(tree) for tree in stored] == expected == [plain(stored[i]) for i in range(len(stored))]
    assert [plain(tree) for tree in stored[-2:]] == expected[-2:]
    assert stored.ids == [tree.id for tree in rows]
    chosen = order.sample(range(len(rows)), len(rows) // 2)
    assert [plain(tree) for tree in TokenTrees(stored.dataset, np.asarray(chosen, dtype=np.int64))] == [
        expected[i] for i in chosen
    ]
    with pytest.raises(IndexError):
        stored[len(rows)]
