"""Objectives against arithmetic that a person can redo, identities, and limits."""

import math
from importlib import import_module
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from multifaceted.objective.base import Branches, Objective
from multifaceted.objective.dpo import DPO
from multifaceted.objective.ipo import IPO
from multifaceted.objective.orpo import ORPO, log_odds
from multifaceted.objective.reward_model import RewardModel
from multifaceted.objective.sft import SFT
from multifaceted.objective.simpo import SimPO

CONFIGS = Path(__file__).parents[2] / "conf" / "objective"
PAIRWISE = {
    "dpo": DPO(beta=0.1),
    "cdpo": DPO(beta=0.02, label_smoothing=0.1),
    "rdpo": DPO(beta=0.1, label_smoothing=0.1, robust=True),
    "dpo_norm": DPO(beta=0.5, length_normalized=True),
    "dpo_sft": DPO(beta=0.1, sft_weight=0.5),
    "ipo": IPO(tau=0.009),
    "orpo": ORPO(lam=0.5),
    "reward_model": RewardModel(),
    "simpo": SimPO(beta=0.5, gamma=0.3),
}
"""cDPO and IPO stop short of where they turn back: these log-ratios stay below log(0.9 / 0.1) / 0.02 and 1 / 0.018."""
pairwise = pytest.mark.parametrize("objective", PAIRWISE.values(), ids=PAIRWISE)


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


def test_dpo_of_swapped_labels_by_hand():
    # The loss under the given label is log(4/3), under the swapped one log(4); a quarter is swapped.
    pair = branches([-10.0, -12.0], reference=[-10.0 - math.log(3), -12.0])
    loss, swapped_loss = math.log(4 / 3), math.log(4)
    conservative = DPO(beta=1.0, label_smoothing=0.25)(pair)
    robust = DPO(beta=1.0, label_smoothing=0.25, robust=True)(pair)
    assert conservative.loss.item() == pytest.approx(0.75 * loss + 0.25 * swapped_loss, abs=1e-6)
    assert robust.loss.item() == pytest.approx((0.75 * loss - 0.25 * swapped_loss) / 0.5, abs=1e-6)


@given(margin=st.floats(-20, 20), epsilon=st.floats(0.01, 0.45))
def test_robust_dpo_is_unbiased(margin, epsilon):
    # In expectation over labels swapped with probability epsilon, the loss is DPO's on clean labels.
    pair, swapped = branches([margin, 0.0], reference=[0.0, 0.0]), branches([0.0, margin], reference=[0.0, 0.0])
    robust = DPO(beta=1.0, label_smoothing=epsilon, robust=True)
    expected = (1 - epsilon) * robust(pair).loss + epsilon * robust(swapped).loss
    assert expected.item() == pytest.approx(DPO(beta=1.0)(pair).loss.item(), rel=1e-4, abs=1e-4)


def test_length_normalized_dpo_by_hand():
    # Policy over reference: +2 over 4 tokens, -1 over 2; half a nat a token each way.
    losses = DPO(beta=3.0, length_normalized=True)(branches([-10.0, -12.0], [4, 2], reference=[-12.0, -11.0]))
    assert losses.metrics["margin"].item() == pytest.approx(3.0)
    assert losses.loss.item() == pytest.approx(-math.log(sigmoid(3.0)), abs=1e-6)


def test_dpo_with_sft_term_by_hand():
    # The margin of test_dpo_by_hand; the chosen response has -10 over 4 tokens.
    losses = DPO(beta=0.5, sft_weight=0.2)(branches([-10.0, -12.0], [4, 2], reference=[-12.0, -11.0]))
    assert losses.metrics["nll"].item() == 2.5
    assert losses.loss.item() == pytest.approx(-math.log(sigmoid(1.5)) + 0.2 * 2.5, abs=1e-6)


def test_ipo_by_hand():
    # Log-ratios a token: 2 / 4 and -1 / 2, so the gap is 1; tau 0.25 asks for 2.
    losses = IPO(tau=0.25)(branches([-10.0, -12.0], [4, 2], reference=[-12.0, -11.0]))
    assert losses.loss.item() == pytest.approx(1.0)
    assert losses.metrics["margin"].item() == pytest.approx(0.25)


