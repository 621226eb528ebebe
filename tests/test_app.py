"""What the apps print and return."""

from pathlib import Path

import pytest
from hydra import initialize_config_dir
from omegaconf import OmegaConf

from multifaceted.app import FAILED, OK, REFUSED, _evaluation_of, _guarded, _next_command
from multifaceted.config import ConfigError, build, to_plain
from multifaceted.records import Estimate, Scores
from multifaceted.tables import format_table, score_table, summary_table
from multifaceted.training.config import TrainConfig
from multifaceted.training.module import NonFiniteLossError
from tests.conftest import CONF, composed


def raising(error):
    def stage():
        raise error

    return stage


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("a"), REFUSED),
        (ValueError("b"), REFUSED),
        (OSError("c"), REFUSED),
        (NonFiniteLossError("d"), FAILED),
    ],
)
def test_an_error_that_the_user_can_mend_is_one_message_and_a_code(error, code, capsys):
    assert _guarded(raising(error)) == code
    assert str(error) in capsys.readouterr().err
    assert _guarded(lambda: OK) == OK


def test_a_bug_keeps_its_traceback():
    with pytest.raises(RuntimeError, match="bug"):
        _guarded(raising(RuntimeError("bug")))


def test_tables():
    assert format_table([["a", "b"], ["long", "1"]]) == "a     b\nlong  1"
    summary = {"val/loss": 0.5, "val/loss/style": 0.25, "val/loss/mini/plan": 0.1, "steps": 3}
    table = summary_table(summary)
    assert "style" in table and "0.25" in table and "mini/plan" not in table and "steps  3" in table
    columns = ("adherence", "all_satisfied", "on_topic", "well_formed", "all_good", "chance", "adherence/style")
    estimate = Estimate(value=0.5, low=0.4, high=0.6, n=10)
    metrics = {f"seen/{name}": estimate for name in columns} | {
        "seen/flip_kept": Estimate(value=None, low=None, high=None, n=0)
    }
    shown = score_table(Scores(task="mini", policy={}, metrics=metrics))
    assert "0.500 [0.40, 0.60]" in shown and "unscored" in shown


@pytest.mark.parametrize(
    ("named", "columns"),
    [
        (("accuracy", "parity", "unscored", "accuracy/male"), "accuracy parity unscored"),
        (("stereotype_preferred", "absolute_difference"), "stereotype_preferred absolute_difference"),
        (("accuracy_ambig", "bias_ambig", "unscored"), "bias_ambig accuracy_ambig unscored"),
        (("expected_max_toxicity", "cut"), "expected_max_toxicity"),
        (("score", "turn_1"), "score turn_1"),
        (("score", "apples"), "score"),
        (("length", "apples"), "apples length"),
    ],
)
def test_a_task_shows_its_leading_metrics(named, columns):
    metrics = {f"bench/{name}": Estimate(value=0.5, low=0.4, high=0.6, n=10) for name in named}
    heading = score_table(Scores(task="t", policy={}, metrics=metrics)).splitlines()[1].split()
    assert " ".join(heading) == f"split {columns}"


def test_what_a_model_is_evaluated_by_suits_its_head():
    with initialize_config_dir(str(CONF), version_base="1.3"):
        asked = _evaluation_of(Path("a/reward_model"), "reward_accuracy", writes=False)
        assert asked is not None and asked.folder == Path("a/eval/reward_accuracy_minicollection_seed-0")
        with pytest.raises(ConfigError, match=r"'mini': a reward model writes no text; set it to reward_accuracy"):
            _evaluation_of(Path("a/reward_model"), "mini", writes=False)
        with pytest.raises(ConfigError, match=r"'reward_accuracy': a policy gives no rewards"):
            _evaluation_of(Path("a/policy"), "reward_accuracy", writes=True)
    assert _next_command(Path("a/reward_model"), "mini") == "python eval.py policy=a/reward_model task=reward_accuracy"


def test_a_launched_rank_trusts_what_the_command_line_trusted(monkeypatch, tmp_path):
    from multifaceted.app import _rank

    monkeypatch.setattr("multifaceted.training.run.run", lambda typed, plain, folder: typed)
    node = OmegaConf.to_container(composed("train")) | {"objective": {"_target_": "tests.test_config.OwnObjective"}}
    plain = to_plain(build(node | {"trust": ["tests"]}, TrainConfig))
    assert type(_rank(plain, ["tests"], tmp_path).objective).__name__ == "OwnObjective"
    with pytest.raises(ConfigError, match=r"trust=\[tests\]"):
        _rank(plain, [], tmp_path)
