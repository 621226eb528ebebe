"""Both forms of attention over trees against a dense mask written from the definition."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from multifaceted.model.attention import Paths, block_mask, tree_attention
from multifaceted.trees import PADDING, TokenTree, lay_out

TREES = st.lists(
    st.tuples(st.integers(1, 9), st.lists(st.integers(1, 7), min_size=1, max_size=3)), min_size=1, max_size=5
)


def laid_out(sizes, num_rows=1, multiple_of=1):
    trees = [
        TokenTree(id=str(i), prompt=[1] * prompt, branches=[[2] * size for size in branches], source="s")
        for i, (prompt, branches) in enumerate(sizes)
    ]
    return lay_out(trees, [[*range(len(trees))[r::num_rows]] for r in range(num_rows)], multiple_of=multiple_of)


def sees(rows):
    """[rows, 1, width, width]: a position sees itself and, before it, its own tree's prompt and its own branch."""
    tree, branch = rows.tree_ids, rows.branch_ids
    num_rows, width = tree.shape
    mask = torch.zeros(num_rows, 1, width, width, dtype=torch.bool)
    for r in range(num_rows):
        for q in range(width):
            for k in range(q + 1):
                on_path = branch[r, k] in (0, branch[r, q])
                mask[r, 0, q, k] = q == k or (tree[r, k] == tree[r, q] != PADDING and on_path)
    return mask


def projections(rows, heads=4, shared=2, size=8):
    generator = torch.Generator().manual_seed(0)
    num_rows, width = rows.input_ids.shape
    return [
        torch.randn(num_rows, n, width, size, generator=generator, requires_grad=True) for n in (heads, shared, shared)
    ]


@settings(max_examples=25)
@given(sizes=TREES, num_rows=st.integers(1, 2))
def test_paths_give_values_and_gradients_of_the_dense_mask(sizes, num_rows):
    rows = laid_out(sizes, min(num_rows, len(sizes)))
    real = (rows.tree_ids != PADDING)[:, :, None, None]
    results = []
    for dense in (False, True):
        query, key, value = projections(rows)
        if dense:
            out = scaled_dot_product_attention(query, key, value, attn_mask=sees(rows), scale=0.3, enable_gqa=True)
            out = out.transpose(1, 2)
        else:
            out, _ = tree_attention(None, query, key, value, None, scaling=0.3, tree_mask=Paths.of(rows))
        weights = torch.linspace(-1, 1, out.numel()).reshape(out.shape)
        (out * real * weights).sum().backward()
        results.append((out * real, query.grad, key.grad, value.grad))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("multiple_of", [1, 64])
def test_the_block_mask_gives_the_values_of_the_dense_mask(multiple_of):
    """FlexAttention's mask, not its kernel: a CPU computes its forward pass only, and slowly."""
    rows = laid_out([(9, [5, 7]), (3, [2]), (30, [40, 20, 9])], 2, multiple_of)
    query, key, value = (tensor.detach() for tensor in projections(rows, size=16))
    ours, _ = tree_attention(None, query, key, value, None, scaling=0.3, tree_mask=block_mask(rows))
    expected = scaled_dot_product_attention(query, key, value, attn_mask=sees(rows), scale=0.3, enable_gqa=True)
    torch.testing.assert_close(ours, expected.transpose(1, 2), atol=1e-5, rtol=1e-5)


def test_which_path_owns_a_shared_prompt_does_not_depend_on_the_order_of_writing():
    rows = laid_out([(400, [30, 20, 10]), (300, [5, 6])])
    first = Paths.of(rows)
    for _ in range(5):
        again = Paths.of(rows)
        assert torch.equal(first.owner, again.owner)
    positions = torch.cat([group.flatten() for group in first.groups])
    assert torch.equal(positions[first.owner], torch.arange(rows.input_ids.numel()))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="FlexAttention's kernel needs a GPU")
def test_the_compiled_kernel_gives_the_gradients_of_paths():
    rows = laid_out([(90, [50, 70]), (30, [20]), (300, [40, 20, 90])], 1, 128).to("cuda")
    real = (rows.tree_ids != PADDING)[:, :, None, None]
    results = []
    for mask in (Paths.of(rows), block_mask(rows)):
        query, key, value = (t.detach().cuda().requires_grad_() for t in projections(rows, size=64))
        out, _ = tree_attention(None, query, key, value, None, tree_mask=mask)
        (out * real).square().sum().backward()
        results.append((out * real, query.grad, key.grad, value.grad))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-2, rtol=1e-2)
