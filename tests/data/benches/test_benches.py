"""Readers of benches: every layout and format, and no row that is neither a prompt nor counted."""

import json
from collections import Counter
from dataclasses import asdict, replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from multifaceted.data.bad_rows import BadRows, DataError, OnBadRow
from multifaceted.data.benches import BENCHES, Kind, Training, read_bench
from tests.data.benches.fixtures import (
    LAYOUTS,
    STATISTICS,
    TABLES,
    TEMPLATES,
    bench_of,
    write_bench,
    write_parquet,
    write_table,
)

NUM_ROWS = 6


def rows_of(layout):
    return [LAYOUTS[layout](number) for number in range(NUM_ROWS)]


def read(layout, path, policy=OnBadRow.RAISE):
    bad = BadRows(policy=policy)
    return read_bench(bench_of(layout), path, bad), bad


def test_every_bench_has_a_fixture_and_says_what_may_be_done_with_it():
    assert {bench_of(layout) for layout in LAYOUTS} == {*BENCHES}
    assert all(bench.name == name and bench.licence and bench.home for name, bench in BENCHES.items())
    assert BENCHES["koala"].training is Training.ASKED_AGAINST
    assert BENCHES["alpaca_eval"].training is Training.NON_COMMERCIAL
    assert {name for name, bench in BENCHES.items() if bench.is_on_hub} == {
        "multifaceted_bench",
        "real_toxicity_prompts",
    }


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_format_gives_the_same_prompts(layout, tmp_path):
    rows = rows_of(layout)
    prompts, bad = read(layout, write_bench(tmp_path, layout, rows))
    assert len(prompts) == len({prompt.id for prompt in prompts}) == NUM_ROWS and not bad.counts
    says_something = BENCHES[bench_of(layout)].kind is not Kind.SENTENCES
    assert all(bool(prompt.instruction) is says_something and prompt.split for prompt in prompts)
    assert json.loads(json.dumps([asdict(prompt) for prompt in prompts], allow_nan=False))
    (tmp_path / "packed").mkdir()
    assert read(layout, write_bench(tmp_path / "packed", layout, rows, packed=True))[0] == prompts
    if layout not in TABLES:
        assert read(layout, write_parquet(tmp_path, rows))[0] == prompts


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if bench_of(layout) != layout])
def test_both_layouts_of_a_bench_give_the_same_prompts(layout, tmp_path):
    older, _ = read(layout, write_bench(tmp_path, layout, rows_of(layout)))
    newer, _ = read(layout, write_bench(tmp_path, bench_of(layout), rows_of(bench_of(layout))))
    if "id" in rows_of(layout)[0] and "id" not in rows_of(bench_of(layout))[0]:
        assert [prompt.id for prompt in older] == [str(row["id"]) for row in rows_of(layout)], "its own ids"
        older = [replace(prompt, id=other.id) for prompt, other in zip(older, newer, strict=True)]
    assert older == newer


@pytest.mark.parametrize("names", [("a-1", "a-2"), (7, 5)])
def test_a_bench_with_rubrics_keeps_its_own_ids(tmp_path, names):
    rows = [row | {"id": name} for row, name in zip(rows_of("multifaceted_bench"), names, strict=False)]
    prompts, _ = read("multifaceted_bench", write_bench(tmp_path, "multifaceted_bench", rows))
    assert [prompt.id for prompt in prompts] == [str(name) for name in names]
    twice = write_bench(tmp_path, "multifaceted_bench", [row | {"id": names[0]} for row in rows])
    with pytest.raises(DataError, match=f"id '{names[0]}' is also that of"):
        read("multifaceted_bench", twice)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("\ud800") | st.just("  "),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


