"""Optimizers and schedules."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from multifaceted.training.muon import Muon, orthogonalise
from multifaceted.training.optimizer import AdamW, Schedule, Shape


def small_model():
    torch.manual_seed(0)
    return nn.ModuleDict(
        {"embed": nn.Embedding(10, 8), "hidden": nn.Linear(8, 6), "lm_head": nn.Linear(6, 10, bias=False)}
    )


def step(model, optimizer):
    loss = model["lm_head"](model["hidden"](model["embed"](torch.arange(10)))).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


@pytest.mark.parametrize("shape", [(6, 8), (8, 6), (5, 5)])
def test_orthogonalise_brings_singular_values_near_one(shape):
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalise(torch.randn(3, *shape)))
    assert values.min() > 0.5 and values.max() < 1.3


@pytest.mark.parametrize("config", [AdamW(lr=1e-2), Muon(lr=2e-2, adamw_lr=1e-2)])
def test_optimizers_lower_a_loss_and_continue_from_their_state(config):
    model = small_model()
    optimizer = config.build(model)
    losses = [step(model, optimizer) for _ in range(20)]
    assert losses[-1] < 0.8 * losses[0]
    copy = small_model()
    copy.load_state_dict(model.state_dict())
    resumed = config.build(copy)
    resumed.load_state_dict(deepcopy(optimizer.state_dict()))
    assert [step(model, optimizer) for _ in range(3)] == [step(copy, resumed) for _ in range(3)]


def test_the_adamw_half_of_muon_is_torchs_adamw():
    ours, theirs = small_model(), small_model()
    optimizer = Muon(lr=1e-9, adamw_lr=1e-2).build(ours)
    outer = [theirs["embed"].weight, theirs["hidden"].bias, theirs["lm_head"].weight]
    reference = torch.optim.AdamW(outer, lr=1e-2, betas=(0.9, 0.95), weight_decay=0.0)
    for _ in range(5):
        step(ours, optimizer)
        step(theirs, reference)
    torch.testing.assert_close(ours["embed"].weight, theirs["embed"].weight, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("config", [AdamW(lr=1e-2), Muon(lr=1e-2, adamw_lr=1e-2)])
def test_the_size_of_the_state_is_known_before_it_exists(config):
    model = small_model()
    optimizer = config.build(model)
    step(model, optimizer)
    moments = [t for state in optimizer.state.values() for key, t in state.items() if key != "step"]
    assert config.state_bytes(model) == sum(t.numel() * t.element_size() for t in moments)


def test_muon_takes_hidden_matrices_only():
    matrices, rest = Muon(lr=1e-2, adamw_lr=1e-2).build(small_model()).param_groups
    assert [tuple(p.shape) for p in matrices["params"]] == [(6, 8)] and len(rest["params"]) == 3


@pytest.mark.parametrize("config", [AdamW(lr=1e-2), Muon(lr=1e-2, adamw_lr=1e-2)])
def test_optimizers_leave_out_what_is_frozen(config):
    model = small_model()
    model["embed"].requires_grad_(False)
    given = {id(parameter) for group in config.build(model).param_groups for parameter in group["params"]}
    assert given == {id(parameter) for name, parameter in model.named_parameters() if not name.startswith("embed")}


def test_schedules_by_hand():
    cosine = Schedule(shape=Shape.COSINE, warmup_steps=2, floor=0.1)
    assert [cosine.factor(s, 12) for s in (0, 1, 2)] == [0.5, 1.0, 1.0]
    assert cosine.factor(7, 12) == pytest.approx(0.55) and cosine.factor(12, 12) == pytest.approx(0.1)
    linear = Schedule(shape=Shape.LINEAR)
    assert [linear.factor(s, 4) for s in range(5)] == [1.0, 0.75, 0.5, 0.25, 0.0]
    constant = Schedule(shape=Shape.CONSTANT, warmup_share=0.5)
    assert [constant.factor(s, 4) for s in range(4)] == [0.5, 1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    "bad", [{"warmup_steps": 1, "warmup_share": 0.1}, {"floor": 2.0}, {"warmup_share": 1.0}, {"warmup_steps": -1}]
)
def test_impossible_schedules_are_refused(bad):
    with pytest.raises(ValueError, match=r"warmup|floor"):
        Schedule(**bad)
