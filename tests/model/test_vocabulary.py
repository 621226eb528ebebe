"""Log-probabilities under the vocabulary projection equal the plain form's, in slices that never come together."""

import importlib.util

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import linear
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

from multifaceted.model.vocabulary import ALIGNED, LOGITS_BYTES, Projection, label_logps


def plain(hidden, weight, bias, labels, **_):
    """What is computed, as one would write it."""
    logits = linear(hidden, weight, bias).float()
    return logits.gather(1, labels[:, None])[:, 0] - logits.logsumexp(dim=-1)


def inputs(scored, vocab, hidden_dim=8, *, bias=False, dtype=torch.float32, scale=1.0, device="cpu"):
    """Hidden states, weight, bias, labels, and a gradient from above that differs by position, also in sign."""
    generator = torch.Generator().manual_seed(0)

    def leaf(*size):
        return (scale * torch.randn(size, generator=generator)).to(device, dtype).requires_grad_()

    labels = torch.randint(vocab, (scored,), generator=generator).to(device)
    upstream = torch.randn(scored, generator=generator).to(device)
    return leaf(scored, hidden_dim), leaf(vocab, hidden_dim), leaf(vocab) if bias else None, labels, upstream


def values_and_gradients(function, hidden, weight, bias, labels, upstream, **options):
    """Log-probabilities and the gradients of those among hidden, weight and bias that have one."""
    logps = function(hidden, weight, bias, labels, **options)
    leaves = [leaf for leaf in (hidden, weight, bias) if leaf is not None and leaf.requires_grad]
    return [logps.detach(), *torch.autograd.grad(logps, leaves, upstream)]


def assert_equal(ours, theirs, tolerance=1e-5):
    for one, other in zip(ours, theirs, strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, atol=tolerance, rtol=tolerance)


@settings(deadline=None)
@given(scored=st.integers(0, 9), vocab=st.integers(1, 33), chunk=st.integers(1, 40), bias=st.booleans())
def test_values_and_gradients_equal_the_plain_forms(scored, vocab, chunk, bias):
    case = inputs(scored, vocab, bias=bias)
    assert_equal(values_and_gradients(label_logps, *case, chunk=chunk), values_and_gradients(plain, *case))


@pytest.mark.parametrize("chunk", [1, 15, 16, 17, 31, 32, 33, None])
def test_labels_at_the_ends_of_slices(chunk):
    hidden, weight, _, _, _ = inputs(5, 32)
    labels = torch.tensor([0, 15, 16, 30, 31])
    case = (hidden, weight, None, labels, torch.ones(5))
    assert_equal(values_and_gradients(label_logps, *case, chunk=chunk), values_and_gradients(plain, *case))


def test_large_logits_neither_overflow_nor_cancel():
    case = inputs(16, 64, scale=20.0)
    ours = values_and_gradients(label_logps, *case, chunk=10)
    exact = values_and_gradients(lambda *a, **_: in_double(*a), *case)
    assert all(torch.isfinite(tensor).all() for tensor in ours)
    assert (ours[0] <= 0).all()
    torch.testing.assert_close(ours[0], exact[0], rtol=1e-5, atol=2e-4)  # logits of 3000 have no more digits in fp32


def in_double(hidden, weight, bias, labels):
    logits = linear(hidden.double(), weight.double(), None if bias is None else bias.double())
    return (logits.gather(1, labels[:, None])[:, 0] - logits.logsumexp(dim=-1)).float()


def test_a_label_outside_the_vocabulary_is_not_a_number():
    hidden, weight, *_ = inputs(3, 32)
    logps = label_logps(hidden, weight, None, torch.tensor([-100, 31, 32]), chunk=10)
    assert logps.isnan().tolist() == [True, False, True]


class Recorder(TorchDispatchMode):
    """Sizes of all tensors that operations return, and which operations they are."""

    def __init__(self):
        super().__init__()
        self.sizes, self.products = [], 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.sizes += [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.products += func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm)
        return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("frozen", [False, True])
