"""The instructions of a bench: what is left out and why, and that nothing but the texts decides."""

import json
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multifaceted.app import OK, REFUSED, synthesize
from multifaceted.config import build
from multifaceted.data.bad_rows import DataError
from multifaceted.data.overlap.normalise import normalise
from multifaceted.record_files import RecordError
from multifaceted.records import VERSION, Prompt
from multifaceted.synthesis.bench_instructions import PAPER, REASONS, BenchInstructions
from multifaceted.synthesis.run import SynthesizeConfig, run
from tests.conftest import ROOT, composed
from tests.data.benches.fixtures import LAYOUTS, write_bench
from tests.data.benches.test_benches import REAL

SOURCES = ["koala", "vicuna", "mt_bench"]
TEXTS = st.lists(st.sampled_from(["a", "A ", "b", "c", "C", "d", "e", "f", "g", "h"]), max_size=12)


def prompts_of(texts):
    return {
        name: [Prompt(id=str(i), split=name, system=None, instruction=text) for i, text in enumerate(found)]
        for name, found in texts.items()
    }


@given(st.fixed_dictionaries(dict.fromkeys(SOURCES, TEXTS)), st.sets(st.sampled_from("abcdefgh")), st.data())
def test_every_prompt_is_chosen_or_left_out_for_one_reason(texts, seen, data):
    alone = [text for name in SOURCES for text in {normalise(text) for text in texts[name]}]
    eligible = {text for text, uses in Counter(alone).items() if uses == 1} - seen
    wanted = data.draw(st.integers(1, 10))
    task = BenchInstructions(sources=SOURCES, num_instructions=wanted)
    if len(eligible) < wanted:
        with pytest.raises(DataError, match=f"{len(eligible)} instructions are left"):
            task.assemble(prompts_of(texts), seen)
        return
    assembled = task.assemble(prompts_of(texts), seen)
    chosen = [normalise(instruction.instruction) for instruction in assembled.instructions]
    assert len(chosen) == wanted == len({*chosen}) and {*chosen} <= eligible
    for name, counts in assembled.counts.items():
        assert counts.total() == len(texts[name]) and {*counts} <= {*REASONS}
    shuffled = {name: data.draw(st.permutations(texts[name])) for name in reversed(SOURCES)}
    again = task.assemble(prompts_of(shuffled), seen).instructions
    assert [normalise(instruction.instruction) for instruction in again] == chosen, "the order of files decides nothing"
    fewer = BenchInstructions(sources=SOURCES, num_instructions=1).assemble(prompts_of(texts), seen)
    assert fewer.instructions == assembled.instructions[:1], "fewer are a beginning of more"


def test_reasons_in_their_order():
    texts = {"koala": ["a", "A", "b", "c", "d"], "vicuna": ["b", "c", "e"], "mt_bench": ["f"]}
    counts = BenchInstructions(sources=SOURCES, num_instructions=3).assemble(prompts_of(texts), {"c", "d"}).counts
    assert counts == {
        "koala": {"duplicate": 1, "in_training": 2, "shared": 1, "chosen": 1},
        "vicuna": {"in_training": 1, "shared": 1, "chosen": 1},
        "mt_bench": {"chosen": 1},
    }


def test_the_choice_is_that_of_this_version():
    prompts = prompts_of({"koala": [*"abcdefgh"]})
    chosen = BenchInstructions(sources=["koala"], num_instructions=8).assemble(prompts, set()).instructions
    assert "".join(instruction.instruction for instruction in chosen) == "ehgacdfb"


@pytest.fixture
def files(tmp_path):
    """Six prompts of each of the paper's benches, and training data that has one of them, in another spelling."""
    overrides = [f"into={tmp_path}/out", "task.num_instructions=8"]
    for name in PAPER:
        (tmp_path / name).mkdir()
        path = write_bench(tmp_path / name, name, [LAYOUTS[name](number) for number in range(6)])
        overrides.append(f"benches.{name}={path}")
    turns = ["Hello", "Hi", " NAME 3\nrivers. "]
    messages = [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(turns)]
    training = tmp_path / "training.jsonl"
    training.write_text(json.dumps({"prompt": messages, "output": "Rhine."}) + "\n")
    return [*overrides, f"training=[{training}]"]


def run_with(overrides):
    return run(build(composed("synthesize", overrides), SynthesizeConfig))


