"""Arena-Hard v0.1: verdicts of two games a prompt, Bradley-Terry, and published intervals and lengths."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multifaceted.data.bad_rows import BadRows, DataError
from multifaceted.data.reading import read_rows
from multifaceted.evaluation.protocols.arena_hard import (
    BASELINE,
    VERDICTS,
    Game,
    battles_of,
    bradley_terry,
    judge_texts,
    metrics,
    parse_verdict,
    predicted_win_rate,
    ratings,
    read_games,
    read_template,
)
from multifaceted.evaluation.statistics import percentile_interval


def game(question, verdict, swapped=False, model="small"):
    return Game(question=question, model=model, swapped=swapped, verdict=verdict)


@pytest.mark.parametrize("verdict", VERDICTS)
def test_each_verdict_is_read_and_turned_round_with_the_order(verdict):
    assert parse_verdict(f"So: [[{verdict}]]. Again, [[{verdict}]]") == verdict
    (share, battles), (swapped, same) = game("q", verdict).outcome, game("q", verdict, swapped=True).outcome
    assert share + swapped == 1 and battles == same == (3 if len(verdict) == 4 else 1)
    assert (share > 0.5) is verdict.startswith("B>")  # A is the baseline in the first game


@pytest.mark.parametrize("text", ["", "A>B", "[A>B]", "[[A>B]] or [[B>A]]", "[[A<B]]", "[[C]]", "[[A>>>B]]", "[[a>b]]"])
def test_anything_else_is_no_verdict(text):
    assert parse_verdict(text) is None and game("q", None).outcome is None


def test_the_judge_sees_the_answers_in_the_order_of_the_game(tmp_path):
    for swapped in (False, True):
        _, user = read_template(None).messages(judge_texts("Sing.", "lo", "la {answer_1}", swapped=swapped))
        assert all(f"{verdict} (" in user["content"] for verdict in VERDICTS)
        assert (user["content"].index("la {answer_1}\n") < user["content"].index("lo\n")) is swapped
    path = tmp_path / "judge_config.yaml"
    path.write_text('system_prompt: "Judge."\nprompt_template: ["{question_1}|{answer_1}|{answer_2}"]\n')
    assert read_template(path).messages(judge_texts("q", "b", "m", swapped=False))[1]["content"] == "q|b|m"
    for text, message in (("a: [", "not YAML"), ("judge: x", "needs a text system_prompt")):
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            read_template(path)


GAMES = [
    game("1", "B>>A"),  # three battles won
    game("1", "A>B", swapped=True),  # one won
    game("2", "A=B"),  # half of one
    game("2", None, swapped=True),
    game("3", "A>>B"),  # three lost
    game("3", "B>A", swapped=True),  # one lost
]


def test_win_rate_by_hand():
    ((name, estimate),) = metrics(GAMES).items()
    assert name == "arena_hard/win_rate" and estimate.value == pytest.approx(100 * 4.5 / 9)
    assert (estimate.n, estimate.unscored) == (5, 1)
    assert (estimate.low, estimate.high) == (0, 100)  # prompts 1 and 3 alone


def test_two_players_win_as_often_as_they_are_rated_to():
    battles = battles_of(GAMES, baseline="base")
    assert battles.models == ["base", "small"] and battles.won.sum() == 9
    found = ratings(battles, number=100)
    assert found["arena_hard/rating/base"].value == 1000 == found["arena_hard/rating/base"].low
    assert found["arena_hard/rating/small"].value == pytest.approx(1000, abs=1e-3)
    assert found["arena_hard/win_rate/small"].value == pytest.approx(50, abs=1e-4)
    assert found["arena_hard/win_rate/small"].n == 9


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), players=st.integers(2, 6))
def test_ratings_are_those_of_hunters_iteration(seed, players):
    """Another algorithm for the same optimum (Hunter 2004, equation 3)."""
    won = np.random.default_rng(seed).integers(1, 30, size=(players, players)).astype(float)
    np.fill_diagonal(won, 0)
    strength = np.ones(players)
    for _ in range(3000):
        games = (won + won.T) / (strength[:, None] + strength[None, :])
        strength = won.sum(axis=1) / games.sum(axis=1)
    expected = 1000 + 400 * np.log10(strength / strength[0])
    assert bradley_terry(won) == pytest.approx(expected, abs=1e-3)


def test_all_against_a_baseline_win_as_often_as_they_are_rated_to():
    won = np.array([[0.0, 30, 5, 12], [10, 0, 0, 0], [15, 0, 0, 0], [0, 0, 0, 0]])
    rates = predicted_win_rate(bradley_terry(won))
    assert rates == pytest.approx([50, 25, 75, 0], abs=1e-3) and np.isfinite(bradley_terry(won)).all()


def recorded(*judgments):
    return {"question_id": "1", "model": "small", "judge": "j", "games": [{"judgment": text} for text in judgments]}


def test_recorded_games_are_read(tmp_path):
    path = tmp_path / "games.jsonl"
    path.write_text(json.dumps(recorded("[[A>B]]", "no idea")))
    assert read_games(path) == [game("1", "A>B"), game("1", None, swapped=True)]
    path.write_text(json.dumps(recorded("[[A>B]]")))
    with pytest.raises(DataError, match="line 1: games holds 1; expected 2"):
        read_games(path)


def test_every_recorded_game_is_read_or_counted(shared):
    path = shared("arena_hard/model_judgment/gpt-3.5-turbo-0125.athene-v2.jsonl.gz")
    games = read_games(path)
    scores = [played["score"] for row in read_rows(path, BadRows()) for played in row.value["games"]]
    assert [one.verdict for one in games] == scores and len(games) == 216
    estimate = metrics(games)["arena_hard/win_rate"]
    assert (estimate.n, estimate.unscored) == (214, 2)
    (model,) = {one.model for one in games}
    rated = ratings(battles_of(games), number=100)
    assert rated[f"arena_hard/win_rate/{model}"].value == pytest.approx(estimate.value, abs=1e-5)
    assert rated[f"arena_hard/win_rate/{BASELINE}"].value == 50


@pytest.mark.parametrize("name", ["arena_hard", "alpaca"])
def test_published_intervals_are_percentiles_of_published_replicates(name, shared):
    rows = [row.value for row in read_rows(shared(f"published_bootstrap/{name}.jsonl.gz"), BadRows())]
    assert [percentile_interval(row["results"]) for row in rows] == [(row["lower"], row["upper"]) for row in rows]
