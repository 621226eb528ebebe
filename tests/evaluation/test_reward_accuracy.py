"""The accuracy of a reward model is what training validates, on any collection, and can be scored again."""

import json
import shutil

import pytest

from multifaceted.config import build, to_plain
from multifaceted.data.bad_rows import BadRows, DataError
from multifaceted.data.blend import Blend
from multifaceted.data.collections.multifaceted import Multifaceted
from multifaceted.data.preference_files import PreferenceFiles
from multifaceted.evaluation.config import EvalConfig
from multifaceted.evaluation.reward_accuracy import accuracy_metrics, rescore_rewards
from multifaceted.evaluation.run import run
from multifaceted.inference.rewards import RewardModel
from multifaceted.record_files import RecordError, read_json, read_jsonl
from multifaceted.records import REWARDS, RUN, SCORES, PairRewards
from multifaceted.tables import score_table
from tests.conftest import TINY, composed

AS_TRAINED = [f"task.{override}" for override in TINY if override.startswith("data.")]


@pytest.fixture
def reward_model(tiny_reward_model, tmp_path):
    return shutil.copytree(tiny_reward_model, tmp_path / "run" / "reward_model")


def evaluate(reward_model, *overrides):
    config = build(composed("eval", [f"policy={reward_model}", "task=reward_accuracy", *overrides]), EvalConfig)
    return config, run(config, to_plain(config))


def test_it_equals_the_validation_of_training(tiny_reward_run, reward_model):
    config, scores = evaluate(reward_model, *AS_TRAINED)
    summary = tiny_reward_run.summary
    assert config.folder == reward_model.parent / "eval" / "reward_accuracy_minicollection_seed-0"
    compared = 0
    for name, theirs in {"accuracy": "pair_accuracy", "margin": "margin"}.items():
        assert scores.metrics[f"all/{name}"].value == pytest.approx(summary[f"val/{theirs}"], abs=1e-5)
        for key, value in summary.items():
            kind, _, group = key.removeprefix("val/").partition("/")
            if kind == theirs and group:
                split, dimension = (group.replace("/", "-"), "") if "/" in group else ("all", f"/{group}")
                assert scores.metrics[f"{split}/{name}{dimension}"].value == pytest.approx(value, abs=1e-5)
                compared += 1
    assert compared >= 2 * (4 + 2) and scores.metrics["all/accuracy"].n == 8
    assert abs(scores.metrics["all/margin"].value) > 1e-4, "or the comparison says nothing"
    assert "style" in score_table(scores) and score_table(scores).split()[:3] == ["split", "accuracy", "margin"]


def test_scores_are_computed_again_from_the_rewards_alone(reward_model, monkeypatch):
    config, scores = evaluate(reward_model, *AS_TRAINED)
    before = (config.folder / SCORES).read_bytes()
    monkeypatch.setattr(RewardModel, "load", None)
    assert evaluate(reward_model, *AS_TRAINED)[1] == scores
    (config.folder / SCORES).unlink()
    rescore_rewards(config.folder, config.task.name)
    assert (config.folder / SCORES).read_bytes() == before


def test_a_kill_loses_no_pair_that_was_rewarded(reward_model, monkeypatch):
    config, scores = evaluate(reward_model, *AS_TRAINED)
    lines = (config.folder / REWARDS).read_text().splitlines(keepends=True)
    (config.folder / REWARDS).write_text("".join(lines[:3]) + lines[3][:20])
    record = read_json(config.folder / RUN)
    rows = record.pop("rows")
    (config.folder / RUN).write_text(json.dumps(record))
    asked = []
    of_tokens = RewardModel.of_tokens

    def counting(self, paths):
        asked.extend(paths)
        return of_tokens(self, paths)

    monkeypatch.setattr(RewardModel, "of_tokens", counting)
    again = evaluate(reward_model, *AS_TRAINED)[1]
    assert len(asked) == 2 * 5 and read_json(config.folder / RUN)["rows"] == rows
    for key, estimate in scores.metrics.items():
        assert again.metrics[key].value == pytest.approx(estimate.value, abs=1e-6)


def test_other_pairs_or_another_model_in_the_same_folder_are_refused(reward_model):
    evaluate(reward_model, *AS_TRAINED)
    with pytest.raises(RecordError, match=r"holds rewards .*something else .*pairs"):
        evaluate(reward_model, *AS_TRAINED, "task.data.source.num_validation=9")
    evaluate(reward_model, *AS_TRAINED, "task.data.source.num_validation=9", "overwrite=true")
    evaluate(reward_model, *AS_TRAINED, "seed=1")


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_pairs_and_groups_of_a_file_with_what_was_left_out(reward_model, tmp_path, caplog):
    pair = {"chosen": "Because the clouds are full.", "rejected": "No."}
    rows = [{"id": f"{n}", "prompt": f"Why {n // 2}?", **pair} for n in range(6)]
    rows += [{"id": "group", "prompt": "How?", "chosen": "So.", "rejected": ["No.", "Never.", "Not now."]}]
    rows += [
        {"id": "long", "prompt": "why " * 400, **pair},
        {"id": "same", "prompt": "a", "chosen": "b", "rejected": "b"},
    ]
    path = write_rows(tmp_path / "pairs.jsonl", rows)
    settings = ["pairs=preference_files", f"task.data.source.train_file={path}", "task.data.max_length=200"]
    settings += [f"task.data.source.validation_file={path}"]
    with pytest.raises(DataError, match=r"same.*task.data.on_bad_row=drop.*here the settings of data are task.data"):
        evaluate(reward_model, *settings)
    config, scores = evaluate(reward_model, *settings, "task.data.on_bad_row=drop")
    assert read_json(config.folder / RUN)["rows"] == {
        "examples": 7,
        "dropped/equal_responses": 1,
        "dropped/prompt_too_long": 1,
    }
    assert (scores.metrics["all/accuracy"].n, scores.metrics["all/accuracy"].unscored) == (7, 2)
    group = next(row for row in read_jsonl(config.folder / REWARDS) if row["id"] == "group")
    assert len(group["rejected"]) == 3 and "dropped/prompt_too_long: 1" in caplog.text
    assert len({row["prompt"] for row in read_jsonl(config.folder / REWARDS)}) == 4
    with pytest.raises(ValueError, match=r"task.data.max_length=512"):
        evaluate(reward_model, *settings, "task.data.on_bad_row=drop", "task.data.max_length=4000", "overwrite=true")


