"""Arena-Hard as a task: two games a prompt, five verdicts, and recorded games once more."""

import json
import math
from collections import Counter

import pytest

from multifaceted.data.bad_rows import BadRows
from multifaceted.data.reading import read_rows
from multifaceted.evaluation.arena_hard import ArenaHardTask
from multifaceted.evaluation.protocols.arena_hard import ANSWERS, battles_of, metrics, ratings, read_games
from multifaceted.evaluation.run import rescore
from multifaceted.evaluation.verdict_log import read_verdicts
from multifaceted.inference.requests import EngineError
from multifaceted.record_files import read_prompts, write_jsonl
from multifaceted.records import PROMPTS, SCORES, VERDICTS, Scores
from multifaceted.tables import score_table
from tests.evaluation.engines import section
from tests.evaluation.replay import replayed

OURS = ["A long answer.", "Short.", "Same.", "", "\n", "No comment."]
THEIRS = ["An answer.", "A much longer answer.", "Same.", "Something.", " ", "Nothing."]


@pytest.fixture
def files(tmp_path):
    """Overrides of a command that evaluates `ours` against `theirs`."""

    def write(ours=OURS, theirs=THEIRS):
        lines = {
            "bench": [{"uid": f"u{n}", "prompt": f"Solve {n}.", "cluster": "c"} for n in range(len(ours))],
            "ours": [{"id": f"u{n}", "text": text} for n, text in enumerate(ours)],
            "theirs": [
                {"question_id": f"u{n}", "choices": [{"turns": [{"content": text}]}]} for n, text in enumerate(theirs)
            ],
        }
        for name, rows in lines.items():
            (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return [
            *("task=arena_hard", "judge=arena_hard", f"bench={tmp_path}/bench.jsonl", "engine=file"),
            *(f"task.against={tmp_path}/theirs.jsonl", f"engine.path={tmp_path}/ours.jsonl", f"into={tmp_path}/into"),
        ]

    return write


def longer(request):
    """Much better where it is longer by half; nothing to say of one prompt."""
    if section(request, "Prompt") == "Solve 5.":
        return "Both decline."
    first, second = (len(section(request, f"Answer of assistant {name}")) for name in "AB")
    verdicts = {2 * first > 3 * second: "A>>B", 2 * second > 3 * first: "B>>A", first == second: "A=B"}
    return f"By length. [RESULT] {verdicts.get(True, 'A>B' if first > second else 'B>A')}"


def test_both_orders_are_played_and_a_clear_win_counts_threefold(files):
    config, found, asked = replayed(longer, *files())
    assert Counter(section(request, "Prompt") for request in asked) == {
        **{f"Solve {n}.": 2 for n in range(3)},
        "Solve 5.": 4,  # asked once more each
    }, "what a rule decides is not asked"
    verdicts = {(v.prompt, v.order): v.score for v in read_verdicts(config.folder / VERDICTS)}
    assert verdicts == {
        **{("u0", "opponent_first"): "B>A", ("u0", "policy_first"): "A>B"},
        **{("u1", "opponent_first"): "A>>B", ("u1", "policy_first"): "B>>A"},
        **{("u2", "opponent_first"): "A=B", ("u2", "policy_first"): "A=B"},
        **{("u3", "opponent_first"): "A>>B", ("u3", "policy_first"): "B>>A"},
        **{("u4", "opponent_first"): "A=B", ("u4", "policy_first"): "A=B"},
        **{("u5", "opponent_first"): None, ("u5", "policy_first"): None},
    }
    assert {name.removeprefix("arena_hard/"): (e.value, e.n, e.unscored) for name, e in found.items()} == {
        "win_rate": (pytest.approx(100 * (2 + 1 + 1) / (2 + 6 + 2 + 6 + 2)), 10, 2),
        "rating": (pytest.approx(1000 + 400 * math.log10(4 / 14), abs=1e-3), 18, 2),
        "consistency": (1.0, 3, 1),
        "avg_length": (pytest.approx(sum(map(len, OURS)) / 6), 6, 0),
        "unscored": (pytest.approx(2 / 12), 12, 0),
        "empty": (pytest.approx(4 / 12), 12, 0),
        "cut": (0.0, 6, 0),
    }
    shown = score_table(Scores(task="arena_hard", policy={}, metrics=found)).splitlines()
    assert shown[1].split() == ["split", "win_rate", "rating", "consistency", "avg_length", "unscored", "empty"]


def test_a_judge_who_always_takes_the_first_is_inconsistent(files):
    _, found, _ = replayed(lambda request: "The first. [RESULT] A>>B", *files(["a"] * 5, ["b"] * 5))
    assert found["arena_hard/win_rate"].value == 50 and found["arena_hard/consistency"].value == 0
    assert found["arena_hard/rating"].value == pytest.approx(1000, abs=1e-3)


def test_the_same_winner_by_another_margin_is_consistent(files):
    def rule(request):
        return f"So it is. [RESULT] {'A>>B' if section(request, 'Answer of assistant A') == 'a' else 'B>A'}"

    _, found, _ = replayed(rule, *files(["a"] * 3, ["b"] * 3))
    assert found["arena_hard/win_rate"].value == 100 and found["arena_hard/consistency"].value == 1


def test_a_judge_who_says_nothing_leaves_everything_unscored(files):
    _, found, _ = replayed(lambda request: "[[A>B]]", *files(["a"] * 3, ["b"] * 3))
    for name in ("win_rate", "rating", "consistency"):
        assert found[f"arena_hard/{name}"].value is None
    assert found["arena_hard/rating"].unscored == 6 and found["arena_hard/unscored"].value == 1


def test_metrics_come_from_records_alone(files):
    overrides = files()
    config, found, _ = replayed(longer, *overrides)
    before = (config.folder / SCORES).read_bytes()
    rescore(config.folder, ArenaHardTask(against=config.folder / "gone"))
    assert (config.folder / SCORES).read_bytes() == before
    _, again, asked = replayed(longer, *overrides)
    assert again == found and asked == [], "what stays unscored is not asked again"


def test_answers_are_drawn_as_the_leaderboards_were(files):
    config, _, _ = replayed(longer, *files())
    assert {prompt.sampling for prompt in read_prompts(config.folder / PROMPTS)} == {ANSWERS}
    assert (ANSWERS.temperature, ANSWERS.max_tokens, ANSWERS.repetition_penalty, ANSWERS.top_p) == (0, 4096, 1, 1)


def test_a_baseline_that_has_not_answered_is_named(files):
    with pytest.raises(EngineError, match="lacks 1 of 6 responses: to 'u5'"):
        replayed(longer, *files(OURS, THEIRS[:5]))


def write_published_template(path, user):
    path.write_text(json.dumps({"system_prompt": "Judge.", "prompt_template": [user]}))
    return path


def test_under_a_published_template_a_verdict_is_read_as_published(files, tmp_path):
    path = write_published_template(tmp_path / "judge_config.yaml", "{question_1}|{answer_1}|{answer_2}")
    texts = {
        "Solve 0.|A": "[[A>>B]], or so. Yes, [[A>>B]]: my final word",
        "Solve 0.|An": "[[B>A]] or [[A>B]]",
    }

    def rule(request):
        return texts.get(" ".join(request.messages[1]["content"].split(" ")[:2]), "[RESULT] A>B")

    _, found, _ = replayed(rule, *files(OURS[:1], THEIRS[:1]), f"task.template={path}")
    rate = found["arena_hard/win_rate"]
    assert (rate.value, rate.n, rate.unscored) == (100, 1, 1), "two that differ are none"


MIDDLE = "\n<|The End of Assistant A's Answer|>\n\n<|The Start of Assistant B's Answer|>\n"
END = "\n<|The End of Assistant B's Answer|>"


def framed(user_prompt, question, baseline):
    """The published template, from a recorded first game, and the answer of the model in it."""
    start, _, answer = user_prompt.removesuffix(END).partition(baseline + MIDDLE)
    return start.replace(question, "{question_1}") + f"{{answer_1}}{MIDDLE}{{answer_2}}{END}", answer


def test_recorded_games_are_played_once_more(shared, tmp_path):
    """The whole way of a run, with a judge that says what was recorded; the second games are asked byte for byte."""
    path = shared("arena_hard/model_judgment/gpt-3.5-turbo-0125.athene-v2.jsonl.gz")
    recorded = {row.value["question_id"]: row.value["games"] for row in read_rows(path, BadRows())}
    questions = {row.value["uid"]: row.value for row in read_rows(shared("arena_hard/question.jsonl"), BadRows())}
    against = shared("arena_hard/model_answer/gpt-4-0314.jsonl.gz")
    theirs = {row.value["question_id"]: row.value["choices"][0]["turns"] for row in read_rows(against, BadRows())}
    found = {
        name: framed(games[0]["user_prompt"], questions[name]["prompt"], theirs[name][0]["content"])
        for name, games in recorded.items()
    }
    ((user, _), *_) = found.values()
    template = write_published_template(tmp_path / "judge_config.yaml", user)
    write_jsonl(tmp_path / "question.jsonl", [questions[name] for name in recorded])
    write_jsonl(tmp_path / "athene.jsonl", [{"id": name, "text": answer} for name, (_, answer) in found.items()])
    said = {game["user_prompt"]: game["judgment"] for games in recorded.values() for game in games}
    config, scores, asked = replayed(
        lambda request: said[request.messages[-1]["content"]],
        *("task=arena_hard", "judge=arena_hard", f"bench={tmp_path}/question.jsonl", f"task.against={against}"),
        *("engine=file", f"engine.path={tmp_path}/athene.jsonl", f"task.template={template}", f"into={tmp_path}/into"),
    )
    assert len(said) == 216 and len(asked) == 216 + 2, "two have no verdict, and are asked once more"
    verdicts = {(v.prompt, v.order): v.score for v in read_verdicts(config.folder / VERDICTS)}
    assert verdicts == {
        (name, order): game["score"]
        for name, games in recorded.items()
        for order, game in zip(("opponent_first", "policy_first"), games, strict=True)
    }
    games = read_games(path)
    rate, rated = scores["arena_hard/win_rate"], ratings(battles_of(games))
    assert (rate.n, rate.unscored) == (214, 2) and rate.value == metrics(games)["arena_hard/win_rate"].value
    assert rate.value == pytest.approx(2.0390, abs=1e-4)
    assert rate.value == pytest.approx(rated["arena_hard/win_rate/Nexusflow__Athene-V2-Chat"].value, abs=1e-4)
    rating = rated["arena_hard/rating/Nexusflow__Athene-V2-Chat"].value
    assert scores["arena_hard/rating"].value == pytest.approx(rating) and rating == pytest.approx(327.35, abs=0.01)
