"""Arena-Hard v0.1 (Li et al. 2024, arXiv 2406.11939): two games a prompt against a baseline, in both orders.

A judge chooses one of five verdicts; a clear win counts as three battles.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np

from multifaceted.data.bad_rows import BadRowError
from multifaceted.data.benches.cells import Cells
from multifaceted.evaluation.logistic import Array, fit_logistic
from multifaceted.evaluation.protocols.own_templates import ARENA_HARD
from multifaceted.evaluation.protocols.recorded import read_recorded
from multifaceted.evaluation.protocols.templates import OwnTemplate, Template, read_yaml_template
from multifaceted.evaluation.statistics import bootstrap_mean, percentile_interval, places_of, resamples
from multifaceted.records import Estimate, Sampling

SPLIT = "arena_hard"
BASELINE = "gpt-4-0314"
VERDICTS: Mapping[str, tuple[float, int]] = {
    "A>>B": (1.0, 3),
    "A>B": (1.0, 1),
    "A=B": (0.5, 1),
    "B>A": (0.0, 1),
    "B>>A": (0.0, 3),
}
"""How far each is a win of A, and how many battles it counts as."""
LABELS = {verdict.lower(): verdict for verdict in VERDICTS}
"""What the judge may end with under our own template."""
ANSWERS = Sampling(temperature=0.0, top_p=1.0, repetition_penalty=1.0, max_tokens=4096)
"""How the models of the leaderboard answered."""
VERDICT = re.compile(r"\[\[([AB<>=]+)\]\]")
SCALE, ANCHOR = 400.0, 1000.0
"""A rating of 400 more means ten to one; the baseline's is 1,000."""
RIDGE = 1e-6
"""Keeps finite the rating of one that won or lost every battle; others it moves by less than the last digit shown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Game:
    """One verdict. In the first game of a prompt A is the baseline; where they are `swapped`, A is the model."""

    question: str
    model: str
    swapped: bool
    verdict: str | None

    @property
    def outcome(self) -> tuple[float, int] | None:
        """How far the model won, from 0 to 1, and how many battles that is; None where there is no verdict."""
        if self.verdict is None:
            return None
        of_a, battles = VERDICTS[self.verdict]
        return (of_a if self.swapped else 1 - of_a), battles


def read_template(path: Path | None) -> Template | OwnTemplate:
    """The judge's template; ours without a path.

    Args:
        path: Arena-Hard's `judge_config.yaml`, under which verdicts are comparable with published ones.

    Raises:
        DataError: it is missing, or hides something from the judge.
    """
    return ARENA_HARD if path is None else read_yaml_template(path).checked({*ARENA_HARD.headings})


def judge_texts(instruction: str, baseline: str, model: str, *, swapped: bool) -> dict[str, str]:
    """What the judge is shown of one game, by the places of the template; each prompt has a game of either kind."""
    first, second = (model, baseline) if swapped else (baseline, model)
    return {"question_1": instruction, "answer_1": first, "answer_2": second}


def parse_verdict(judgment: str) -> str | None:
    """The one of the five verdicts in a judge's text; None where there is none, or several that differ."""
    found = {*VERDICT.findall(judgment)}
    return found.pop() if len(found) == 1 and found <= {*VERDICTS} else None


def metrics(games: Sequence[Game]) -> dict[str, Estimate]:
    """`win_rate` of one model against the baseline, in percent of battles: what Bradley-Terry predicts of two players.

    Both games of a prompt are resampled together. The published intervals resample battles, as if the three of a clear
    win were independent.
    """
    values: list[float | None] = []
    for game in games:
        share, battles = game.outcome or (None, 1)
        values += [None if share is None else 100 * share] * battles
    clusters = [game.question for game in games for _ in range(game.outcome[1] if game.outcome else 1)]
    estimate = bootstrap_mean(values, clusters=clusters)
    return {f"{SPLIT}/win_rate": replace(estimate, n=sum(game.outcome is not None for game in games))}


