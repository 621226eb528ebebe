"""The splits of the Multifaceted Collection: what a row is in each, and what pairs regain from the SFT split."""

import copy
import json
import random
import tracemalloc
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from multifaceted.config import ConfigError, build
from multifaceted.data.bad_rows import BadRows, DataError, OnBadRow
from multifaceted.data.collections.multifaceted import Multifaceted
from multifaceted.data.collections.siblings import Siblings
from multifaceted.data.dataset import Data, counts
from multifaceted.data.mix import Mix
from multifaceted.data.source import texts_of
from multifaceted.model.tokenizer import train_tokenizer
from multifaceted.records import Example, StatedPreference, Turn
from tests.data.collections.sets import BEFORE, DIMENSIONS, THREE, message, pair, sft, stated
from tests.data.shapes import write

OUTPUTS = [row["output"] for row in THREE]


def read(path, policy=OnBadRow.RAISE, **settings):
    bad = BadRows(policy=policy)
    return list(Multifaceted(train_file=path, validation_file=path, **settings).train(0, bad)), bad


def test_a_row_of_the_sft_split_is_an_example(tmp_path):
    examples, _ = read(write(tmp_path / "a.parquet", THREE))
    assert len(examples) == len(THREE), "three for an instruction with three system messages"
    first = examples[0]
    assert (first.system, first.chosen, first.source) == (THREE[0]["system"], OUTPUTS[0], "Nectar")
    assert [p.dimension for p in first.preferences] == list(DIMENSIONS) and first.rejected == first.contrast == []


def test_names_of_before_the_release_and_of_a_chart_read_alike(tmp_path):
    released, _ = read(write(tmp_path / "rows.jsonl", THREE))
    (tmp_path / "old").mkdir()
    rows = copy.deepcopy(BEFORE)
    for preference in (preference for row in rows for preference in row["preference"]):
        preference["dimension"] = preference["dimension"].capitalize().replace("_", " ")
    old, _ = read(write(tmp_path / "old" / "rows.jsonl", rows))
    assert [replace(example, source="Nectar") for example in old] == released
    instruction = [{("instruction" if k == "prompt" else k): v for k, v in row.items()} for row in THREE]
    assert read(write(tmp_path / "rows.jsonl", instruction))[0] == released


def test_both_real_rows_of_the_collection(shared, tmp_path):
    lines = shared("janus/multifaceted_examples.jsonl").read_text().splitlines()
    rows = {row["kind"]: row["row"] for row in map(json.loads, lines)}
    (example,), _ = read(write(tmp_path / "a.jsonl", [rows["multifaceted_collection_sft"]]))
    assert example.system.startswith("As the Stellar Communicator") and example.turns[0].content.startswith("Detect")
    bench = rows["multifaceted_bench_initial_layout"]
    examples, bad = read(write(tmp_path / "b.jsonl", [bench]), OnBadRow.DROP)
    assert not examples and bad.counts == {"missing_column": 1}, "a row of the bench is no training data"
    (example,), _ = read(write(tmp_path / "c.jsonl", [bench]), columns={"output": "reference_answer"})
    assert [p.dimension for p in example.preferences] == list(DIMENSIONS) and example.id == "468"


