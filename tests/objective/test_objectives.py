"""Objectives against arithmetic that a person can redo, identities, and limits."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from multifaceted.objective.base import Branches
from multifaceted.objective.dpo import DPO
from multifaceted.objective.orpo import ORPO, log_odds
from multifaceted.objective.reward_model import RewardModel
from multifaceted.objective.sft import SFT

PAIRWISE = [DPO(beta=0.1), ORPO(lam=0.5), RewardModel()]


def branches(values, tokens=None, groups=(2,), reference=None, margin=None):
    """Branches of examples with `groups` branches each, the chosen first."""
    starts = [sum(groups[:i]) for i in range(len(groups))]
    pairs = [
        (start, start + b, i)
        for i, (start, size) in enumerate(zip(starts, groups, strict=True))
        for b in range(1, size)
    ]
    chosen, rejected, example = torch.tensor(pairs, dtype=torch.long).reshape(-1, 3).unbind(1)
    return Branches(
        values=torch.as_tensor(values, dtype=torch.float32),
        num_tokens=torch.tensor(tokens or [1] * len(values)),
        chosen=torch.tensor(starts),
        pair_chosen=chosen,
        pair_rejected=rejected,
        pair_example=example,
        reference=None if reference is None else torch.tensor(reference),
        margin=None if margin is None else torch.tensor(margin),
    )


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def test_sft_by_hand():
    # Two examples: -6 over 3 tokens is 2 a token; -4 over 1 token is 4. The mean over four tokens is (6 + 4) / 4.
    losses = SFT()(branches([-6.0, -9.0, -4.0], [3, 2, 1], groups=(2, 1)))
    assert losses.loss.tolist() == [2.0, 4.0] and losses.weight.tolist() == [3.0, 1.0]
    assert float((losses.loss * losses.weight).sum() / losses.weight.sum()) == 2.5


def test_dpo_by_hand():
    # Policy over reference: chosen +2, rejected -1; beta 0.5 makes the margin 1.5.
    losses = DPO(beta=0.5)(branches([-10.0, -12.0], reference=[-12.0, -11.0]))
    assert losses.loss.item() == pytest.approx(-math.log(sigmoid(1.5)), abs=1e-6)
    assert losses.metrics["margin"].item() == pytest.approx(1.5)
    assert losses.metrics["pair_accuracy"].item() == 1.0


def test_dpo_label_smoothing_by_hand():
    losses = DPO(beta=0.5, label_smoothing=0.1)(branches([-10.0, -12.0], reference=[-12.0, -11.0]))
    expected = -0.9 * math.log(sigmoid(1.5)) - 0.1 * math.log(sigmoid(-1.5))
    assert losses.loss.item() == pytest.approx(expected, abs=1e-6)


def test_orpo_by_hand():
    # Mean probabilities 1/2 and 1/4: odds 1 and 1/3, odds ratio 3, so the ratio term is -log(3/4).
    values = [2 * math.log(0.5), 3 * math.log(0.25)]
    losses = ORPO(lam=0.1)(branches(values, [2, 3]))
    assert losses.metrics["margin"].item() == pytest.approx(math.log(3), abs=1e-6)
    assert losses.metrics["odds_ratio_loss"].item() == pytest.approx(-math.log(0.75), abs=1e-6)
    assert losses.loss.item() == pytest.approx(math.log(2) - 0.1 * math.log(0.75), abs=1e-6)


def test_reward_model_by_hand():
    values = branches([2.0, 0.5], margin=[1.0])
    assert RewardModel()(values).loss.item() == pytest.approx(-math.log(sigmoid(1.5)), abs=1e-6)
    assert RewardModel(use_margin=True)(values).loss.item() == pytest.approx(-math.log(sigmoid(0.5)), abs=1e-6)


@pytest.mark.parametrize("objective", PAIRWISE, ids=lambda o: type(o).__name__)
def test_a_group_equals_the_mean_over_its_pairs(objective):
    values, reference = [-3.0, -5.0, -4.0], [-4.0, -4.0, -4.0]
    group = objective(branches(values, [2, 3, 4], groups=(3,), reference=reference))
    pairs = [
        objective(branches([values[0], values[i]], [2, i + 2], reference=[reference[0], reference[i]])) for i in (1, 2)
    ]
    assert group.loss.item() == pytest.approx(sum(p.loss.item() for p in pairs) / 2, abs=1e-6)


def test_dpo_of_policy_equal_to_reference_is_log_two():
    assert DPO(beta=0.3)(branches([-7.0, -2.0], reference=[-7.0, -2.0])).loss.item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("objective", PAIRWISE, ids=lambda o: type(o).__name__)
@given(
    chosen=st.floats(-50, -0.1), rejected=st.floats(-50, -0.1), tokens=st.tuples(st.integers(1, 20), st.integers(1, 20))
)
def test_gradients_raise_chosen_and_lower_rejected(objective, chosen, rejected, tokens):
    example = branches([chosen, rejected], list(tokens), reference=[-5.0, -5.0])
    example.values.requires_grad_()
    objective(example).loss.sum().backward()
    assert example.values.grad[0] < 0 < example.values.grad[1]


@given(x=st.floats(-1e4, 0.0))
def test_log_odds_is_finite_and_exact(x):
    value = torch.tensor([x], requires_grad=True)
    odds = log_odds(value)
    odds.sum().backward()
    assert torch.isfinite(odds).all() and torch.isfinite(value.grad).all()
    if x < -1e-6:
        exact = torch.tensor(x, dtype=torch.float64)
        expected = exact - torch.log(-torch.expm1(torch.tensor(float(value.detach()), dtype=torch.float64)))
        assert float(odds.detach()) == pytest.approx(float(expected), rel=1e-5, abs=1e-5)


def test_log_odds_rises_up_to_zero():
    points = torch.tensor([-1e4, -100.0, -1.0, -math.log(2), -0.1, -1e-3, -1e-6, 0.0])
    odds = log_odds(points)
    assert (odds.diff() > 0).all() and odds[3].item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("bad", [lambda: DPO(beta=0), lambda: DPO(beta=1, label_smoothing=0.5), lambda: ORPO(lam=-0.1)])
def test_impossible_hyper_parameters_are_refused(bad):
    with pytest.raises(ValueError, match="must"):
        bad()