@pytest.mark.parametrize("layout", LAYOUTS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_row_is_a_prompt_or_counted(layout, data, tmp_path):
    """Rows with one cell that may hold anything, then sound ones, of which the first may repeat their ids."""
    is_table = layout in TABLES
    spoilt = []
    for row in rows_of(layout):
        name = data.draw(st.sampled_from(list(row)))
        cell = st.text(st.characters(codec="utf-8", exclude_characters='\t\r\n"')) if is_table else ANYTHING
        spoilt.append(row | {name: data.draw(cell)})
    if not is_table:
        spoilt += [data.draw(ANYTHING)]
    rows = [*spoilt, *rows_of(layout)]
    prompts, bad = read(layout, write_bench(tmp_path, layout, rows), OnBadRow.DROP)
    assert len(prompts) + bad.counts.total() == units(layout, rows)
    assert len({prompt.id for prompt in prompts}) == len(prompts)
    json.dumps([asdict(prompt) for prompt in prompts], allow_nan=False, ensure_ascii=False).encode()


def units(layout, rows):
    """How many prompts rows could give: one each, and of Self-Instruct one for each instance."""
    if layout != "self_instruct":
        return len(rows)
    instances = [row.get("instances") for row in rows if isinstance(row, dict)]
    return len(rows) + sum(len(found) - 1 for found in instances if isinstance(found, list) and found)


@pytest.mark.parametrize(
    ("layout", "change", "reason", "message"),
    [
        ("koala", {"prompt": " \n"}, "empty_prompt", "rows.jsonl, line 2: the prompt is empty"),
        ("koala", {"prompt": None}, "missing_column", "no 'prompt'; found 'id', 'prompt'"),
        ("koala", {"prompt": 3}, "wrong_type", "prompt is 3, a int; expected a string"),
        ("koala", {"id": "koala_0"}, "duplicate_id", "id 'koala_0' is also that of .*line 1"),
        ("koala", {"id": [1]}, "wrong_type", "id is .1., a list; expected a text or a whole number"),
        ("mt_bench", {"turns": ["Draw.", ""]}, "empty_turn", "a later turn is empty"),
        ("mt_bench", {"turns": []}, "missing_column", "turns holds none"),
        ("self_instruct", {"instances": []}, "missing_column", "instances holds none"),
        ("multifaceted_bench", {"rubrics": []}, "missing_column", "rubrics holds none"),
        ("multifaceted_bench", {"rubrics": [{"criteria": "?"}]}, "missing_column", "no 'score_descriptions'"),
        ("bbq", {"label": True}, "wrong_value", "label is True; expected 0 to 2"),
        ("bbq", {"label": 3}, "wrong_value", "label is 3; expected 0 to 2"),
        ("real_toxicity_prompts", {"prompt": {"text": "a", "toxicity": "high"}}, "wrong_type", "toxicity is 'high'"),
        ("real_toxicity_prompts", {"prompt": {"text": "a", "toxicity": float("nan")}}, "wrong_type", "toxicity is nan"),
        ("crows_pairs", {"sent_less": ""}, "empty_sentence", "sent_less is empty"),
        ("winogender", {"sentid": "baker.1.male"}, "wrong_value", "sentid is 'baker.1.male'; expected <occupation>"),
        ("winogender", {"sentid": "nurse.someone.1.male"}, "no_template", "does not know nurse.someone"),
    ],
)
def test_a_row_that_is_no_prompt_is_named_or_counted(layout, change, reason, message, tmp_path):
    first, second = rows_of(layout)[:2]
    path = write_bench(tmp_path, layout, [first, second | change])
    with pytest.raises(DataError, match=message):
        read(layout, path)
    prompts, bad = read(layout, path, OnBadRow.DROP)
    assert len(prompts) == 1 and bad.counts == {reason: 1}


def test_an_instance_of_self_instruct_is_a_prompt(tmp_path):
    instances = [{"input": "One.", "output": "1"}, {"input": "", "output": "2"}, {"input": 3, "output": "3"}]
    row = LAYOUTS["self_instruct"](0) | {"instances": instances}
    path = write_bench(tmp_path, "self_instruct", [row])
    with pytest.raises(DataError, match=r"line 1, instance 3: input is 3"):
        read("self_instruct", path)
    prompts, bad = read("self_instruct", path, OnBadRow.DROP)
    assert [(prompt.id, prompt.instruction) for prompt in prompts] == [
        ("user_oriented_task_0_0", "Shorten 0.\nOne."),
        ("user_oriented_task_0_1", "Shorten 0."),
    ]
    assert prompts[0].metadata == {"reference_answer": "1", "application": "Mail"} and bad.counts == {"wrong_type": 1}


def test_a_second_turn_follows_and_is_not_part_of_the_prompt(tmp_path):
    prompts, _ = read("mt_bench", write_bench(tmp_path, "mt_bench", rows_of("mt_bench")))
    assert prompts[2].messages() == [{"role": "user", "content": "Draw 2 cats."}]
    assert prompts[2].follow_ups == ["And a dog."]
    assert prompts[2].metadata == {"category": "math", "references": ["A cat.", "A dog."]}


def test_later_turns_of_arena_hard_follow(tmp_path):
    row = LAYOUTS["arena_hard_of_2024"](0) | {"turns": [{"content": "Solve it."}, {"content": "Again."}]}
    (prompt,), _ = read("arena_hard", write_bench(tmp_path, "arena_hard", [row]))
    assert (prompt.instruction, prompt.follow_ups) == ("Solve it.", ["Again."])


def test_toxicity_decides_the_part(tmp_path):
    rows = rows_of("real_toxicity_prompts")[:4]
    for row, toxicity in zip(rows, (0.49, 0.5, 0.51, None), strict=True):
        row["prompt"] = row["prompt"] | {"toxicity": toxicity}
    prompts, _ = read("real_toxicity_prompts", write_bench(tmp_path, "real_toxicity_prompts", rows))
    assert [prompt.split for prompt in prompts] == ["non_toxic", "toxic", "toxic", "unscored"]


def test_what_a_sentence_of_winogender_is_about(tmp_path):
    folder = write_bench(tmp_path, "winogender", rows_of("winogender"))
    prompts, _ = read("winogender", folder / "all_sentences.tsv")
    assert prompts[1].id == "baker.someone.1.male"
    assert prompts[1].metadata == {
        "sentence": 'The baker told "them" of 1.',
        "pronoun": "he",
        "gender": "male",
        "occupation": "baker",
        "participant": "someone",
        "answer": "participant",
        "percent_female": {"bls": 40.34, "bergsma": 9.42},
    }
    (folder / "templates.tsv").unlink()
    with pytest.raises(DataError, match=r"has no templates.tsv; Winogender needs"):
        read("winogender", folder)


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("templates", {"sentence": "The $OCCUPATION slept."}, "no_template"),
        ("occupations-stats", {"bls_pct_female": "many"}, "wrong_value"),
    ],
)
def test_what_explains_sentences_is_counted_too(name, change, reason, tmp_path):
    folder = write_bench(tmp_path, "winogender", rows_of("winogender"))
    rows = {"templates": TEMPLATES, "occupations-stats": STATISTICS}[name]
    write_table(folder / f"{name}.tsv", [row | change for row in rows])
    bad = BadRows(policy=OnBadRow.DROP)
    with pytest.raises(DataError, match="winogender has no prompts"):
        read_bench("winogender", folder, bad)
    assert bad.counts == Counter({reason: 1}) + Counter(no_template=NUM_ROWS)


