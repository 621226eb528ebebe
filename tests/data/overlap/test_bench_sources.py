"""The real prompts of public benches, whose overlap is known."""

import json

import pytest

from multifaceted.data.overlap.contamination import find_contamination
from multifaceted.data.overlap.duplicates import find_duplicates
from multifaceted.data.overlap.normalise import normalise
from multifaceted.data.overlap.shingles import jaccard, shingles
from tests.data.overlap.texts import example, prompt

FILES = {
    "alpaca_eval": ("bench_sources/alpaca_eval_instructions.jsonl", lambda row: row["instruction"]),
    "self_instruct": (
        "bench_sources/self_instruct_user_oriented.jsonl",
        lambda row: f"{row['instruction']}\n{row['instances'][0]['input']}",
    ),
    "koala": ("bench_sources/koala_test_set.jsonl", lambda row: row["prompt"]),
    "vicuna": ("bench_sources/vicuna_bench_questions.jsonl", lambda row: row["turns"][0]),
    "mt_bench": ("bench_sources/mt_bench_questions.jsonl", lambda row: row["turns"][0]),
    "arena_hard": ("arena_hard/question.jsonl", lambda row: row["prompt"]),
}
SHARED_WITH_ALPACA_EVAL = {"self_instruct": 252, "koala": 144, "vicuna": 80, "mt_bench": 2}
OTHERS = [name for name in FILES if name != "alpaca_eval"]


@pytest.fixture(scope="module")
def asked(shared):
    """The prompts of each bench."""
    return {
        name: [text(json.loads(line)) for line in shared(path).read_text(encoding="utf-8").splitlines()]
        for name, (path, text) in FILES.items()
    }


def search(asked, near):
    rows = [example(str(i), text) for i, text in enumerate(asked["alpaca_eval"])]
    benches = {name: [prompt(str(i), text) for i, text in enumerate(asked[name])] for name in OTHERS}
    return find_contamination(rows, benches, near=near)


def test_exact_matches_are_the_known_ones_and_no_others(asked):
    contamination = search(asked, None)
    assert {name: len(found) for name, found in contamination.prompts.items()} == SHARED_WITH_ALPACA_EVAL
    for match in contamination.matches:
        texts = {normalise(asked[match.bench][int(name)]) for name in match.prompts}
        assert texts == {normalise(asked["alpaca_eval"][match.index])}


def test_near_matches_are_what_comparing_everything_with_everything_finds(asked):
    sets = {name: [shingles(text) for text in texts] for name, texts in asked.items()}
    expected = {
        (index, name, place)
        for name in OTHERS
        for place, theirs in enumerate(sets[name])
        for index, ours in enumerate(sets["alpaca_eval"])
        if not ours.isdisjoint(theirs) and jaccard(ours, theirs) >= 0.7
    }
    found = {
        (match.index, match.bench, int(place))
        for match in search(asked, 0.7).matches
        if match.how != "contained"
        for place in match.prompts
    }
    assert found == expected and len(found) > sum(SHARED_WITH_ALPACA_EVAL.values())


def test_the_licensed_sources_have_919_different_prompts(asked):
    names = ("alpaca_eval", "koala", "mt_bench", "self_instruct")
    rows = [example(f"{name}:{i}", text) for name in names for i, text in enumerate(asked[name])]
    assert len(rows) - len(find_duplicates(rows, near=None).found) == 919