def test_ipo_is_least_at_its_gap_and_turns_back_beyond_it():
    for gap, sign in ((1.5, -1), (2.0, 0), (2.5, 1)):
        pair = branches([gap, 0.0], reference=[0.0, 0.0])
        pair.values.requires_grad_()
        IPO(tau=0.25)(pair).loss.sum().backward()
        assert pair.values.grad.sign().tolist() == [sign, -sign]


def test_simpo_by_hand():
    # Log-probabilities a token: -6 / 4 and -6 / 2; beta 2 makes the margin 3, of which gamma asks for 1.
    losses = SimPO(beta=2.0, gamma=1.0)(branches([-6.0, -6.0], [4, 2]))
    assert losses.metrics["margin"].item() == pytest.approx(3.0)
    assert losses.loss.item() == pytest.approx(-math.log(sigmoid(2.0)), abs=1e-6)


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


@pairwise
def test_a_group_equals_the_mean_over_its_pairs(objective):
    values, reference = [-3.0, -5.0, -4.0], [-4.0, -4.0, -4.0]
    group = objective(branches(values, [2, 3, 4], groups=(3,), reference=reference))
    pairs = [
        objective(branches([values[0], values[i]], [2, i + 2], reference=[reference[0], reference[i]])) for i in (1, 2)
    ]
    assert group.loss.item() == pytest.approx(sum(p.loss.item() for p in pairs) / 2, rel=1e-6, abs=1e-6)


def test_dpo_of_policy_equal_to_reference_is_log_two():
    assert DPO(beta=0.3)(branches([-7.0, -2.0], reference=[-7.0, -2.0])).loss.item() == pytest.approx(math.log(2))


@pairwise
@given(
    chosen=st.floats(-50, -0.1), rejected=st.floats(-50, -0.1), tokens=st.tuples(st.integers(1, 20), st.integers(1, 20))
)
def test_gradients_raise_chosen_and_lower_rejected(objective, chosen, rejected, tokens):
    example = branches([chosen, rejected], list(tokens), reference=[-5.0, -5.0])
    example.values.requires_grad_()
    objective(example).loss.sum().backward()
    assert example.values.grad[0] < 0 < example.values.grad[1]


@pairwise
@pytest.mark.parametrize("chosen", [-1e4, -1e-7, 0.0])
@pytest.mark.parametrize("rejected", [-1e4, -1e-7, 0.0])
def test_losses_metrics_and_gradients_are_finite_at_extremes(objective, chosen, rejected):
    example = branches([chosen, rejected], [1, 1], reference=[-50.0, -50.0])
    example.values.requires_grad_()
    losses = objective(example)
    losses.loss.sum().backward()
    for result in (losses.loss, example.values.grad, *losses.metrics.values()):
        assert torch.isfinite(result).all()


@pairwise
def test_an_example_does_not_depend_on_the_others(objective):
    values, tokens, reference = [-3.0, -5.0, -4.0, -9.0, -2.0], [2, 3, 4, 5, 6], [-4.0, -4.0, -4.0, -6.0, -3.0]
    together = objective(branches(values, tokens, groups=(3, 2), reference=reference))
    first = objective(branches(values[:3], tokens[:3], groups=(3,), reference=reference[:3]))
    second = objective(branches(values[3:], tokens[3:], groups=(2,), reference=reference[3:]))
    assert together.loss.tolist() == [first.loss.item(), second.loss.item()]
    assert set(together.metrics) == set(objective.metrics)


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


@pytest.mark.parametrize(
    "bad",
    [
        lambda: DPO(beta=0),
        lambda: DPO(beta=1, label_smoothing=0.5),
        lambda: DPO(beta=1, robust=True),
        lambda: DPO(beta=1, sft_weight=-1),
        lambda: IPO(tau=0),
        lambda: ORPO(lam=-0.1),
        lambda: SimPO(beta=0, gamma=1),
        lambda: SimPO(beta=1, gamma=-1),
    ],
)
def test_impossible_hyper_parameters_are_refused(bad):
    with pytest.raises(ValueError, match="must"):
        bad()


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_makes_its_objective(path):
    config = yaml.safe_load(path.read_text())
    module, name = config.pop("_target_").rsplit(".", 1)
    assert isinstance(getattr(import_module(module), name)(**config), Objective)
