"""AlpacaEval 2: preferences of three kinds of judges, and the published win rates."""

import csv
import json
import math
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multifaceted.data.bad_rows import BadRows, DataError
from multifaceted.data.benches import read_bench
from multifaceted.data.reading import read_rows
from multifaceted.evaluation.protocols.alpaca_eval import (
    Annotation,
    is_swapped,
    judge_texts,
    metrics,
    parse_preference,
    ranked_preference,
    read_annotations,
    read_preferences,
    read_template,
    weighted_preference,
    win_rate,
)

ANNOTATIONS = "alpaca_eval2/annotations"


def leaderboard(path):
    with path.open(encoding="utf-8", newline="") as stream:
        return {row[""]: row for row in csv.DictReader(stream)}


@given(st.dictionaries(st.sampled_from(["m", "M", "The"]), st.floats(-800, 0)))
def test_a_weighted_preference_does_not_depend_on_the_order_shown(logprobs):
    shown, swapped = (weighted_preference(logprobs, swapped=value) for value in (False, True))
    if shown is None:
        assert swapped is None and not any(math.exp(logprobs.get(label, -math.inf)) for label in "mM")
    else:
        assert 1 <= shown <= 2 and shown + swapped == pytest.approx(3)
        assert weighted_preference(logprobs | {"other": 0.0}, swapped=False) == shown


def test_the_label_of_the_models_answer_is_preferred():
    logprobs = {"m": math.log(0.3), "M": math.log(0.1), "The": math.log(0.6)}
    assert weighted_preference(logprobs, swapped=False) == pytest.approx(1.25)  # the model is M
    assert weighted_preference(logprobs, swapped=True) == pytest.approx(1.75)
    assert weighted_preference({"M": -1.0}, swapped=False) == 2


@pytest.mark.parametrize(
    ("reply", "shown"),
    [
        *(("m", 1), ("M", 2), ("M.", 2), ("both are fine, but\n\nM", 2), ("**m**", 1), ("m or M?", 2)),
        *(("", None), ("neither", None), ("Tom", None), ("M is better", None)),
    ],
)
def test_the_last_word_is_the_verdict(reply, shown):
    assert parse_preference(reply, swapped=False) == shown
    assert parse_preference(reply, swapped=True) == (None if shown is None else 3 - shown)


@pytest.mark.parametrize(
    ("ranks", "shown"),
    [({"m": 1, "M": 2}, 1), ({"m": 2, "M": 1}, 2), ({"m": 1, "M": 1}, None), ({"m": 1}, None), ({}, None)],
)
def test_a_ranking_without_one_best_is_unscored(ranks, shown):
    assert ranked_preference(ranks, swapped=False) == shown
    assert ranked_preference(ranks, swapped=True) == (None if shown is None else 3 - shown)


def test_the_judge_sees_both_answers_in_the_order_asked_for():
    for swapped in (False, True):
        texts = judge_texts("Sing.", "la {output_2}", "lo", swapped=swapped)
        system, user = read_template(None).messages(texts)
        assert system["role"] == "system" and "Sing." in user["content"]
        assert (user["content"].index("\nlo\n") < user["content"].index("\nla {output_2}\n")) is swapped


def test_a_template_in_the_published_form_is_read(tmp_path):
    path = tmp_path / "judge.txt"
    path.write_text('<|im_start|>user\n{"a": """{instruction}"""}\n{output_1}|{output_2}\n<|im_end|>\n')
    assert read_template(path).messages(judge_texts("I", "b", "m", swapped=False)) == [
        {"role": "user", "content": '{"a": """I"""}\nb|m'}
    ]
    path.write_text("{instruction} {output_1} {output_2}")
    with pytest.raises(DataError, match="no message between"):
        read_template(path)
    path.write_text("<|im_start|>user\n{instruction} {output_1}<|im_end|>")
    with pytest.raises(DataError, match=r"it needs \{instruction\}, \{output_1\}, \{output_2\}"):
        read_template(path)


