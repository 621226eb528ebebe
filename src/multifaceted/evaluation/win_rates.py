"""Outcomes of comparisons, and the rates that are made of them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
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


def win_metrics(
    outcomes: Sequence[Outcome | None],
    clusters: Sequence[Hashable],
    pairs: Sequence[tuple[Outcome | None, ...]],
    pair_clusters: Sequence[Hashable],
    empty: Sequence[bool],
) -> dict[str, Estimate]:
    """Rates and shares of outcomes, and how far the judge kept to its word in the other order.

    `win_rate` takes draws of either kind by half. `tie_win` is the paper's: wins and ties of all (arXiv 2405.17977,
    section 5), so "both bad" counts against the policy and it is not one less losses. `win_decided` is wins among wins
    and losses.

    Args:
        outcomes: one a verdict; None is unscored.
        clusters: of each verdict, the prompt.
        pairs: the outcomes of the same comparison in both orders.
        pair_clusters: of each of these, the prompt.
        empty: of each verdict, whether a response was missing.
    """

    def share(value: Mapping[Outcome, float]) -> Estimate:
        """The mean over the outcomes that have a value."""
        known = [place for place, outcome in enumerate(outcomes) if outcome is None or outcome in value]
        column = [None if (outcome := outcomes[place]) is None else value[outcome] for place in known]
        return bootstrap_mean(column, clusters=[clusters[place] for place in known])

    return {
        "win_rate": share(PREFERENCE),
        "tie_win": share({outcome: float(outcome in (Outcome.WIN, Outcome.TIE)) for outcome in Outcome}),
        "win_decided": share({Outcome.WIN: 1.0, Outcome.LOSS: 0.0}),
        **{name.value: share({outcome: float(outcome is name) for outcome in Outcome}) for name in Outcome},
        "consistency": bootstrap_mean([_agree(pair) for pair in pairs], clusters=pair_clusters),
        "unscored": bootstrap_mean([float(outcome is None) for outcome in outcomes], clusters=clusters),
        "empty": bootstrap_mean([float(value) for value in empty], clusters=clusters),
    }


def preferences(outcomes: Mapping[str, Sequence[Outcome | None]]) -> dict[str, float | None]:
    """Per prompt how much its comparisons speak for the policy, from 0 to 1; None where one of them is unscored."""
    return {
        prompt: None if None in row or not row else sum(PREFERENCE[o] for o in row if o is not None) / len(row)
        for prompt, row in outcomes.items()
    }


def outcomes_of_scores(
    policy: Mapping[str, float | None], opponent: Mapping[str, float | None]
) -> dict[str, Outcome | None]:
    """Rubric scores compared: the higher mean wins, the same is a tie; None where one is unscored.

    Means that differ by less than a billionth are the same: they are sums of whole numbers in another order.

    Raises:
        ValueError: the two do not have the same prompts.
    """
    if policy.keys() != opponent.keys():
        other = sorted(policy.keys() ^ opponent.keys())
        raise ValueError(f"{len(other)} prompts are scored for one of the two only, first {other[0]!r}; score both")
    outcomes: dict[str, Outcome | None] = {}
    for prompt, ours in policy.items():
        theirs = opponent[prompt]
        if ours is None or theirs is None:
            outcomes[prompt] = None
        elif abs(ours - theirs) < 1e-9:
            outcomes[prompt] = Outcome.TIE
        else:
            outcomes[prompt] = Outcome.WIN if ours > theirs else Outcome.LOSS
    return outcomes


def _agree(pair: Sequence[Outcome | None]) -> float | None:
    """Whether both orders led to the same outcome; None where one is unscored."""
    return None if None in pair or len(pair) < 2 else float(pair[0] == pair[1])
