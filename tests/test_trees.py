"""The layout of preference trees."""

import pytest

from multifaceted.trees import PADDING, TokenTree, lay_out


def tree(name="t", prompt=(1, 5, 6), branches=((7, 8, 2), (9, 2))):
    return TokenTree(id=name, prompt=list(prompt), branches=[list(b) for b in branches], source="s")


def test_a_tree_by_hand():
    rows = lay_out([tree()])
    assert rows.input_ids.tolist() == [[1, 5, 6, 7, 8, 2, 9, 2]]
    assert rows.position_ids.tolist() == [[0, 1, 2, 3, 4, 5, 3, 4]]
    assert rows.branch_ids.tolist() == [[0, 0, 0, 1, 1, 1, 2, 2]]
    # The first token of both branches is predicted from the prompt's last position.
    assert list(zip(rows.source.tolist(), rows.label.tolist(), rows.branch.tolist(), strict=True)) == [
        (2, 7, 0), (3, 8, 0), (4, 2, 0), (2, 9, 1), (6, 2, 1),
    ]  # fmt: skip
    assert rows.last.tolist() == [5, 7] and rows.num_tokens.tolist() == [3, 2]


def test_trees_share_a_row():
    rows = lay_out([tree("a"), tree("b")], rows=[[0, 1]], multiple_of=10)
    assert rows.input_ids.shape == (1, 20)
    assert rows.position_ids[0, 8:16].tolist() == rows.position_ids[0, :8].tolist()
    assert rows.tree_ids[0].tolist() == [0] * 8 + [1] * 8 + [PADDING] * 4
    assert rows.prompt.tolist() == [[0, 3], [0, 3], [8, 3], [8, 3]] and rows.first.tolist() == [3, 6, 11, 14]


def test_without_sharing_each_branch_has_its_own_prompt():
    paths = tree().paths
    assert [path.prompt.tolist() for path in paths] == [[1, 5, 6]] * 2
    assert [branch.tolist() for path in paths for branch in path.branches] == [[7, 8, 2], [9, 2]]


@pytest.mark.parametrize("rows", [None, [[0, 1], [2]], [[2, 0, 1]]])
def test_branches_keep_the_order_of_the_trees(rows):
    trees = [tree("a"), tree("b", branches=((7, 2),)), tree("c", branches=((3, 2), (4, 2), (5, 5, 2)))]
    laid = lay_out(trees, rows)
    assert laid.num_tokens.tolist() == [3, 2, 2, 2, 2, 3]
    flat = laid.input_ids.flatten()
    assert flat[laid.last].tolist() == [2] * 6
    assert int((laid.tree_ids != PADDING).sum()) == sum(map(len, trees))
    for branch, ids in enumerate(ids for t in trees for ids in t.branches):
        assert laid.label[laid.branch == branch].tolist() == ids.tolist()