def test_win_rate_by_hand():
    found = win_rate([1.0, 1.5, 2.0, 1.8, 1.2])
    assert found.win_rate == pytest.approx(50) and found.discrete_win_rate == 50
    assert (found.n_wins, found.n_wins_base, found.n_draws, found.n_total) == (2, 2, 1, 5)
    assert found.standard_error == pytest.approx(100 * math.sqrt(0.68 / 4 / 5))
    for wrong in ([1.0], [1.0, 0.0], [1.0, math.nan]):
        with pytest.raises(ValueError, match=r"at least 2|expected 1"):
            win_rate(wrong)


def annotation(index, preference, model_length=10):
    return Annotation(index=index, preference=preference, baseline_length=20, model_length=model_length)


def test_unscored_annotations_are_counted_and_never_zero():
    found = metrics([annotation(0, 2.0), annotation(1, None), annotation(2, 1.6, 14)])
    assert {name: (e.value, e.n, e.unscored) for name, e in found.items()} == {
        "alpaca_eval/win_rate": (pytest.approx(80), 2, 1),
        "alpaca_eval/discrete_win_rate": (100, 2, 1),
        "alpaca_eval/wins": (100, 2, 1),
        "alpaca_eval/draws": (0, 2, 1),
        "alpaca_eval/losses": (0, 2, 1),
        "alpaca_eval/avg_length": (pytest.approx(34 / 3), 3, 0),
    }


def test_recorded_annotations_are_read(tmp_path):
    path = tmp_path / "annotations.json"
    rows = [
        {"instruction": "a", "output_1": "1234", "output_2": "12", "preference": 1.25},
        {"instruction": "c", "output_1": "12", "output_2": "123", "preference": 0},
        {"instruction": "b", "output_1": "", "output_2": "1", "preference": None},
    ]
    path.write_text(json.dumps(rows))
    places = {"a": 0, "b": 1, "c": 2}
    read = read_annotations(path, places)
    assert [(a.index, a.preference, a.baseline_length, a.model_length) for a in read] == [
        (0, 1.25, 4, 2),
        (2, 1.5, 2, 3),  # 0 is a draw
        (1, None, 0, 1),
    ]
    for change, message in (({"preference": 2.5}, "preference is 2.5"), ({"instruction": "d"}, "no instruction 'd'")):
        path.write_text(json.dumps([rows[0] | change]))
        with pytest.raises(DataError, match=f"row 1: .*{message}"):
            read_annotations(path, places)


def test_a_table_of_preferences_is_read(tmp_path):
    path = tmp_path / "preferences.csv"
    path.write_text("model,index,preference,len_baseline,len_model\nx,4,1.5,3,5\ny,0,,3,6\nx,5,2,1,1\n")
    read = read_preferences(path)
    assert [(a.index, a.preference, a.model_length) for a in read["x"]] == [(4, 1.5, 5), (5, 2.0, 1)]
    assert read["y"][0].preference is None
    for cell in ("nan", "three", "7"):
        path.write_text(f"model,index,preference,len_baseline,len_model\nx,4,{cell},3,5\n")
        with pytest.raises(DataError, match="line 2: preference is"):
            read_preferences(path)


def test_every_model_has_its_published_win_rate(shared):
    published = leaderboard(shared("alpaca_eval2/leaderboard.csv"))
    models = read_preferences(shared("alpaca_eval2/preferences.csv.gz"))
    compared = 0
    for model in models.keys() & published.keys():
        found = asdict(win_rate([a.preference for a in models[model]]))
        assert found == {name: pytest.approx(float(published[model][name]), abs=1e-9) for name in found}
        ours = {name.removeprefix("alpaca_eval/"): e for name, e in metrics(models[model]).items()}
        assert ours["win_rate"].value == pytest.approx(found["win_rate"])
        assert ours["discrete_win_rate"].value == pytest.approx(found["discrete_win_rate"])
        counts = [round(ours[name].value * ours[name].n / 100) for name in ("wins", "losses", "draws")]
        assert counts == [found[name] for name in ("n_wins", "n_wins_base", "n_draws")]
        half = (ours["win_rate"].high - ours["win_rate"].low) / 2
        assert half == pytest.approx(1.96 * found["standard_error"], rel=0.1)
        if len(models[model]) == 805:  # lengths are of all outputs, annotated or not
            assert int(ours["avg_length"].value) == int(published[model]["avg_length"])
        compared += 1
    assert compared == 36 and models.keys() - published.keys() == {"text_davinci_003"}