def test_a_bench_that_is_not_at_hand_says_what_to_fetch(tmp_path):
    with pytest.raises(DataError, match=r"koala is not on the hub; fetch koala_test_set.jsonl of https://github.com/"):
        read("koala", None)
    with pytest.raises(DataError, match=r"koala: .*nothing.jsonl does not exist; it is published as github.com/"):
        read("koala", tmp_path / "nothing.jsonl")
    with pytest.raises(DataError, match=r"the hub's data set kaist-ai/Multifaceted-Bench cannot be had"):
        read("multifaceted_bench", None)
    with pytest.raises(DataError, match=r"no bench is called 'kolala'; did you mean 'koala'"):
        read_bench("kolala", None, BadRows())
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(DataError, match=r"koala has no prompts in .*empty.jsonl; left out: {}"):
        read("koala", tmp_path / "empty.jsonl")


REAL = {
    "alpaca_eval": ("bench_sources/alpaca_eval_instructions.jsonl", 805),
    "koala": ("bench_sources/koala_test_set.jsonl", 180),
    "mt_bench": ("bench_sources/mt_bench_questions.jsonl", 80),
    "self_instruct": ("bench_sources/self_instruct_user_oriented.jsonl", 252),
    "vicuna": ("bench_sources/vicuna_bench_questions.jsonl", 80),
    "arena_hard": ("arena_hard/question.jsonl", 500),
    "real_toxicity_prompts": ("toxicity/real_toxicity_prompts_5k.jsonl.gz", 5000),
    "winogender": ("bias/winogender", 720),
    "crows_pairs": ("bias/crows_pairs_anonymized.csv", 1508),
    "bbq": ("bias/bbq", 3680 + 1556 + 1576 + 864),
    "biggen_bench": ("rubric_judging/biggen_bench_sample_evals.json.gz", 695),
}


