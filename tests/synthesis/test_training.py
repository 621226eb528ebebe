"""Training data of every shape, whose instructions are in no bench."""

import json
import logging

import pytest

from multifaceted.app import OK, synthesize
from multifaceted.data.bad_rows import DataError
from multifaceted.data.benches import BENCHES
from tests.conftest import composed
from tests.data.benches.fixtures import LAYOUTS, write_bench
from tests.data.collections.sets import domains, flat, tree
from tests.data.shapes import write
from tests.synthesis.test_bench_instructions import run_with

ASKED = [LAYOUTS["koala"](number)["prompt"] for number in range(6)]


@pytest.fixture
def files(tmp_path):
    """Six prompts of Koala, of which two are to be chosen."""
    (tmp_path / "koala").mkdir()
    path = write_bench(tmp_path / "koala", "koala", [LAYOUTS["koala"](number) for number in range(6)])
    return ["task.sources=[koala]", "task.num_instructions=2", f"benches.koala={path}", f"into={tmp_path}/out"]


def of(reader, path, name="own"):
    return [f"+data@training_sets.{name}={reader}", f"++training_sets.{name}.source.train_file={path}"]


def trees():
    grown = [tree(number, 0, 1) for number in range(3)]
    for number, each in enumerate(grown):
        each["prompt"]["text"] = ASKED[number].upper()
    return grown


def messages():
    asked = [flat(10 * n, None, "prompter", tree=f"t{n}", text=ASKED[n]) for n in range(3)]
    return [
        row
        for n, first in enumerate(asked)
        for row in (first, *(flat(10 * n + i + 1, 10 * n, "assistant", i, tree=f"t{n}") for i in range(2)))
    ]


@pytest.mark.parametrize(
    ("reader", "rows"),
    [
        ("dsp", [domains(number) | {"query": ASKED[number]} for number in range(3)]),
        ("oasst1", trees()),
        ("oasst1", messages()),
        ("preference_files", [{"prompt": text, "chosen": "Rhine.", "rejected": "Rome."} for text in ASKED[:3]]),
    ],
    ids=["domains", "trees", "messages", "pairs"],
)
def test_any_data_that_a_run_reads_can_be_named(files, tmp_path, reader, rows):
    set_up = of(reader, write(tmp_path / "rows.jsonl", rows))
    set_up += ["++training_sets.own.source.validation_share=1e-9", "++training_sets.own.max_length=100"]
    if reader == "oasst1":
        set_up.append("++training_sets.own.source.validation_file=null")
    summary = run_with([*files, *set_up])
    assert (summary["koala/in_training"], summary["koala/chosen"], summary["koala/not_chosen"]) == (3, 2, 1)
    written = [json.loads(line) for line in (tmp_path / "out" / "instructions.jsonl").read_text().splitlines()]
    assert {row["instruction"] for row in written} <= {*ASKED[3:]}


def test_of_a_blend_all_counts_that_a_seed_may_draw(files, tmp_path):
    rows = [{"prompt": text, "chosen": "Rhine.", "rejected": "Rome."} for text in ASKED[:3]]
    inner = "{_target_: multifaceted.data.preference_files.PreferenceFiles, validation_share: 1e-9, train_file: %s}"
    sources = f"{{a: {inner % write(tmp_path / 'a.jsonl', rows)}, b: {inner % (tmp_path / 'none.jsonl')}}}"
    blend = f"{{_target_: multifaceted.data.blend.Blend, num_examples: 1, weights: {{a: 1, b: 0}}, sources: {sources}}}"
    data = f"+training_sets.own={{_target_: multifaceted.data.dataset.Data, max_length: 9, source: {blend}}}"
    assert run_with([*files, data])["koala/in_training"] == 3


@pytest.mark.parametrize("content", ["", '{"question": "Name 3 rivers."}\n' * 5])
def test_training_data_of_which_nothing_is_read_is_refused(files, tmp_path, content):
    """Otherwise all would be said to be unseen."""
    good = write(tmp_path / "good.jsonl", [{"prompt": "Hi.", "output": "Hello."}])
    (tmp_path / "bad.jsonl").write_text(content)
    drop = [*files, f"training=[{good},{tmp_path}/bad.jsonl]", "on_bad_row=drop"]
    with pytest.raises(DataError, match=r"training: .*bad.jsonl") as refusal:
        run_with(drop)
    assert "data.source" not in str(refusal.value) and not (tmp_path / "out").exists()
    if content:
        assert "'missing_column': 5" in str(refusal.value)
        assert "training_columns={prompt: question}; or, if they are of another shape" in str(refusal.value)
        named = [*files, *of("dsp", tmp_path / "bad.jsonl")]
        with pytest.raises(DataError, match=r"training_sets.own: no instruction was read; left out: .*: 5"):
            run_with(named)
        with pytest.raises(DataError, match=r"training_sets.own.on_bad_row=drop"):
            run_with([*named, "++training_sets.own.on_bad_row=raise"])


def test_warnings_speak_of_the_settings_of_this_app(files, tmp_path, caplog):
    rows = [{"prompt": ASKED[0], "output": "Rhine."}, {"question": ASKED[1], "output": "Rhine."}]
    path = write(tmp_path / "rows.jsonl", rows)
    summary = run_with([*files, f"training=[{path}]", "on_bad_row=drop"])
    assert (summary["training/read"], summary["training/left_out/missing_column"]) == (1, 1)
    assert "training_columns={prompt: question}" in caplog.text and "data.source" not in caplog.text


def test_the_terms_of_the_sources_are_said_and_kept(files, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    path = write_bench(tmp_path, "alpaca_eval", [LAYOUTS["alpaca_eval"](number) for number in range(2)])
    files[0] = "task.sources=[koala,alpaca_eval]"
    licences = run_with([*files, f"benches.alpaca_eval={path}", "task.num_instructions=8"])["licences"]
    assert {name: terms["licence"] for name, terms in licences.items()} == {
        "koala": "Apache-2.0",
        "alpaca_eval": "CC BY-NC 4.0",
    }
    assert licences["koala"] == {
        "licence": BENCHES["koala"].licence,
        "training": "asked_against",
        "terms": BENCHES["koala"].terms,
    }
    assert "instructions of alpaca_eval: licence CC BY-NC 4.0; training on them: non commercial" in caplog.text
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["licences"] == licences


def test_a_source_that_gives_no_instruction_has_no_terms_for_the_bench(files, tmp_path, capsys):
    same = write_bench(tmp_path, "vicuna", [{"question_id": 1, "category": "math", "turns": [ASKED[0]]}])
    files[0] = "task.sources=[koala,vicuna]"
    overrides = [*files, f"benches.vicuna={same}"]
    assert [*run_with(overrides)["licences"]] == ["koala"]
    assert synthesize(composed("synthesize", [*overrides, "overwrite=true"])) == OK
    assert "2 instructions" in capsys.readouterr().out


def test_training_data_that_is_not_there_is_named_before_anything_is_read(files, tmp_path):
    with pytest.raises(DataError, match=r"what is to be read is not there:\n  training_sets.own: .*none\.json"):
        run_with([*files, *of("dsp", tmp_path / "none.json")])
    assert not (tmp_path / "out").exists()
