"""Examples and token trees on disk are the ones that were put there."""

import os
import pickle
import string
from itertools import islice

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multifaceted.data.stored import select, store
from multifaceted.data.tokens import StoredTrees, write_trees
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


@given(rows=st.lists(examples, max_size=8), in_memory=st.integers(0, 9), order=st.randoms(use_true_random=False))
def test_stored_examples_are_a_sequence_of_the_same_ones(rows, in_memory, order):
    stored = store(iter(rows), in_memory=in_memory)
    assert isinstance(stored, list) == (len(rows) <= in_memory)
    assert list(stored) == rows == [stored[i] for i in range(len(stored))]
    assert list(stored[1:-1]) == rows[1:-1]
    indices = order.sample(range(len(rows)), len(rows) // 2)
    assert list(select(select(stored, range(len(rows))), indices)) == [rows[i] for i in indices]


def test_the_file_has_no_name_and_goes_with_its_last_use(tmp_path):
    def open_files():
        return sum(str(tmp_path) in os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd"))

    rows = [Example(id=str(i), system=None, turns=[], chosen="") for i in range(3)]
    stored = store(rows, tmp_path / "new", in_memory=1)
    some = select(stored, [2, 0])
    assert not list((tmp_path / "new").iterdir()) and open_files() == 1
    del stored
    assert [example.id for example in some] == ["2", "0"]
    del some
    assert open_files() == 0


@given(rows=st.lists(trees, max_size=9), size=st.integers(1, 4))
def test_stored_trees_are_a_sequence_of_the_same_ones(tmp_path_factory, rows, size):
    path = tmp_path_factory.mktemp("trees") / "trees.arrow"
    stream = iter(rows)
    write_trees(path, iter(lambda: list(islice(stream, size)), []))
    stored = pickle.loads(pickle.dumps(StoredTrees(path)))
    expected = [plain(tree) for tree in rows]
    assert [plain(tree) for tree in stored] == expected == [plain(stored[i]) for i in range(len(stored))]
    assert [plain(tree) for tree in stored[-2:]] == expected[-2:]
    with pytest.raises(IndexError):
        stored[len(rows)]


def test_a_file_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "trees.arrow"
    path.write_bytes(b"not Arrow")
    with pytest.raises(pa.ArrowInvalid):
        StoredTrees(path)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, pa.schema({"id": pa.string()})):
        pass
    with pytest.raises(pa.ArrowInvalid, match="its columns are id"):
        StoredTrees(path)
