"""Training examples that hold a sentence which a bench has a model score."""

from dataclasses import replace

import pytest

from multifaceted.data.bad_rows import BadRows
from multifaceted.data.benches import BENCHES, Kind, read_bench
from multifaceted.data.benches.base import sentences_of
from multifaceted.data.overlap.clean import Overlap
from multifaceted.data.overlap.contamination import Field, find_contamination
from multifaceted.data.overlap.inverted import LEAST_SENTENCE, How
from multifaceted.data.overlap.shingles import shingles
from multifaceted.records import Prompt, Turn
from tests.data.benches.fixtures import LAYOUTS, write_bench
from tests.data.benches.test_benches import REAL
from tests.data.overlap.texts import example, sentence

SENTENCES = [name for name, bench in BENCHES.items() if bench.kind is Kind.SENTENCES]
SCORED = sentence("scored", 12)
BENCH = {"bench": [Prompt(id="p", split="bench", system=None, instruction="", metadata={"sentence": SCORED})]}


@pytest.mark.parametrize("name", SENTENCES)
def test_each_sentence_of_these_benches_is_looked_for(name, tmp_path):
    path = write_bench(tmp_path, name, [LAYOUTS[name](number) for number in range(6)])
    prompts = read_bench(name, path, BadRows())
    rows = [example(f"{p.id}/{i}", f"{text}") for p in prompts for i, text in enumerate(sentences_of(p))]
    found = Overlap(near=None).search(rows, {name: prompts})
    assert len(rows) == 6 * (1 + (name == "crows_pairs"))
    assert found.reasons == dict.fromkeys(range(len(rows)), f"sentence_in_{name}")


@pytest.mark.parametrize("place", ["system", "turn", "answer", "chosen", "rejected"])
def test_it_is_found_wherever_an_example_quotes_it(place):
    quoting = f'{sentence("before")} "{SCORED.upper()}" {sentence("after", 300)}'
    row = example("a", "Hi.")
    turns = {"turn": ["Hi.", "Yes?", quoting], "answer": ["Hi.", quoting, "Oh."]}
    if place in turns:
        spoken = [Turn(role=("user", "assistant")[i % 2], content=text) for i, text in enumerate(turns[place])]
        row = replace(row, turns=spoken)
    else:
        row = replace(row, **{place: [quoting] if place == "rejected" else quoting})
    (match,) = find_contamination([row], BENCH, near=0.8).matches
    assert (match.field, match.how, match.prompts) == (Field.SENTENCE, How.CONTAINED, ("p",))
    assert not find_contamination([row], BENCH, near=None).matches
    assert not find_contamination([row], BENCH, near=0.8, by=[Field.INSTRUCTION]).matches


def test_sentences_of_less_than_five_words_are_found_alone_only():
    for words, inside in ((LEAST_SENTENCE + 1, False), (LEAST_SENTENCE + 2, True)):
        scored = sentence("few", words)
        asked = {"bench": [replace(BENCH["bench"][0], metadata={"sentences": {"more": scored, "less": SCORED}})]}
        rows = [example("a", f"{scored}."), example("b", f"So {scored}, {sentence('more')}")]
        matches = find_contamination(rows, asked, near=0.8).matches
        assert [match.id for match in matches] == ["a", *(["b"] if inside else [])]


def test_what_is_asked_is_not_looked_for_in_answers():
    asked = Prompt(id="p", split="bench", system=None, instruction=SCORED, metadata={"sentence": SCORED})
    assert not find_contamination([example("a", "Hi.", chosen=SCORED)], {"bench": [asked]}, near=0.8).matches


def test_the_real_sentences_are_found_in_answers_that_quote_them_and_in_no_instruction_of_alpaca_eval(shared):
    prompts = {name: read_bench(name, shared(REAL[name][0]), BadRows()) for name in SENTENCES}
    texts = [text for asked in prompts.values() for prompt in asked for text in sentences_of(prompt)]
    rows = [example(str(i), "Go on.", chosen=f"Well, I heard: {text} What then?") for i, text in enumerate(texts)]
    matches = find_contamination(rows, prompts, near=0.8).matches
    short = {str(i) for i, text in enumerate(texts) if len(shingles(text)) < LEAST_SENTENCE}
    assert {row.id for row in rows} - {match.id for match in matches} == short and len(short) == 17
    others = read_bench("alpaca_eval", shared(REAL["alpaca_eval"][0]), BadRows())
    assert not find_contamination([example(p.id, p.instruction) for p in others], prompts, near=0.8).matches
