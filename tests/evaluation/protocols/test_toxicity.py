"""RealToxicityPrompts: the worst of several continuations, and how much they differ."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multifaceted.data.bad_rows import BadRows
from multifaceted.data.reading import read_rows
from multifaceted.evaluation.protocols.toxicity import MOST_PERPLEXITY, distinct, diversity, metrics, perplexity
from multifaceted.records import Likelihood


def test_the_worst_continuation_by_hand():
    found = metrics({"a": [0.1, 0.5], "b": [0.2, 0.3], "c": [0.9, 0.0], "d": [0.9, None]})
    assert {name: (e.value, e.n, e.unscored) for name, e in found.items()} == {
        "real_toxicity_prompts/expected_max_toxicity": (pytest.approx((0.5 + 0.3 + 0.9) / 3), 3, 1),
        "real_toxicity_prompts/toxicity_probability": (pytest.approx(2 / 3), 3, 1),
    }


def test_prompts_are_compared_over_as_many_continuations():
    with pytest.raises(ValueError, match="from 1 to 2 continuations"):
        metrics({"a": [0.1], "b": [0.1, 0.2]})
    with pytest.raises(ValueError, match="from 0 to 0 continuations"):
        metrics({"a": []})
    with pytest.raises(ValueError, match=r"continuation of a is 1\.2"):
        metrics({"a": [1.2]})
    assert all(estimate.value is None and estimate.n == 0 for estimate in metrics({}).values())


def test_diversity_by_hand():
    found = diversity({"a": ["the cat sat", "the cat ran off"], "b": ["go", "go"], "c": ["", " "]})
    assert {name: (e.value, e.n, e.unscored) for name, e in found.items()} == {
        "real_toxicity_prompts/distinct_1": (pytest.approx((5 / 7 + 1 / 2) / 2), 2, 1),
        "real_toxicity_prompts/distinct_2": (pytest.approx(4 / 7 / 2), 2, 1),
        "real_toxicity_prompts/distinct_3": (pytest.approx(3 / 7 / 2), 2, 1),
    }


def test_perplexity_by_hand():
    """Over continuations and not prompts, as DExperts has it; one without tokens and a wild one are unscored."""

    def likelihood(perplexity, tokens=2):
        return Likelihood(id="x", logp=-tokens * math.log(perplexity), tokens=tokens)

    found = perplexity(
        {
            "a": [likelihood(10), likelihood(20, tokens=5), likelihood(30)],
            "b": [likelihood(40), Likelihood(id="x", logp=0.0, tokens=0), likelihood(MOST_PERPLEXITY)],
        },
        "toxic",
    )
    (estimate,) = found.values()
    assert (list(found), estimate.n, estimate.unscored) == (["toxic/perplexity"], 4, 2)
    assert estimate.value == pytest.approx(25) and 10 <= estimate.low < 25 < estimate.high <= 40


@given(st.lists(st.lists(st.sampled_from("ab"), max_size=6), max_size=4), st.integers(1, 3))
def test_repeating_continuations_adds_no_n_gram(texts, size):
    once = distinct(texts, size)
    assert distinct(texts * 3, size) == (None if once is None else pytest.approx(once / 3))


def test_real_continuations(shared):
    """One continuation a prompt: the highest toxicity is its own; 19 prompts lack a score, and some continuations."""
    rows = [row.value for row in read_rows(shared("toxicity/real_toxicity_prompts_5k.jsonl.gz"), BadRows())]
    scores = {str(place): [row["continuation"]["toxicity"]] for place, row in enumerate(rows)}
    known = [score for (score,) in scores.values() if score is not None]
    found = metrics(scores)
    highest = found["real_toxicity_prompts/expected_max_toxicity"]
    assert highest.value == pytest.approx(np.mean(known)) and highest.n + highest.unscored == 5000
    reached = found["real_toxicity_prompts/toxicity_probability"]
    assert reached.value == pytest.approx(np.mean([score >= 0.5 for score in known])) and highest.n == len(known)
