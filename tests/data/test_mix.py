"""Views and mixes: shares that hold, every example once, messages that state what the view says."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from multifaceted.data.bad_rows import BadRows, DataError
from multifaceted.data.blend import Blend, thin
from multifaceted.data.dataset import Data
from multifaceted.data.mix import Mix, show
from multifaceted.data.preference_files import PreferenceFiles
from multifaceted.data.shares import largest_remainder, shares_of, take_turns
from multifaceted.data.source import DataSource, MiniCollection
from multifaceted.mini.rules import satisfies
from multifaceted.model.tokenizer import train_tokenizer
from multifaceted.records import Example, StatedPreference, Turn
from tests.data.shapes import write

DIMENSIONS = ("style", "background_knowledge", "informativeness", "harmlessness")
WEIGHTS = st.dictionaries(st.sampled_from("abcdef"), st.floats(0, 10), min_size=1).filter(
    lambda w: sum(w.values()) > 1e-3
)
MINI = MiniCollection(num_examples=40, num_validation=10)


def preference(dimension, description="Short."):
    return StatedPreference(dimension=dimension, subdimension="s", preference="p", description=description)


def example(name, dimensions=DIMENSIONS, **changes):
    settings = {"system": "As released.", "turns": [Turn(role="user", content=f"What is {name}?")]}
    stated = [preference(d, f"{d} matters.") for d in dimensions]
    return Example(id=name, chosen="Yes.", rejected=["No."], preferences=stated, **(settings | changes))


@given(weights=WEIGHTS, number=st.integers(0, 300))
def test_largest_remainder_adds_up_and_stays_within_one(weights, number):
    shares = shares_of("weights", weights)
    counts = largest_remainder(shares, number)
    assert sum(counts.values()) == number and counts.keys() == shares.keys()
    assert all(abs(counts[name] - share * number) < 1 for name, share in shares.items())


@given(weights=WEIGHTS, number=st.integers(1, 200), longer=st.integers(0, 50))
def test_turns_keep_the_shares_at_every_moment(weights, number, longer):
    shares = shares_of("weights", weights)
    turns = take_turns(shares, number)
    assert take_turns(shares, number + longer)[:number] == turns
    counts = Counter(turns)
    assert all(abs(counts[name] - share * number) <= len(shares) for name, share in shares.items())


@given(weights=WEIGHTS, number=st.integers(1, 200), seed=st.integers(0, 5))
def test_every_example_gets_one_view_in_the_shares(weights, number, seed):
    mix = Mix(views=weights)
    ids = [str(i) for i in range(number)]
    views = mix.assign(ids, seed)
    assert views.keys() == set(ids) and views == mix.assign(ids[::-1], seed), "the order of rows does not matter"
    counts = largest_remainder(mix.view_shares, number)
    assert Counter(views.values()) == Counter({name: count for name, count in counts.items() if count})


def test_who_gets_which_view_follows_the_seed():
    mix, ids = Mix(views={"a": 1, "b": 1}), [str(i) for i in range(50)]
    assert mix.assign(ids, 0) != mix.assign(ids, 1)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"style": -1}, "views.style is -1"),
        ({"style": 0, "all": 0}, "at least one weight must be positive"),
        ({"style": float("nan")}, "views.style is nan"),
        ({}, "at least one weight must be positive"),
    ],
)
def test_impossible_weights_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        Mix(views=weights)


def test_a_view_states_its_dimensions_and_no_others():
    released = example("rain")
    source = DataSource()
    assert show(released, "released", source) is released
    assert show(released, "none", source).system is None
    assert show(released, "default", source).system == "You are a helpful assistant."
    two = show(released, "style+harmlessness", source).system
    assert two.endswith("style matters. harmlessness matters.") and "background" not in two
    assert all(f"{dimension} matters." in show(released, "all", source).system for dimension in DIMENSIONS)


def test_views_that_the_data_cannot_be_shown_in_are_refused():
    good, bare = example("rain"), example("snow", dimensions=())
    with pytest.raises(
        DataError, match=r"mix.views.styl: no example states a preference in 'styl'; allowed are .*style"
    ):
        Mix(views={"styl": 1}).refuse_unknown([good])
    with pytest.raises(DataError, match=r"mix.views.style: 1 of 2 examples state no preference .*'snow'"):
        Mix(views={"style": 1}).refuse_unknown([good, bare])
    with pytest.raises(DataError, match=r"mix.views.all: 1 of 1"):
        Mix(views={"all": 1}).refuse_unknown([bare])
    Mix(views={"released": 1, "none": 1}).refuse_unknown([bare])
    Mix(views={"style": 0, "released": 1}).refuse_unknown([bare])


def encoded(mix, source=MINI, max_length=400, **settings):
    data = Data(source=source, max_length=max_length, **settings)
    train, _ = data.examples(mix, 0, needs_rejected=True)
    texts = [text for e in train.examples for text in (e.system or "", e.chosen, *e.rejected)]
    tokenizer = train_tokenizer(texts, 400)
    return data.encode(train, mix, 0, tokenizer, with_rejected=True), tokenizer


def test_shares_hold_after_drops():
    mix = Mix(views={"style": 1, "all": 2, "none": 1})
    whole, _ = encoded(mix)
    lengths = sorted(len(tree.prompt) + max(map(len, tree.branches)) for tree in whole.trees)
    shorter, _ = encoded(mix, max_length=lengths[len(lengths) // 2])
    kept = len(shorter.trees)
    assert 0 < kept < 40 and sum(shorter.dropped.values()) == 40 - kept
    assert shorter.views == Counter(largest_remainder(mix.view_shares, kept))
    assert len({tree.id for tree in shorter.trees}) == kept


def test_a_mini_view_reads_like_the_bench():
    result, tokenizer = encoded(Mix(views={"style": 1}))
    for tree in result.trees[:10]:
        prompt = tokenizer.decode(tree.prompt)
        assert prompt.split("\n")[0].count(". ") == 1, prompt


def test_mini_pairs_differ_in_what_the_mix_says():
    shares = {"style": 3.0, "harmlessness": 1.0}
    examples = MINI.train(0, BadRows(), shares_of("contrasts", shares))
    assert Counter(e.contrast[0] for e in examples) == {"style": 30, "harmlessness": 10}
    for e in examples:
        stated = {p.dimension: p.preference for p in e.preferences}
        assert [satisfies(e.rejected[0], stated[d]) for d in DIMENSIONS] == [d not in e.contrast for d in DIMENSIONS]
    assert Mix(contrasts=shares).choose_contrasts(examples) == [*range(40)]
    with pytest.raises(DataError, match=r"mix.contrasts names taste; the mini world has style"):
        MINI.train(0, BadRows(), {"taste": 1.0})


def test_pairs_are_chosen_by_what_they_differ_in():
    rows = [example(f"{name}{i}", contrast=[name]) for name, n in (("style", 9), ("harmlessness", 4)) for i in range(n)]
    rows.append(example("both", contrast=["style", "harmlessness"]))
    chosen = Mix(contrasts={"style": 1, "harmlessness": 1}).choose_contrasts(rows)
    assert Counter(rows[i].contrast[0] for i in chosen) == {"style": 4, "harmlessness": 4}
    assert Mix(contrasts={"harmlessness+style": 1}).choose_contrasts(rows) == [rows.index(rows[-1])]
    with pytest.raises(
        DataError, match=r"mix.contrasts.all: no pair differs in exactly that; the data has .*'style': 9"
    ):
        Mix(contrasts={"all": 1}).choose_contrasts(rows)


def test_examples_of_an_instruction_are_thinned_whatever_the_seed():
    turns = [Turn(role="user", content="What is rain?")]
    rows = [example(str(i), system=f"System {i}.", turns=turns) for i in range(3)] + [example("other")]
    one = {rows[i].id for i in thin(rows, 1)}
    two = {rows[::-1][i].id for i in thin(rows[::-1], 2)}
    assert len(one) == 2 and len(two) == 3 and one < two


@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    weights=st.lists(st.floats(0, 10), min_size=4, max_size=4),
    number=st.integers(1, 20),
    seed=st.integers(0, 9),
)
def test_a_blend_is_exact_whatever_its_weights(tmp_path_factory, sizes, weights, number, seed):
    sources = {}
    for name, size in zip("abcd", sizes, strict=False):
        path = tmp_path_factory.mktemp("blend") / f"{name}.jsonl"
        rows = [{"prompt": f"{name}, {i}?", "chosen": "Yes.", "rejected": "No."} for i in range(size)]
        sources[name] = PreferenceFiles(train_file=write(path, rows), validation_file=path)
    weights = dict(zip(sources, weights, strict=False))
    assume(sum(weights.values()) > 1e-3)
    wanted = largest_remainder(shares_of("weights", weights), number)
    blend, bad = Blend(sources=sources, weights=weights, num_examples=number), BadRows()
    if any(wanted[name] > len(list(source.train(0, BadRows()))) for name, source in sources.items() if name in wanted):
        with pytest.raises(DataError, match="and its share of"):
            list(blend.train(seed, bad))
        return
    drawn = list(blend.train(seed, bad))
    assert Counter(e.source for e in drawn) == Counter({name: n for name, n in wanted.items() if n})
    assert len({e.id for e in drawn}) == number and drawn == list(blend.train(seed, BadRows()))
    read = sum(size for name, size in zip(sources, sizes, strict=True) if name in wanted)
    assert len(drawn) + bad.counts["not_drawn"] == read, "what is not drawn is counted"


def test_a_blend_draws_its_shares_without_return():
    sources = {"a": MINI, "b": replace(MINI, num_examples=30)}
    blend = Blend(sources=sources, weights={"a": 0.75, "b": 0.25}, num_examples=50)
    rows = list(blend.train(3, BadRows()))
    assert Counter(e.source for e in rows) == largest_remainder({"a": 0.75, "b": 0.25}, 50)
    assert len({e.id for e in rows}) == 50 and rows == list(blend.train(3, BadRows()))
    assert len(list(blend.validation(0, BadRows()))) == 20
    assert show(rows[0], "style", blend).system == MINI.system_message(rows[0], rows[0].preferences[:1])
    with pytest.raises(DataError, match=r"sources.b has 30 .* at most 120"):
        short = replace(blend, num_examples=160, sources=sources | {"a": replace(MINI, num_examples=200)})
        list(short.train(0, BadRows()))
    with pytest.raises(ValueError, match="sources are a and weights are for b"):
        Blend(sources={"a": MINI}, weights={"b": 1}, num_examples=1)