@dataclass(frozen=True, kw_only=True, slots=True)
class Battles:
    """Games of several models against each other, as counts.

    Attributes:
        won: how many battles each won against each, by prompt, [prompts, models, models].
    """

    models: Sequence[str]
    won: Array


def battles_of(games: Sequence[Game], baseline: str = BASELINE) -> Battles:
    """The battles of games that have a verdict, each between a model and the baseline."""
    scored = [(game, *game.outcome) for game in games if game.outcome is not None]
    models = list(dict.fromkeys([baseline, *(game.model for game, *_ in scored)]))
    prompts = places_of(game.question for game, *_ in scored)
    won = np.zeros((len({*prompts}), len(models), len(models)))
    for prompt, (game, share, battles) in zip(prompts, scored, strict=True):
        model = models.index(game.model)
        won[prompt, model, 0] += battles * share
        won[prompt, 0, model] += battles * (1 - share)
    return Battles(models=models, won=won)


def bradley_terry(won: Array) -> Array:
    """Ratings by maximum likelihood (Bradley and Terry 1952), on Elo's scale, the first player's being 1,000.

    Args:
        won: how many battles each won against each, [players, players]; a tie is half a battle for both.
    """
    first, second = np.triu_indices(len(won), k=1)
    games = won[first, second] + won[second, first]
    first, second, games = first[games > 0], second[games > 0], games[games > 0]
    features = np.zeros((len(games), len(won)))
    features[np.arange(len(games)), first] = 1.0
    features[np.arange(len(games)), second] = -1.0
    features = features[:, 1:]  # the first player's strength is 0: only differences mean something
    strengths = fit_logistic(features, games, won[first, second] @ features, l2=RIDGE)
    return np.concatenate([[ANCHOR], ANCHOR + SCALE / np.log(10) * strengths])


def predicted_win_rate(ratings: Array) -> Array:
    """In percent, how often each is to win against the first, by their ratings, [players]."""
    return np.asarray(100 / (1 + 10 ** ((ratings[0] - ratings) / SCALE)))


def ratings(battles: Battles, seed: int = 0, number: int = 500) -> dict[str, Estimate]:
    """`rating` and `win_rate` against the baseline by model, both by Bradley-Terry; `n` counts battles.

    Intervals are 95 % percentile ones, from prompts resampled with all their battles.

    Args:
        number: of resamples.
    """
    prompts = len(battles.won)
    draws = chain.from_iterable(resamples(prompts, seed, number))
    counts = (np.bincount(picks, minlength=prompts) for picks in draws)
    replicates = np.array([bradley_terry(np.tensordot(count.astype(float), battles.won, axes=1)) for count in counts])
    best = bradley_terry(battles.won.sum(axis=0))
    estimates = {}
    for column, model in enumerate(battles.models):
        n = round(float(battles.won[:, column].sum() + battles.won[:, :, column].sum()))
        for name, value, drawn in (
            ("rating", best, replicates[:, column]),
            ("win_rate", predicted_win_rate(best), [predicted_win_rate(row)[column] for row in replicates]),
        ):
            low, high = percentile_interval(drawn)
            estimates[f"{SPLIT}/{name}/{model}"] = Estimate(value=float(value[column]), low=low, high=high, n=n)
    return estimates


def read_games(path: Path) -> list[Game]:
    """The games of a file as Arena-Hard's `model_judgment/`, with verdicts from the judge's texts.

    Raises:
        DataError: the file is missing, or has a row without two games.
    """

    def games(cells: Cells) -> list[Game]:
        found = [Cells.of(game, "a game") for game in cells.items("games")]
        if len(found) != 2:
            raise BadRowError("wrong_value", f"games holds {len(found)}; expected 2, the second in swapped order")
        question, model = cells.label("question_id", "uid"), cells.text("model")
        return [
            Game(question=question, model=model, swapped=swapped, verdict=parse_verdict(game.text("judgment")))
            for swapped, game in zip((False, True), found, strict=True)
        ]

    return list(chain.from_iterable(read_recorded(path, games)))
