"""Outcomes of comparisons, and the rates that are made of them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from multifaceted.evaluation.statistics import bootstrap_mean
from multifaceted.records import Estimate


class Outcome(StrEnum):
    """What a comparison means for the policy."""

    WIN = "win"
    TIE = "tie"
    """Both are good."""
    BOTH_BAD = "both_bad"
    LOSS = "loss"


PREFERENCE = {Outcome.WIN: 1.0, Outcome.TIE: 0.5, Outcome.BOTH_BAD: 0.5, Outcome.LOSS: 0.0}
"""How much an outcome speaks for the policy where only a preference is asked for, as AlpacaEval counts draws."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """What was said of two responses at once: by a judge in one run, by one person, or by their scores.

    Attributes:
        cluster: what is resampled together: the instruction.
        outcomes: one for each order in which the responses were shown; None is unscored.
        empty: whether a response was missing, so that a rule decided.
    """

    cluster: Hashable
    outcomes: tuple[Outcome | None, ...]
    empty: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether every order has an outcome. Without one of them, a judge's liking for a place would count."""
        return None not in self.outcomes

    @property
    def agrees(self) -> float | None:
        """Whether both orders led to the same outcome; None where one is unscored."""
        return float(len(set(self.outcomes)) == 1) if self.is_whole and len(self.outcomes) > 1 else None


def win_rates(comparisons: Sequence[Comparison]) -> dict[str, Estimate]:
    """Rates and shares of outcomes, of which each order has one; none counts where the other order has no outcome.

    `win_rate` takes draws of either kind by half. `tie_win` is the paper's: wins and ties of all (arXiv 2405.17977,
    section 5), so "both bad" counts against the policy and it is not one less losses. `win_decided` is wins among wins
    and losses.
    """

    def share(value: Mapping[Outcome, float]) -> Estimate:
        """The mean over the outcomes that have a value."""
        rows = [
            (comparison.cluster, value[outcome] if comparison.is_whole and outcome is not None else None)
            for comparison in comparisons
            for outcome in comparison.outcomes
            if outcome in value or not comparison.is_whole
        ]
        return bootstrap_mean([number for _, number in rows], clusters=[cluster for cluster, _ in rows])

    return {
        "win_rate": share(PREFERENCE),
        "tie_win": share({outcome: float(outcome in (Outcome.WIN, Outcome.TIE)) for outcome in Outcome}),
        "win_decided": share({Outcome.WIN: 1.0, Outcome.LOSS: 0.0}),
        **{name.value: share({outcome: float(outcome is name) for outcome in Outcome}) for name in Outcome},
    }


def judge_metrics(comparisons: Sequence[Comparison]) -> dict[str, Estimate]:
    """How the judge behaved: whether it kept to its word in the other order, and what was not its to decide.

    `consistency` leaves out what a rule decided; `unscored` is the share of verdicts, `empty` that of comparisons.
    """
    asked = [comparison for comparison in comparisons if not comparison.empty]
    verdicts = [(comparison.cluster, outcome) for comparison in comparisons for outcome in comparison.outcomes]
    return {
        "consistency": bootstrap_mean([c.agrees for c in asked], clusters=[c.cluster for c in asked]),
        "unscored": bootstrap_mean(
            [float(outcome is None) for _, outcome in verdicts], clusters=[cluster for cluster, _ in verdicts]
        ),
        "empty": bootstrap_mean([float(c.empty) for c in comparisons], clusters=[c.cluster for c in comparisons]),
    }


def preference(comparisons: Sequence[Comparison]) -> float | None:
    """How much the comparisons of a prompt speak for the policy, from 0 to 1; None where none of them is whole."""
    spoken = [PREFERENCE[o] for each in comparisons if each.is_whole for o in each.outcomes if o is not None]
    return sum(spoken) / len(spoken) if spoken else None


def outcome_of_scores(ours: float | None, theirs: float | None) -> Outcome | None:
    """Two responses to a prompt by their scores: the higher wins, the same is a tie; None where one is unscored.

    Means that differ by less than a billionth are the same: they are sums of whole numbers in another order.
    """
    if ours is None or theirs is None:
        return None
    if abs(ours - theirs) < 1e-9:
        return Outcome.TIE
    return Outcome.WIN if ours > theirs else Outcome.LOSS