def test_logits_of_all_positions_and_the_whole_vocabulary_never_exist(dtype, frozen):
    scored, vocab, hidden_dim, chunk = 64, 100, 4, 10
    case = inputs(scored, vocab, hidden_dim, bias=True, dtype=dtype)
    case[1].requires_grad_(not frozen)
    with Recorder() as ours:
        values_and_gradients(label_logps, *case, chunk=chunk)
    with Recorder() as theirs:
        values_and_gradients(plain, *case)
    assert max(ours.sizes) == scored * chunk
    assert max(theirs.sizes) == scored * vocab


def test_default_slices_follow_the_number_of_positions():
    """Few positions leave the vocabulary whole; many leave slices of the bytes that the constant names."""
    for scored, widest in ((4, 3000), (LOGITS_BYTES["cpu"] // (4 * 1000), 7 * ALIGNED)):
        hidden, weight, _, labels, _ = inputs(scored, 3000, hidden_dim=2)
        with torch.no_grad(), Recorder() as recorder:
            label_logps(hidden, weight, None, labels)
        assert max(recorder.sizes) == scored * widest
        assert max(recorder.sizes) * 4 <= LOGITS_BYTES["cpu"]


@pytest.mark.parametrize(("frozen", "products"), [("weight", 7 + 7 + 7), ("hidden", 7 + 7 + 7), (None, 4 * 7)])
def test_a_frozen_tensor_gets_no_gradient_and_costs_no_product(frozen, products):
    hidden, weight, _, labels, upstream = inputs(6, 70)
    {"weight": weight, "hidden": hidden}.get(frozen, torch.ones(1)).requires_grad_(False)
    case = (hidden, weight, None, labels, upstream)
    with Recorder() as recorder:
        ours = values_and_gradients(label_logps, *case, chunk=10)
    assert_equal(ours, values_and_gradients(plain, *case))
    assert recorder.products == products


def test_the_gradient_of_tied_embeddings_has_both_parts():
    _, weight, _, labels, upstream = inputs(6, 32)
    tokens = torch.tensor([3, 1, 4, 1, 5, 9])

    def tied(function, **options):
        logps = function(torch.tanh(weight[tokens]), weight, None, labels, **options)
        return torch.autograd.grad(logps, weight, upstream)

    assert_equal(tied(label_logps, chunk=5), tied(plain))


def test_gradients_pass_a_checkpointed_backbone():
    hidden, weight, _, labels, upstream = inputs(6, 32)
    layer = torch.nn.Linear(8, 8)

    def gradients(function, run, **options):
        logps = function(run(layer, hidden), weight, None, labels, **options)
        return torch.autograd.grad(logps, [hidden, weight, *layer.parameters()], upstream)

    recomputed = gradients(label_logps, lambda f, x: checkpoint(f, x, use_reentrant=False), chunk=5)
    assert_equal(recomputed, gradients(plain, lambda f, x: f(x)))


def test_a_second_derivative_is_refused():
    hidden, weight, bias, labels, upstream = inputs(3, 8)
    logps = label_logps(hidden, weight, bias, labels)
    (grad,) = torch.autograd.grad(logps, hidden, upstream.requires_grad_(), create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        grad.sum().backward()


def distances(approximate, exact):
    """Relative error of each tensor, in the Euclidean norm."""
    return [float((a.double() - e).norm() / e.norm()) for a, e in zip(approximate, exact, strict=True)]


@pytest.mark.parametrize("bias", [False, True])
def test_bf16_is_as_near_the_truth_as_the_plain_form_and_nearer_than_sums_in_bf16(bias):
    case = inputs(600, 800, 32, bias=bias, dtype=torch.bfloat16, scale=0.5)
    doubles = [None if t is None else t.detach().double().requires_grad_() for t in case[:3]]
    exact = values_and_gradients(in_double, *doubles, *case[3:])
    ours = values_and_gradients(label_logps, *case, chunk=16)
    assert [tensor.dtype for tensor in ours] == [torch.float32] + [torch.bfloat16] * (len(ours) - 1)
    for one, other in zip(distances(ours, exact), distances(values_and_gradients(plain, *case), exact), strict=True):
        assert one <= 1.1 * other
    for one, naive in zip(distances(ours[1:3], exact[1:3]), distances(sums_in_bf16(*case), exact[1:3]), strict=True):
        assert one < 0.5 * naive


def sums_in_bf16(hidden, weight, bias, labels, upstream, parts=50):
    """Gradients of hidden states and weight, whose parts, over slices and over positions, are added up in bf16."""
    grads = []
    with torch.no_grad():
        softmax = linear(hidden, weight, bias).float().softmax(-1)
        softmax[torch.arange(len(labels)), labels] -= 1
        excess = (softmax * -upstream[:, None]).bfloat16()
        grads.append(sum(e @ w for e, w in zip(excess.chunk(parts, 1), weight.chunk(parts), strict=True)))
        grads.append(sum(e.T @ h for e, h in zip(excess.chunk(parts), hidden.chunk(parts), strict=True)))
    return grads


@pytest.mark.parametrize("bias", [False, True])
def test_autocast_computes_in_its_type_and_keeps_gradients_in_the_weights(bias):
    case = inputs(64, 100, 16, bias=bias, scale=0.5)
    exact = values_and_gradients(label_logps, *case, chunk=16)
    with torch.autocast("cpu", torch.bfloat16):
        inside = values_and_gradients(label_logps, *case, chunk=16)
        theirs = values_and_gradients(plain, *case)
        logps = label_logps(*case[:4], chunk=16)
    outside = [logps.detach(), *torch.autograd.grad(logps, [t for t in case[:3] if t is not None], case[4])]
    assert [t.dtype for t in inside] == [t.dtype for t in theirs] == [torch.float32] * len(inside)
    assert all(torch.equal(one, other) for one, other in zip(inside, outside, strict=True))
    for one, other in zip(distances(inside, exact), distances(theirs, exact), strict=True):
        assert 1e-4 < one <= 1.1 * other


def test_liger_is_refused_where_it_cannot_run(monkeypatch):
    with pytest.raises(ValueError, match="projection=liger needs an NVIDIA GPU, and this run is on cpu; set trainer"):
        label_logps(*inputs(3, 8)[:4], projection=Projection.LIGER)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"not installed: pip install --editable '\.\[liger\]'"):
        Projection.LIGER.check_device("cuda")
    Projection.CHUNKED.check_device("cpu")


GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU, and torch sees none here")
LIGER = pytest.mark.skipif(
    importlib.util.find_spec("liger_kernel") is None, reason="needs liger-kernel: pip install --editable '.[liger]'"
)


@pytest.mark.gpu
@GPU
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_slices_equal_the_plain_form_on_a_gpu(dtype):
    case = inputs(300, 1000, 64, bias=True, dtype=dtype, scale=0.3, device="cuda")
    tolerance = {torch.float32: 1e-4, torch.bfloat16: 2e-2}[dtype]
    assert_equal(values_and_gradients(label_logps, *case, chunk=128), values_and_gradients(plain, *case), tolerance)


@pytest.mark.gpu
@GPU
@LIGER
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [False, True])
def test_liger_equals_the_slices(dtype, bias):
    """With a gradient that differs by position, which an unscaled gradient of the weight would not show."""
    case = inputs(300, 1000, 64, bias=bias, dtype=dtype, scale=0.3, device="cuda")
    tolerance = {torch.float32: 1e-4, torch.bfloat16: 2e-2}[dtype]
    ours = values_and_gradients(label_logps, *case)
    assert_equal(values_and_gradients(label_logps, *case, projection=Projection.LIGER), ours, tolerance)


@pytest.mark.gpu
@GPU
@LIGER
def test_liger_without_scored_positions():
    case = inputs(0, 8, device="cuda")
    assert_equal(
        values_and_gradients(label_logps, *case, projection=Projection.LIGER), values_and_gradients(plain, *case)
    )