def test_from_files_to_instructions(files, tmp_path):
    summary = run_with(files)
    written = [json.loads(line) for line in (tmp_path / "out" / "instructions.jsonl").read_text().splitlines()]
    assert len(written) == 8 and all({*row} == {"version", "source", "id", "instruction"} for row in written)
    assert len({row["id"] for row in written}) == 8 and {row["version"] for row in written} == {VERSION}
    assert not any(normalise(row["instruction"]) == "name 3 rivers." for row in written)
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == summary
    assert summary["koala/in_training"] == 1 and summary["training/read"] == 2 and summary["chosen"] == 8
    for name in PAPER:
        assert summary[f"{name}/read"] == sum(summary[f"{name}/{reason}"] for reason in REASONS) == 6


def test_the_same_files_give_the_same_bytes_and_others_do_not_replace_them(files, tmp_path):
    run_with(files)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    run_with(files)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    with pytest.raises(RecordError, match=r"holds other instructions; write into another folder with into="):
        run_with([*files, "task.num_instructions=7"])
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    assert run_with([*files, "task.num_instructions=7", "overwrite=true"])["chosen"] == 7


def test_all_that_is_missing_is_named_before_anything_is_read(tmp_path):
    (tmp_path / "broken.jsonl").write_text("{")
    with pytest.raises(DataError) as refusal:
        run_with([f"benches.koala={tmp_path}/broken.jsonl", f"training=[{tmp_path}/nothing.jsonl]"])
    message = str(refusal.value)
    assert "koala" not in message.replace("koala-test-set", "") and "training: " in message
    for name in ("alpaca_eval", "flask", "mt_bench", "self_instruct"):
        assert f"(benches.{name}=<path>), or leave it out of task.sources" in message


def test_bad_rows_speak_of_the_settings_of_this_app(files, tmp_path):
    with (tmp_path / "koala" / "rows.jsonl").open("a") as stream:
        stream.write('{"id": "koala_9", "prompt": ""}\n')
    with pytest.raises(DataError, match=r"line 7: the prompt is empty \(or leave out and count .*: on_bad_row=drop\)"):
        run_with(files)
    assert run_with([*files, "on_bad_row=drop"])["koala/left_out/empty_prompt"] == 1


def test_training_data_with_columns_of_other_names(files, tmp_path):
    (tmp_path / "training.jsonl").write_text('{"question": "Name 3 rivers.", "output": "Rhine."}\n')
    with pytest.raises(DataError, match=r"Name your columns: training_columns=\{prompt: question\}"):
        run_with(files)
    assert run_with([*files, "training_columns={prompt: question}"])["koala/in_training"] == 1


def test_the_app_prints_counts_and_turns_errors_into_a_message(files, tmp_path, capsys):
    assert synthesize(composed("synthesize", files)) == OK
    printed = capsys.readouterr().out
    assert "source         read  duplicate  in training  shared" in printed
    assert f"8 instructions and their counts are in {tmp_path}/out" in printed
    assert synthesize(composed("synthesize", ["task.sources=[koala]"])) == REFUSED
    assert "koala is not on the hub; fetch" in capsys.readouterr().err


def test_the_command_as_a_user_types_it(files):
    command = [sys.executable, "synthesize.py", "task=bench_instructions", *files]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0 and "8 instructions" in result.stdout, result.stderr


def test_the_real_benches_leave_enough_for_the_paper(shared, tmp_path):
    """FLASK is not among them. What two of them share is in neither, so Self-Instruct gives none beside AlpacaEval."""
    sources = [name for name in PAPER if name != "flask"]
    paths = [f"benches.{name}={shared(REAL[name][0])}" for name in sources]
    summary = run_with([f"task.sources=[{','.join(sources)}]", *paths, f"into={tmp_path}"])
    assert {name: summary[f"{name}/shared"] for name in sources} == {
        "alpaca_eval": 252 + 144 + 2,
        "koala": 144,
        "mt_bench": 2,
        "self_instruct": 252,
    }
    assert summary["chosen"] == 315 and summary["self_instruct/chosen"] == 0
    left = {name: summary[f"{name}/chosen"] + summary[f"{name}/not_chosen"] for name in sources}
    assert left == {"alpaca_eval": 407, "koala": 36, "mt_bench": 78, "self_instruct": 0}