def test_the_coin_is_of_the_instruction_and_the_seed():
    coins = {seed: [is_swapped(f"Write {n}.", seed) for n in range(1000)] for seed in (0, 1)}
    assert coins[0] == [is_swapped(f"Write {n}.", 0) for n in range(1000)] != coins[1]
    assert all(450 < sum(coin) < 550 for coin in coins.values())


def test_weighted_preferences_are_the_recorded_ones_in_the_order_of_the_published_coin(shared):
    path = shared(f"{ANNOTATIONS}/gpt-3.5-turbo-1106.weighted_alpaca_eval_gpt4_turbo.json.gz")
    rows = [row.value for row in read_rows(path, BadRows())]
    judged = [row for row in rows if row["raw_completion"] is not None]
    for row in judged:
        first = row["raw_completion"]["logprobs"]["content"][0]["top_logprobs"]
        logprobs = {token["token"]: token["logprob"] for token in first}
        found = weighted_preference(logprobs, swapped=is_swapped(row["instruction"], 0))
        assert abs(found - row["preference"]) < 5e-11
    assert len(judged) == 801
    others = [row for row in rows if row["raw_completion"] is None]
    assert all(row["preference"] == 1.5 and row["output_1"] == row["output_2"] for row in others)


def test_rankings_are_the_recorded_preferences(shared):
    path = shared(f"{ANNOTATIONS}/Mistral-7B-Instruct-v0.2.alpaca_eval_cot_gpt4_turbo_fn.json.gz")
    unscored = []
    for row in (row.value for row in read_rows(path, BadRows())):
        ranks = {one["model"]: one["rank"] for one in row["raw_completion"]["ordered_models"]}
        found = ranked_preference(ranks, swapped=row["referenced_models"]["m"] == "output_2")
        if found is None:
            unscored.append(ranks)
        else:
            assert found == row["preference"]
    assert unscored == [{"m": 1, "M": 1}]  # both first, which the published run took for the baseline


@pytest.mark.parametrize(
    ("file", "board", "model", "exact"),
    [
        (
            "Mistral-7B-Instruct-v0.2.alpaca_eval_cot_gpt4_turbo_fn",
            "leaderboard_cot_judge",
            "Mistral-7B-Instruct-v0.2",
            (15.527950310559005, 1.2772783712147573, 125, 680, 0),
        ),
        (
            "vicuna-13b.alpaca_eval_gpt4",
            "leaderboard_alpaca_eval1",
            "vicuna-13b",
            (70.43478260869566, 1.6069688407799696, 566, 237, 2),
        ),
        ("gpt-3.5-turbo-1106.weighted_alpaca_eval_gpt4_turbo", "leaderboard", "gpt-3.5-turbo-1106", None),
    ],
)
def test_win_rates_of_recorded_annotations(file, board, model, exact, shared):
    prompts = read_bench("alpaca_eval", shared("bench_sources/alpaca_eval_instructions.jsonl"), BadRows())
    places = {prompt.instruction: place for place, prompt in enumerate(prompts)}
    annotations = read_annotations(shared(f"{ANNOTATIONS}/{file}.json.gz"), places)
    assert sorted(a.index for a in annotations) == list(range(805))
    found = asdict(win_rate([a.preference for a in annotations]))
    published = leaderboard(shared(f"alpaca_eval2/{board}.csv"))[model]
    names = ("win_rate", "standard_error", "n_wins", "n_wins_base", "n_draws")
    assert [found[name] for name in names] == pytest.approx([float(published[name]) for name in names], abs=1e-9)
    if exact:
        assert [found[name] for name in names] == pytest.approx(exact, abs=1e-9)
