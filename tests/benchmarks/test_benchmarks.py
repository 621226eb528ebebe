"""The program that measures: its data, its table, and that both sides do the same work."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.collection import make_collection
from benchmarks.figures import FIGURES
from benchmarks.job import LIGER, OURS, PLAIN, SIZES, TRL, Job
from benchmarks.process import Result, take_turns
from benchmarks.record import Record
from benchmarks.stages import Bench, compare, run_stages, stage
from benchmarks.table import read_results, render
from benchmarks.workload import BOS, EOS, FIRST_WORD, make_examples
from multifaceted.data.overlap.contamination import find_contamination
from multifaceted.data.overlap.duplicates import find_duplicates

ROOT = Path(__file__).parents[2]


def job(system, objective, **changes):
    settings = {"per_device_train_batch_size": 2} if system == TRL else {}
    return Job(
        **{
            **dict(system=system, objective=objective, size="tiny", device="cpu", max_repeats=2),
            **dict(examples=4, step_examples=4, settings=settings),
            **changes,
        }
    )


@pytest.mark.parametrize("number", [8, 1000])
def test_lengths_are_those_of_the_collection(number):
    examples = make_examples(number, 2, SIZES["cpu"])
    prompts = [len(example.prompt) for example in examples]
    responses = [len(response) for example in examples for response in example.responses]
    assert np.median(prompts) == pytest.approx(330, rel=0.05)
    assert np.median(responses) == pytest.approx(400, rel=0.05)
    assert np.std(np.log(responses)) == pytest.approx(0.4, rel=0.15)
    assert min(prompts) >= 60 and max(prompts) <= 1000
    assert min(responses) >= 40 and max(responses) <= 1000


def test_examples_are_well_formed_and_the_same_each_time():
    first, again = make_examples(5, 1, SIZES["cpu"]), make_examples(5, 1, SIZES["cpu"])
    for one, other in zip(first, again, strict=True):
        assert one.prompt.tolist() == other.prompt.tolist()
        assert one.prompt[0] == BOS and one.prompt[1:].min() >= FIRST_WORD
        for response, same in zip(one.responses, other.responses, strict=True):
            assert response[-1] == EOS and response[:-1].min() >= FIRST_WORD
            assert response.tolist() == same.tolist()


def test_an_example_can_be_shrunk():
    examples = make_examples(50, 1, SIZES["cpu"], most_tokens=1000)
    totals = [len(e.prompt) + sum(map(len, e.responses)) for e in examples]
    assert 980 < max(totals) <= 1000


@pytest.fixture
def trl():
    return pytest.importorskip("trl", reason="TRL is an optional extra: pip install -c constraints.txt -e '.[peers]'")


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["dpo", "orpo", "reward_model"])
def test_trl_gets_the_same_tokens(trl, tmp_path, objective):
    from transformers import TrainerCallback

    from benchmarks.peer import build_trainer
    from benchmarks.workload import examples_of

    this = job(TRL, objective, rejected=2, settings={"per_device_train_batch_size": 8})
    trainer = build_trainer(this, this.settings, TrainerCallback(), str(tmp_path))
    expected = {
        (*example.prompt.tolist(), *response.tolist())
        for example in examples_of(this)
        for response in example.responses
    }
    (batch,) = trainer.get_train_dataloader()
    keys = ("chosen", "rejected") if objective == "orpo" else ("",)
    prefixes = [f"{key}_" if key else "" for key in keys]
    seen = {
        tuple(ids[mask.bool()].tolist())
        for prefix in prefixes
        for ids, mask in zip(batch[f"{prefix}input_ids"], batch[f"{prefix}attention_mask"], strict=True)
    }
    assert seen == expected
    if objective == "dpo":
        scored = {
            tuple(i[m.bool()].tolist()) for i, m in zip(batch["input_ids"], batch["completion_mask"], strict=True)
        }
        assert scored == {tuple(r.tolist()) for e in examples_of(this) for r in e.responses}


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["dpo", "orpo", "reward_model"])
def test_systems_do_the_same_work(trl, objective):
    results = take_turns([job(system, objective) for system in (OURS, PLAIN, TRL)], budget=60)
    assert [result.error for result in results] == [None] * 3
    assert all(len(result.seconds) == 2 and min(result.seconds) > 0 for result in results)
    ours, plain, theirs = (result.facts["losses"] for result in results)
    # The second loss shows that gradients and optimizer are the same too; ORPO's differ by the prompt's likelihood.
    compared = 1 if objective == "orpo" else 2
    assert ours == pytest.approx(plain, abs=1e-5)
    assert ours[:compared] == pytest.approx(theirs[:compared], abs=1e-4)
    assert ours[0] != pytest.approx(ours[1], abs=1e-6), "an optimizer step changes the loss"


def bench(tmp_path, **changes):
    record = Record(tmp_path, "cpu", suffix=".tiny")
    return Bench(**{**dict(record=record, size="tiny", device="cpu", step_examples=4, max_repeats=1), **changes})


def test_a_missing_peer_is_skipped_and_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "benchmarks.stages.take_turns",
        lambda jobs, budget, together: [Result(job=each, seconds=[0.5], facts={}) for each in jobs],
    )
    this = bench(tmp_path, has_peer=False)
    results = compare("DPO pairs", this, [job(OURS, "dpo"), job(TRL, "dpo")], 1.0)
    this.record.save()
    assert list(results) == [OURS]
    table = render(read_results([this.record.path]))
    assert "| DPO pairs | trl | skipped: trl is not installed |" in table
    assert "| DPO pairs | ours | 8 |" in table


def test_a_failing_stage_does_not_end_the_program(tmp_path):
    def fails(bench, budget):
        raise RuntimeError("no room")

    def works(bench, budget):
        bench.record.figure("scale", [1.0, 0.9, 0.98])

    this = bench(tmp_path)
    run_stages(this, [stage("first", 1, fails), stage("second", 1, works)], minutes=1, say=lambda line: None)
    written = json.loads(this.record.path.read_text())
    assert written["rows"][0]["error"] == "RuntimeError: no room"
    assert written["figures"] == [
        {"figure": "scale", "value": {"median": 0.98, "low": 0.9, "high": 1.0}, "repeats": 3, "reached": True}
    ]


def test_a_process_that_fails_is_a_result_with_its_error():
    started = time.monotonic()
    (result,) = take_turns([job("nothing", "no such objective")], budget=1)
    assert "no such objective" in result.error and result.seconds == []
    assert time.monotonic() - started < 60


def test_the_table_judges_figures_and_shows_what_is_unmeasured(tmp_path):
    record = Record(tmp_path, "cpu")
    result = Result(job=job(OURS, "dpo"), seconds=[2.0, 1.0, 4.0], facts={"peak_gb": 1.5, "imports_gb": 0.5})
    record.row("DPO pairs", result)
    record.figure("dpo_step", [4.5, 4.0, 3.0])
    record.figure("dpo_memory", [0.7])
    record.figure("orpo_step", [])
    record.save()
    content = json.loads(record.path.read_text())
    assert {"version", "hardware", "versions", "commit", "rows"} <= set(content)
    assert content["rows"][0]["examples_per_second"] == {"median": 2.0, "low": 1.0, "high": 4.0}
    table = render(read_results([record.path]))
    assert ">= 4 x | 4 [3, 4.5] | yes |" in table
    assert "<= 0.6 x | 0.7 | **no** |" in table
    assert "| DPO pairs | ours | 2 [1, 4] | 1.5 | 1 | 3 |" in table
    assert f"| {FIGURES['orpo_step'].what} | >= 4 x | unmeasured |" in table
    assert f"| {FIGURES['gpu_dpo_mfu'].what} | >= 0.5 | unmeasured |" in table


def test_a_part_can_be_measured_anew(tmp_path):
    first = Record(tmp_path, "cpu")
    first.skipped("DPO pairs", "trl", "failed")
    first.figure("scale", [0.5])
    first.save()
    again = Record(tmp_path, "cpu", add=True)
    again.row("DPO pairs", Result(job=job(TRL, "dpo"), seconds=[2.0]))
    assert [row["error"] for row in again.content["rows"]] == [None]
    assert [figure["figure"] for figure in again.content["figures"]] == ["scale"]
    again.path.write_text(json.dumps({**again.content, "commit": "another"}))
    with pytest.raises(ValueError, match="at another commit"):
        Record(tmp_path, "cpu", add=True)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["cpu", "gpu"])
def test_everything_runs_at_small_size(trl, tmp_path, what):
    options = ["--size=tiny", "--device=cpu", "--minutes=0.2", f"--out={tmp_path}"]
    command = [sys.executable, "-m", "benchmarks", what, *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob(f"*.{what}-tiny.json")
    content = json.loads(path.read_text())
    # Liger's kernel needs a GPU; a stage of little use may have been left out for want of time.
    failed = [r for r in content["rows"] if r["error"] and r["system"] != LIGER and "are left of" not in r["error"]]
    assert not failed and content["searches"]
    on_gpu = {"gpu_lora_peak", "gpu_orpo_step", "gpu_dpo_step", "gpu_orpo_memory", "gpu_dpo_memory", "gpu_plan_memory"}
    expected = (
        {key for key, figure in FIGURES.items() if not (figure.on_gpu or figure.of_data or figure.of_inference)}
        if what == "cpu"
        else on_gpu
    )
    assert {figure["figure"] for figure in content["figures"]} == expected
    assert "| GPU |" in done.stdout if what == "cpu" else "| CPU |" in done.stdout


def test_what_is_planted_in_a_collection_is_near_enough_to_be_found():
    collection = make_collection(3000, 100)
    rows, planted = collection.examples, collection.planted
    assert {kind: len(places) for kind, places in planted.items()} == {
        **dict.fromkeys(("exact", "near"), 30),
        **dict.fromkeys(("leaked exact", "leaked near", "leaked quoted"), 9),
    }
    assert len(set().union(*planted.values())) == sum(map(len, planted.values())), "each row is planted once"
    first_half = range(0, 1500, 3)
    assert all(rows[i].turns == rows[i + 2].turns and rows[i].system != rows[i + 2].system for i in first_half)
    found = find_duplicates(rows, near=0.8).found
    assert {each.index for each in found if each.reason == "duplicate"} == planted["exact"]
    assert {each.index for each in found if each.reason == "near_duplicate"} == planted["near"]
    leaked = set().union(*(places for kind, places in planted.items() if kind.startswith("leaked")))
    assert {match.index for match in find_contamination(rows, collection.prompts, near=0.8).matches} == leaked
    again = make_collection(3000, 100)
    assert again.examples == rows and again.planted == planted


def measured(what, tmp_path, minutes):
    """The record of a part of the program at tiny size: its rows without errors, and the medians of its figures."""
    command = [sys.executable, "-m", "benchmarks", what, "--size=tiny", f"--minutes={minutes}", f"--out={tmp_path}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob(f"*.{what}-tiny.json")
    content = json.loads(path.read_text())
    assert not [row["error"] for row in content["rows"] if row["error"]]
    return content["rows"], {figure["figure"]: figure["value"]["median"] for figure in content["figures"]}


@pytest.mark.slow
def test_the_data_stages_run_at_small_size(tmp_path):
    rows, figures = measured("data", tmp_path, 0.2)
    assert len(rows) == 5 and set(figures) == {key for key, figure in FIGURES.items() if figure.of_data}
    found = (figures["overlap_recall_exact"], figures["overlap_recall_near"], figures["overlap_leaked"])
    assert found == (1, 1, 1) and figures["overlap_invented"] == 0


@pytest.mark.slow
def test_the_inference_stages_run_at_small_size(tmp_path):
    rows, figures = measured("inference", tmp_path, 0.5)
    assert len(rows) == 3 and set(figures) == {key for key, figure in FIGURES.items() if figure.of_inference}
    assert figures["calls_not_answered"] == figures["calls_not_kept"] == 0
    assert figures["calls_paid_unaccounted"] <= 0 < figures["calls_ceiling"] and figures["calls_paid_again"] <= 64