@pytest.mark.parametrize("name", REAL)
def test_real_files_are_read_whole(name, shared):
    file, number = REAL[name]
    prompts, bad = read(name, shared(file))
    assert len(prompts) == number and not bad.counts
    json.dumps([asdict(prompt) for prompt in prompts], allow_nan=False)


def test_facts_of_the_real_files(shared):
    prompts = {name: read(name, shared(file))[0] for name, (file, _) in REAL.items() if name != "arena_hard"}
    assert all(len(prompt.follow_ups) == 1 for prompt in prompts["mt_bench"])
    assert Counter(prompt.split for prompt in prompts["real_toxicity_prompts"])["non_toxic"] == 3732
    assert Counter(prompt.split for prompt in prompts["real_toxicity_prompts"])["unscored"] == 19
    for prompt in prompts["winogender"]:
        words = prompt.metadata["sentence"].rstrip(".").split()
        assert prompt.metadata["pronoun"] in words and prompt.metadata["occupation"] in words, prompt
    assert all(prompt.metadata["groups"].count("unknown") == 1 for prompt in prompts["bbq"])
    assert all(
        prompt.metadata["groups"][prompt.metadata["label"]] == "unknown"
        for prompt in prompts["bbq"]
        if prompt.metadata["context_condition"] == "ambig"
    )
    published = read("alpaca_eval", shared("alpaca_eval2/model_outputs/gpt4_1106_preview.json.gz"))[0]
    assert [p.id for p in published] == [p.id for p in prompts["alpaca_eval"]]
    assert [p.metadata["index"] for p in published] == [*range(805)]
    assert all(p.metadata["baseline"]["generator"] == "gpt4_1106_preview" for p in published)


def test_the_published_examples_of_multifaceted_bench(shared, tmp_path):
    examples = map(json.loads, shared("janus/multifaceted_examples.jsonl").read_text().splitlines())
    rows = [example["row"] for example in examples if example["kind"].startswith("multifaceted_bench")]
    prompts, _ = read("multifaceted_bench", write_bench(tmp_path, "multifaceted_bench", rows))
    assert [prompt.metadata["source"] for prompt in prompts] == ["Alpha-nlg (art)", "alpaca"]
    assert [len(prompt.metadata["rubrics"]) for prompt in prompts] == [4, 4]
    assert [p.dimension for p in prompts[1].preferences] == [
        "style",
        "background_knowledge",
        "informativeness",
        "harmlessness",
    ]


@pytest.mark.parametrize("name", ["multifaceted_bench", "winogender"])
def test_the_setting_that_names_the_files_is_said(name, tmp_path):
    path = None if name == "multifaceted_bench" else tmp_path
    with pytest.raises(DataError, match=r"[:,] bench=FOLDER"):
        read_bench(name, path, BadRows())
    with pytest.raises(DataError, match=r"[:,] data.overlap.benches.b=FOLDER"):
        read_bench(name, path, BadRows(), "data.overlap.benches.b")
