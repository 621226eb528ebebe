"""RealToxicityPrompts end to end, with a tiny policy, a tiny classifier and a tiny second model."""

import json
import math
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multifaceted.config import ConfigError, build, to_plain
from multifaceted.evaluation.config import EvalConfig
from multifaceted.evaluation.run import rescore, run
from multifaceted.evaluation.toxicity import INSTRUCTION, RealToxicityPromptsTask, _drawn, joined
from multifaceted.inference.classifier import Classifier
from multifaceted.inference.likelihood import LikelihoodModel, Passage
from multifaceted.inference.requests import EngineError
from multifaceted.record_files import RecordError, read_json, read_jsonl, read_prompts, read_responses
from multifaceted.records import PROMPTS, RESPONSES, RUN, SCORES, VERDICTS, Prompt
from multifaceted.tables import score_table
from tests.conftest import composed
from tests.data.benches.fixtures import real_toxicity_prompts, write_bench
from tests.inference.classifiers import write_classifier


def row(number, toxicity):
    found = real_toxicity_prompts(number)
    found["prompt"]["toxicity"] = toxicity
    return found


@pytest.fixture
def bench(tmp_path):
    rows = [row(0, 0.1), row(1, 0.9), row(2, 0.2), row(3, None), row(4, 0.5)]
    return write_bench(tmp_path, "real_toxicity_prompts", rows)


@pytest.fixture
def policy(tiny_run, tmp_path):
    return shutil.copytree(tiny_run.exported, tmp_path / "run" / "policy")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return write_classifier(tmp_path_factory.mktemp("classifier"))


@pytest.fixture
def evaluate(policy, bench, classifier):
    def go(*overrides):
        settings = [f"policy={policy}", "task=real_toxicity_prompts", f"bench={bench}", f"task.fluency={policy}"]
        settings += [f"task.classifier={classifier}", "task.num_prompts=null", "task.samples=3"]
        config = build(composed("eval", [*settings, *overrides]), EvalConfig)
        return config, run(config, to_plain(config))

    return go


def test_continuations_are_scored_and_kept(evaluate, policy, classifier):
    config, scores = evaluate()
    prompts, responses = read_prompts(config.folder / PROMPTS), read_responses(config.folder / RESPONSES)
    rows = list(read_jsonl(config.folder / VERDICTS))
    assert len(rows) == len(responses) == 15 and len({response.text for response in responses.values()}) > 5
    texts = [(prompt.id, responses[prompt.id].text) for prompt in prompts]
    assert [(row["id"], row["text"]) for row in rows] == texts
    expected = Classifier.load(classifier).probabilities(texts)
    assert all(row["toxicity"] == pytest.approx(expected[row["id"]], abs=1e-5) for row in rows)
    (first, *_) = prompts
    passage = Passage(id="a", context=first.metadata["text"], text=joined(first.metadata["text"], rows[0]["text"]))
    (fluency,) = LikelihoodModel.load(policy).score([passage])
    assert rows[0]["logp"] == pytest.approx(fluency.logp, abs=1e-3) and rows[0]["tokens"] == fluency.tokens

    by_prompt = np.array([row["toxicity"] for row in rows]).reshape(5, 3)
    found = scores.metrics
    assert found["real_toxicity_prompts/expected_max_toxicity"].value == pytest.approx(by_prompt.max(axis=1).mean())
    assert found["toxic/expected_max_toxicity"].value == pytest.approx(by_prompt[[1, 4]].max(axis=1).mean())
    assert [found[f"{split}/expected_max_toxicity"].n for split in ("non_toxic", "toxic", "unscored")] == [2, 2, 1]
    perplexities = [math.exp(-row["logp"] / row["tokens"]) for row in rows]
    assert found["real_toxicity_prompts/perplexity"].value == pytest.approx(np.mean(perplexities))
    assert found["real_toxicity_prompts/empty"].n == 15 and 0 < found["toxic/distinct_2"].value <= 1
    assert found["toxic/cut"].value is not None and "expected_max_toxicity" in score_table(scores)


def test_prompts_are_drawn_as_the_protocol_says(bench):
    task = RealToxicityPromptsTask(bench=bench, num_prompts=2, system="Be kind.")
    prompts = task.prompts(0)
    assert len(prompts) == 50 and len({prompt.id for prompt in prompts}) == 50
    assert prompts[7].id.endswith("#7") and prompts[7].system == "Be kind."
    assert prompts[0].instruction == f"{INSTRUCTION}\n\n{prompts[0].metadata['text']}"
    drawn = prompts[0].sampling
    assert (drawn.temperature, drawn.top_p, drawn.repetition_penalty, drawn.max_tokens) == (1.0, 0.9, 1.0, 20)
    alone = RealToxicityPromptsTask(bench=bench, num_prompts=None, samples=1, instruction=None).prompts(0)
    assert [prompt.instruction for prompt in alone] == [f"They said {number}" for number in range(5)]
    with pytest.raises(ValueError, match=r"num_prompts is 10,000, and the bench has 5; set task.num_prompts=null"):
        RealToxicityPromptsTask(bench=bench).prompts(0)


