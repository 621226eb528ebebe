"""Arena-Hard v0.1 as a task: each answer against a baseline's in both orders, one of five verdicts a game."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multifaceted.data.bad_rows import BadRows
from multifaceted.data.benches import read_bench
from multifaceted.evaluation.judge import Question
from multifaceted.evaluation.material import is_empty
from multifaceted.evaluation.opponents import read_opponents
from multifaceted.evaluation.pairwise import Order
from multifaceted.evaluation.protocols.arena_hard import (
    ANSWERS,
    LABELS,
    SPLIT,
    Game,
    battles_of,
    judge_texts,
    metrics,
    parse_verdict,
    ratings,
    read_template,
)
from multifaceted.evaluation.protocols.templates import OwnTemplate, Template
from multifaceted.evaluation.statistics import bootstrap_mean
from multifaceted.evaluation.verdict_log import latest_verdicts, verdicts_of
from multifaceted.records import Estimate, Prompt, Response, Verdict

POLICY = "policy"
"""What the evaluated model is called among the rated."""


@dataclass(kw_only=True, slots=True)
class ArenaHardTask:
    """Two games a prompt; A is the baseline in the first of them, and the policy in the second.

    An empty answer loses clearly by rule, and two are equally good; the judge is not asked then.

    Attributes:
        against: the baseline's answers, in any layout that `inference.files` reads; published figures are against
            Arena-Hard's `model_answer/gpt-4-0314.jsonl`.
        bench: Arena-Hard's `question.jsonl`.
        template: Arena-Hard's `judge_config.yaml`, under which verdicts compare with published ones; ours by default.
    """

    against: Path
    bench: Path | None = None
    template: Path | None = None

    @property
    def name(self) -> str:
        """What the task is called in records."""
        return SPLIT

    def prompts(self, seed: int) -> list[Prompt]:
        """All prompts; nothing is drawn, so the seed has no say.

        Raises:
            DataError: a file is missing or broken.
            EngineError: the baseline has not answered every prompt.
        """
        read_template(self.template)
        prompts = read_bench("arena_hard", self.bench, BadRows(option=""))
        read_opponents(self.against, prompts)
        for prompt in prompts:
            prompt.sampling = ANSWERS
        return prompts

    def questions(self, prompts: Sequence[Prompt], responses: Mapping[str, Response]) -> list[Question]:
        """Two a prompt, one for each game."""
        template, baseline = read_template(self.template), read_opponents(self.against, prompts)
        return [
            _game_question(template, prompt, baseline[prompt.id], responses[prompt.id].text, swapped=swapped)
            for prompt in prompts
            for swapped in (False, True)
        ]

    def metrics(self, prompts: Sequence[Prompt], verdicts: Sequence[Mapping[str, Any]]) -> dict[str, Estimate]:
        """`arena_hard/<metric>`: `win_rate` in percent, `rating`, `avg_length` in characters, and shares.

        `consistency` is the share of prompts on which both games have the same winner, or none; it leaves out those of
        which a rule decided.
        """
        latest = list(latest_verdicts(verdicts_of(verdicts)).values())
        games = [_game(verdict) for verdict in latest]
        clusters = [verdict.prompt for verdict in latest]
        lengths = {verdict.prompt: float(verdict.lengths[0]) for verdict in latest if verdict.lengths is not None}
        both: dict[tuple[str, int], list[Game]] = {}
        for verdict, game in zip(latest, games, strict=True):
            if not verdict.empty:
                both.setdefault((verdict.prompt, verdict.run), []).append(game)
        return {
            **metrics(games),
            f"{SPLIT}/rating": _rating(games),
            f"{SPLIT}/consistency": bootstrap_mean(
                [_agree(pair) for pair in both.values()], clusters=[prompt for prompt, _ in both]
            ),
            f"{SPLIT}/avg_length": bootstrap_mean(list(lengths.values())),
            f"{SPLIT}/unscored": bootstrap_mean([float(v.score is None) for v in latest], clusters=clusters),
            f"{SPLIT}/empty": bootstrap_mean([float(v.empty) for v in latest], clusters=clusters),
        }


def _game_question(
    template: Template | OwnTemplate, prompt: Prompt, baseline: str, policy: str, *, swapped: bool
) -> Question:
    texts = judge_texts(prompt.instruction, baseline, policy, swapped=swapped)
    return Question(
        prompt=prompt.id,
        response=prompt.id,
        messages=template.messages(texts),
        read=template.reader(texts, parse_verdict, LABELS),
        order=(Order.POLICY_FIRST if swapped else Order.OPPONENT_FIRST).value,
        decided=_by_rule(texts["answer_1"], texts["answer_2"]),
        lengths=[len(policy), len(baseline)],
    )


def _by_rule(first: str, second: str) -> str | None:
    match is_empty(first), is_empty(second):
        case True, True:
            return "A=B"
        case True, False:
            return "B>>A"
        case False, True:
            return "A>>B"
    return None


def _game(verdict: Verdict) -> Game:
    return Game(
        question=verdict.prompt,
        model=POLICY,
        swapped=verdict.order == Order.POLICY_FIRST,
        verdict=None if verdict.score is None else str(verdict.score),
    )


def _rating(games: Sequence[Game]) -> Estimate:
    """By Bradley-Terry, the baseline's being 1,000."""
    unscored = sum(game.outcome is None for game in games)
    if unscored == len(games):
        return Estimate(value=None, low=None, high=None, n=0, unscored=unscored)
    rating = ratings(battles_of(games))[f"{SPLIT}/rating/{POLICY}"]
    rating.unscored = unscored
    return rating


def _agree(games: Sequence[Game]) -> float | None:
    """Whether both games went the same way; None where one is unscored."""
    outcomes = [game.outcome for game in games]
    first, *others = outcomes
    if first is None or not others or others[0] is None:
        return None
    return float(first[0] == others[0][0])