@pytest.mark.parametrize("order", [0, 1, 2])
def test_groups_reject_what_was_written_for_the_other_system_messages(tmp_path, order):
    rows = list(THREE)
    random.Random(order).shuffle(rows)
    parts = [write(tmp_path / f"part-{i}.parquet", rows[i::2]) for i in range(2)]
    bad = BadRows()
    source = Multifaceted(train_file=parts, validation_share=0.001, siblings=True)
    groups = source.train(0, bad)
    assert {e.chosen: {*e.rejected} for e in groups} == {
        output: {*OUTPUTS[i // 3 * 3 : i // 3 * 3 + 3]} - {output} for i, output in enumerate(OUTPUTS)
    }, "wherever they stand"
    assert all(e.contrast == list(DIMENSIONS) for e in groups) and not bad.counts


def test_groups_where_instructions_have_other_than_three_rows(tmp_path):
    rows = [
        *[sft(i, 0, system) for i, system in enumerate(("poetry", "law"))],
        sft(2, 1, "poetry"),
        sft(3, 2, "poetry"), sft(4, 2, "poetry"),
        sft(5, 3, "poetry", output="The same."), sft(6, 3, "law", output="The same."), sft(7, 3, "science"),
        sft(8, 4, "poetry"), sft(9, 4, "law", preference_set=stated("poetry", "law", "poetry", "poetry")),
    ]  # fmt: skip
    examples, bad = read(write(tmp_path / "a.jsonl", rows), siblings=True)
    assert Counter(len(e.rejected) for e in examples) == {1: 7}, "the same output is rejected once"
    assert bad.counts == {"no_sibling": 3}, "one alone, and two under one system message"
    assert [e.contrast for e in examples[-2:]] == [["background_knowledge"]] * 2


def test_groups_are_made_of_sft_rows_only(tmp_path):
    path = write(tmp_path / "a.jsonl", [pair(0, 0, "poetry", "No.")])
    with pytest.raises(DataError, match="expected a row of the SFT split"):
        read(path, siblings=True)
    with pytest.raises(ConfigError, match="siblings=true finds the other outputs in train_file itself; leave join out"):
        build({"train_file": "a", "siblings": True, "join": "b"}, Multifaceted)


@pytest.mark.parametrize("split", ["dpo", "rm"])
def test_pairs_regain_what_they_were_written_for(tmp_path, split):
    collection = list(THREE)
    collection[4] = sft(4, 1, "science", preference_set=stated("poetry", "science", "poetry", "law"))
    random.Random(0).shuffle(collection)
    join = write(tmp_path / "sft.parquet", collection)
    rows = [pair(0, 0, "poetry", OUTPUTS[2], split), pair(3, 1, "poetry", OUTPUTS[4], split)]
    (first, second), bad = read(write(tmp_path / "pairs.jsonl", rows), join=join)
    assert first.preferences == [StatedPreference(**p) for p in THREE[0]["preference_set"]]
    assert first.contrast == list(DIMENSIONS) and second.contrast == ["background_knowledge", "harmlessness"]
    assert (first.system, first.turns[0].content) == (THREE[0]["system"], THREE[0]["prompt"])
    assert not bad.counts and not bad.kept


def test_a_pair_without_a_partner_is_kept_and_counted(tmp_path):
    join = write(tmp_path / "sft.jsonl", [*THREE, {**sft(99, 9, "law"), "preference_set": None}])
    rows = [
        pair(0, 0, "poetry", OUTPUTS[1]),
        pair(0, 7, "poetry", OUTPUTS[1]),
        pair(0, 0, "poetry", OUTPUTS[1]) | {"system": "Another."},
        pair(0, 0, "poetry", "Written for nobody."),
        pair(99, 9, "law", "No."),
    ]
    path = write(tmp_path / "pairs.jsonl", rows)
    examples, bad = read(path, join=join)
    reasons = ["join_no_prompt", "join_no_system", "join_no_rejected", "join_no_preferences"]
    assert len(examples) == len(rows) and not bad.counts
    assert bad.kept == {reason: {examples[place].id} for reason, place in zip(reasons, (1, 2, 3, 4), strict=True)}
    assert [bool(e.preferences) for e in examples] == [True, False, False, True, False]
    assert [bool(e.contrast) for e in examples] == [True, False, False, False, False]

    held_out = write(tmp_path / "held_out.jsonl", rows[:1])
    data = Data(source=Multifaceted(train_file=path, validation_file=held_out, join=join), max_length=400)
    part, _ = data.examples(Mix(), 0, needs_rejected=True)
    encoded = data.encode(part, Mix(), 0, train_tokenizer(texts_of(examples), 300), with_rejected=True)
    assert {k: n for k, n in counts(encoded).items() if not k.startswith("view")} == {f"kept/{r}": 1 for r in reasons}


def test_a_joined_pair_can_be_shown_in_one_dimension(tmp_path):
    join = write(tmp_path / "sft.jsonl", THREE)
    path = write(tmp_path / "pairs.jsonl", [pair(3 * i, i, "poetry", OUTPUTS[3 * i + 1]) for i in range(4)])
    mix = Mix(views={"style": 1})
    for joined, refused in ((None, True), (join, False)):
        data = Data(source=Multifaceted(train_file=path, validation_share=0.5, join=joined), max_length=400)
        if refused:
            with pytest.raises(DataError, match="4 of 4 examples state no preference"):
                data.examples(mix, 0, needs_rejected=True)
        else:
            part, _ = data.examples(mix, 0, needs_rejected=True)
            assert all(e.contrast == list(DIMENSIONS) for e in part.examples)


def test_a_join_that_is_not_the_sft_split_is_refused(tmp_path):
    pairs = write(tmp_path / "pairs.jsonl", [pair(0, 0, "poetry", "No.")])
    with pytest.raises(DataError, match=r"pairs.jsonl, line 1: expected a row of the SFT split"):
        read(pairs, join=pairs)
    with pytest.raises(DataError, match="has no row of system, prompt and output; name the SFT split"):
        read(pairs, OnBadRow.DROP, join=pairs)
    with pytest.raises(DataError, match=r"hf download someone/nothing .*; here, data.source.join=FOLDER"):
        read(pairs, join=Path("hf://datasets/someone/nothing"))


@pytest.mark.parametrize("blank", ["\n", " ", "\n\n"])
def test_the_input_of_the_rm_split_is_taken_apart_or_asked_as_it_is(tmp_path, blank):
    row = pair(0, 0, "poetry", "No.", "rm")
    row["input"] = f"{THREE[0]['system']}{blank}{THREE[0]['prompt']}"
    path = write(tmp_path / "pairs.jsonl", [row])
    (alone,), _ = read(path)
    assert (alone.system, alone.turns) == (None, [Turn(role="user", content=row["input"])])
    (joined,), _ = read(path, join=write(tmp_path / "sft.jsonl", THREE))
    assert (joined.system, joined.turns[0].content) == (THREE[0]["system"], THREE[0]["prompt"])


def test_an_input_that_a_template_wrote_is_refused(tmp_path):
    row = pair(0, 0, "poetry", "No.", "rm") | {"input": "[INST] You are brief.\nWhat is rain? [/INST]"}
    with pytest.raises(DataError, match=r"line 1: input begins with '\[INST\]', which a template writes"):
        read(write(tmp_path / "a.jsonl", [row]))
    with pytest.raises(DataError, match="line 1: no rejected; found input, chosen"):
        read(write(tmp_path / "a.jsonl", [{k: row[k] for k in ("input", "chosen")}]))


def test_system_messages_in_the_conversation_of_a_pair(tmp_path):
    row = pair(0, 0, "poetry", "No.")
    spoken = message("system", row["system"])
    whole = row | {name: [spoken, *row[name]] for name in ("chosen", "rejected")}
    assert read(write(tmp_path / "a.jsonl", [row]))[0] == read(write(tmp_path / "a.jsonl", [whole]))[0]


def test_what_is_held_of_siblings_is_small(tmp_path):
    """Texts lie on the disk: 2,000 answers of 5,000 characters take less than 1 MB in memory."""

    def examples():
        for n in range(2000):
            turns = [Turn(role="user", content=f"What is rain, {n // 3}? " + "x" * 1000)]
            yield Example(id=str(n), system=f"Take {n % 3}.", turns=turns, chosen=f"<{n}> " + "y" * 5000)

    tracemalloc.start()
    siblings = Siblings(examples(), with_outputs=True)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 1_000_000 and len(siblings) == 2000
    found = siblings.of_prompt("What is  rain, 5?\n" + "x" * 1000)
    assert [siblings.output(one)[:5] for one in found] == ["<15> ", "<16> ", "<17> "]
    assert siblings.of_prompt("What is snow?") == []