def test_held_out_pairs_need_no_training_files(reward_model, tmp_path):
    pair = {"chosen": "Because the clouds are full.", "rejected": "No."}
    path = write_rows(tmp_path / "pairs.jsonl", [{"id": f"{n}", "prompt": f"Why {n}?", **pair} for n in range(4)])
    settings = ["pairs=preference_files", f"task.data.source.train_file={tmp_path}/nothing", "task.data.max_length=200"]
    with pytest.raises(DataError, match=r"nothing does not exist.*data\.source\.train_file"):
        evaluate(reward_model, *settings)
    _, scores = evaluate(reward_model, *settings, f"task.data.source.validation_file={path}")
    assert scores.metrics["all/accuracy"].n == scores.metrics["pairs/accuracy"].n == 4


def test_who_validates_only_names_the_files_that_it_needs(tmp_path):
    held_out = write_rows(tmp_path / "a.jsonl", [{"id": "1", "prompt": "?", "chosen": "A.", "rejected": "B."}])
    nothing = tmp_path / "nothing.jsonl"
    files = PreferenceFiles(train_file=nothing, validation_file=held_out)
    blend = Blend(sources={"files": files}, weights={"files": 1.0}, num_examples=1).held_out()
    blend.require_files()
    assert [example.id for example in blend.validation(0, BadRows())] == ["files/1"]
    assert files.train_file == nothing, "training still needs it"
    groups = Multifaceted(train_file=nothing, validation_file=held_out, siblings=True).held_out()
    with pytest.raises(DataError, match=r"nothing.jsonl does not exist"):
        groups.require_files()


def rewards(name, chosen, *rejected, source="a/b", contrast=(), prompt=None):
    return PairRewards(
        id=name, source=source, contrast=list(contrast), prompt=prompt or name, chosen=chosen, rejected=list(rejected)
    )


def test_ties_count_half_and_groups_the_mean_of_their_pairs():
    rows = [
        rewards("1", 1.0, 0.0, contrast=["style"]),
        rewards("2", 0.0, 0.0),
        rewards("3", 1.0, 0.0, 1.0, 2.0, source="c"),
        rewards("4", 0.0, 2.0, source="c", contrast=["style", "harmlessness"]),
    ]
    metrics = accuracy_metrics(rows, dropped=2)
    values = {key: estimate.value for key, estimate in metrics.items()}
    assert values == {
        "all/accuracy": 0.5,
        "all/accuracy/style": 0.5,
        "all/accuracy/harmlessness": 0.0,
        "all/margin": -0.25,
        "all/margin/style": -0.5,
        "all/margin/harmlessness": -2.0,
        "a-b/accuracy": 0.75,
        "a-b/accuracy/style": 1.0,
        "a-b/margin": 0.5,
        "a-b/margin/style": 1.0,
        "c/accuracy": 0.25,
        "c/accuracy/style": 0.0,
        "c/accuracy/harmlessness": 0.0,
        "c/margin": -1.0,
        "c/margin/style": -2.0,
        "c/margin/harmlessness": -2.0,
    }
    assert (metrics["all/accuracy"].n, metrics["all/accuracy"].unscored, metrics["c/accuracy"].unscored) == (4, 2, 0)
    assert accuracy_metrics(rows[::-1], dropped=2) == {key: metrics[key] for key in metrics}, "in any order"


def test_intervals_resample_prompts():
    values = [float(n % 2) for n in range(40)]
    alone = accuracy_metrics([rewards(f"{n:02}", v, 0.5) for n, v in enumerate(values)])["all/accuracy"]
    together = accuracy_metrics([rewards(f"{n:02}", v, 0.5, prompt=f"{n % 4}") for n, v in enumerate(values)])
    assert together["all/accuracy"].high - together["all/accuracy"].low > 1.5 * (alone.high - alone.low)


def test_what_is_no_reward_model_is_refused(tiny_run, reward_model):
    with pytest.raises(ValueError, match="is no reward model"):
        evaluate(tiny_run.exported, *AS_TRAINED)
    with pytest.raises(ValueError, match="name its folder, such as policy=outputs/reward_model/reward_model"):
        evaluate(reward_model, "engine=server", "engine.model=m")
    with pytest.raises(ValueError, match="a reward model brings its own: template=own"):
        evaluate(reward_model, "task.data.template=janus")