@given(st.sets(st.text("abc", min_size=1, max_size=4), min_size=2, max_size=9), st.integers(0, 9), st.data())
def test_a_smaller_draw_is_part_of_a_larger_one(names, seed, data):
    prompts = [Prompt(id=name, split="s", system=None, instruction="x") for name in sorted(names)]
    larger = data.draw(st.integers(1, len(prompts)))
    smaller = data.draw(st.integers(1, larger))
    many, few = _drawn(prompts, larger, seed), _drawn(prompts, smaller, seed)
    assert len(few) == smaller and [prompt for prompt in many if prompt in few] == few
    assert _drawn(prompts, None, seed) == prompts and [p for p in prompts if p in many] == many


def test_nothing_is_asked_again(evaluate, monkeypatch):
    config, scores = evaluate()
    written = {name: (config.folder / name).read_bytes() for name in (RESPONSES, VERDICTS, SCORES)}
    for kind in (Classifier, LikelihoodModel):
        monkeypatch.setattr(kind, "load", None)
    assert evaluate()[1] == scores == rescore(config.folder, config.task)
    assert {name: (config.folder / name).read_bytes() for name in written} == written


def test_other_models_do_not_continue_a_folder_and_a_copy_does(evaluate, policy, classifier, tmp_path):
    config, scores = evaluate()
    record = read_json(config.folder / RUN)
    assert set(record["judge"]) == {"classifier", "fluency"} and record["judge"]["fluency"] == record["policy"]
    copy = shutil.copytree(classifier, tmp_path / "copy")
    assert evaluate(f"task.classifier={copy}")[1] == scores
    other = write_classifier(tmp_path / "other", seed=1)
    for change in (f"task.classifier={other}", "task.fluency=null"):
        with pytest.raises(RecordError, match=r"holds verdicts of another judge"):
            evaluate(change)
    theirs = ["engine=file", f"engine.path={config.folder / RESPONSES}", f"into={tmp_path}/into"]
    changed = evaluate(f"task.classifier={other}", *theirs)[1].metrics
    key = "real_toxicity_prompts/expected_max_toxicity"
    assert changed[key] != scores.metrics[key]
    assert changed["toxic/distinct_1"] == scores.metrics["toxic/distinct_1"]


def test_empty_continuations_are_not_toxic_and_counted(evaluate, bench, tmp_path):
    task = RealToxicityPromptsTask(bench=bench, num_prompts=None, samples=3)
    texts = {prompt.id: ("", " \n", " you fool")[place % 3] for place, prompt in enumerate(task.prompts(0))}
    path = tmp_path / "theirs.jsonl"
    path.write_text("".join(json.dumps({"id": name, "text": text}) + "\n" for name, text in texts.items()))
    config, scores = evaluate("engine=file", f"engine.path={path}", f"into={tmp_path}/into")
    rows = list(read_jsonl(config.folder / VERDICTS))
    assert [row["toxicity"] == 0 for row in rows[:3]] == [True, True, False]
    assert [row["tokens"] > 0 for row in rows[:3]] == [False, False, True]
    found = scores.metrics["real_toxicity_prompts/perplexity"]
    assert (found.n, found.unscored) == (5, 10)
    assert scores.metrics["real_toxicity_prompts/empty"].value == pytest.approx(2 / 3)
    assert scores.metrics["real_toxicity_prompts/expected_max_toxicity"].n == 5


def test_fluency_can_be_left_out(evaluate):
    config, scores = evaluate("task.fluency=null")
    assert not any(key.endswith("/perplexity") for key in scores.metrics)
    assert all(row["logp"] is None for row in read_jsonl(config.folder / VERDICTS))
    assert set(read_json(config.folder / RUN)["judge"]) == {"classifier"}


def test_models_that_cannot_serve_are_refused_before_anything_is_generated(evaluate, policy, tmp_path):
    wrong = write_classifier(tmp_path / "wrong", ("joy", "sadness"))
    for change, message in {
        f"task.classifier={wrong}": "no label toxicity or toxic; it has joy, sadness",
        f"task.classifier={tmp_path}/nothing": "task.classifier=.* is no folder here",
        f"task.fluency={tmp_path}": "task.fluency=.* lacks config.json",
    }.items():
        with pytest.raises(EngineError, match=message):
            evaluate(change)
    assert not list(policy.parent.rglob(RESPONSES))


@pytest.mark.parametrize("override", ["task.samples=0", "task.num_prompts=0"])
def test_impossible_numbers_are_refused(override):
    with pytest.raises(ConfigError, match="both are at least 1"):
        build(composed("eval", ["policy=a", "task=real_toxicity_prompts", override]), EvalConfig)


def test_a_continuation_stands_behind_its_prompt_as_text_does():
    assert joined("They said", "no more") == " no more" and joined("They said", " no more") == " no more"
    assert joined("They said", ", loudly") == ", loudly" and joined("They said ", "no") == "no"
    assert joined("They said", " \n") == ""


def test_the_real_prompts(shared):
    task = RealToxicityPromptsTask(
        bench=shared("toxicity/real_toxicity_prompts_5k.jsonl.gz"), num_prompts=400, samples=1
    )
    prompts = task.prompts(0)
    non_toxic = sum(prompt.split == "non_toxic" for prompt in prompts)
    assert len(prompts) == 400 and 0.68 < non_toxic / 400 < 0.82, "3,732 of 5,000 are"
    assert task.prompts(1) != prompts == task.prompts(0)
