"""A plan says what training then does, and refuses what cannot fit."""

import pytest

from multifaceted.app import OK, REFUSED, train
from multifaceted.config import ConfigError, build, prepare_overrides, run_name
from multifaceted.training.config import TrainConfig
from multifaceted.training.memory import memory_parts
from multifaceted.training.plan import plan
from tests.conftest import TINY, composed

SEVEN = [
    "model.config.hidden_size=4096",
    "model.config.intermediate_size=14336",
    "model.config.num_hidden_layers=32",
    "model.config.num_attention_heads=32",
    "model.config.num_key_value_heads=8",
    "optimizer=adamw",
    "optimizer.lr=1e-5",
    "trainer=gpu",
    "data.source.num_examples=64",
    "data.source.num_validation=8",
]
"""A model of Mistral-7B's shape, beside a small vocabulary."""


def config_of(*overrides, experiment="orpo"):
    return build(composed("train", [f"+experiment={experiment}", "plan=true", *overrides]), TrainConfig)


def planned_rows(config):
    return {name: value for section in plan(config).sections.values() for name, value in section.items()}


@pytest.mark.parametrize("overrides", [[], ["batch.packing=false"], ["batch.share_prefix=false"]])
def test_a_plan_says_what_training_then_does(trained, overrides):
    options = [*TINY, "num_epochs=2", "data.max_length=200", "data.on_bad_row=drop", *overrides]
    rows = planned_rows(config_of(*options))
    summary = trained("orpo", *options).summary
    for name in ("steps", "examples", *(key for key in summary if key.startswith(("dropped/", "cut/", "view/")))):
        assert rows[name] == summary[name], name
    if not overrides:
        assert rows["fill"] == f"{100 * rows['tokens'] / (rows['forward_passes'] * 8192):.1f} %"
    assert rows["padding"] == f"{100 * summary['throughput/padding_share']:.1f} %"
    assert rows["tokens"] == 2 * sum(rows[f"tokens/{part}"] for part in ("prompt", "chosen", "rejected"))


def test_a_plan_leaves_only_the_tokens_it_made(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    overrides = [*TINY, f"paths.outputs={tmp_path}/outputs", f"paths.cache={tmp_path}/cache"]
    assert train(composed("train", ["+experiment=orpo", "plan=true", *overrides])) == OK
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["datasets"]
    assert "unknown, for the device's peak is not known" in capsys.readouterr().out


def test_what_cannot_fit_is_refused_with_settings_that_do(capsys):
    on = ["plan.device=rtx3090"]
    assert train(composed("train", ["+experiment=orpo", "plan=true", *SEVEN, *on])) == REFUSED
    message = capsys.readouterr().err
    assert "rtx3090 has 23.5" in message
    suggested = message.splitlines()[1].split()
    assert plan(config_of(*SEVEN, *on, *suggested)).refusal is None
    assert plan(config_of(*SEVEN, *on, *suggested[:-1])).refusal is not None, "and no fewer"


def test_what_a_plan_weighs():
    config = config_of(*SEVEN, "plan.device=h200", "plan.price=2", "plan.utilisation=0.5")
    planned = plan(config)
    rows = {name: value for section in planned.sections.values() for name, value in section.items()}
    assert rows["weights"] == pytest.approx(1.5 * rows["gradients"], rel=0.02), "fp32, and autocast's copies in bf16"
    again = planned_rows(config_of(*SEVEN, "plan.device=h200", "activation_checkpointing=true"))
    assert again["weights"] == pytest.approx(again["gradients"], rel=0.02), "a layer's copies go when it has run"
    assert rows["optimizer state"] == pytest.approx(2 * rows["gradients"])
    assert rows["cost_usd"] == pytest.approx(2 * rows["hours"])
    assert rows["hours"] == pytest.approx(sum(rows[f"hours/{part}"] for part in ("training", "validation")))
    training = rows["flops/with_recomputation_and_padding"] / (0.5 * 989e12 * 3600)
    assert rows["hours/training"] == pytest.approx(training)


def test_devices_share_weights_under_fsdp():
    alone = planned_rows(config_of(*SEVEN, "plan.device=h200", "strategy=fsdp"))
    eight = planned_rows(config_of(*SEVEN, "plan.device=h200", "strategy=fsdp", "plan.num_devices=8"))
    assert eight["optimizer state"] == pytest.approx(alone["optimizer state"] / 8)
    assert alone["weights"] / 8 < eight["weights"] < alone["weights"] / 3, "two layers are gathered"


def test_an_adapter_has_few_gradients(tiny_run):
    start = f"start={tiny_run.folder}"
    rows = planned_rows(
        config_of(*TINY, start, "adapter=lora", "adapter.rank=1", "optimizer=adamw", "optimizer.lr=1e-4")
    )
    whole = planned_rows(config_of(*TINY, start, "optimizer=adamw", "optimizer.lr=1e-4"))
    assert rows["gradients"] < 0.5 * whole["gradients"]
    assert rows["flops"] < whole["flops"]


def test_memory_is_that_of_the_model_that_trains(trained):
    """The real model, sharded or not, may be given as well as an empty one: out of memory, its parts are shown."""
    from multifaceted.training.plan import empty_model
    from multifaceted.training.prepare import prepare_data
    from multifaceted.training.start import source_of

    config = config_of(*TINY)
    tokenizer = prepare_data(config, source_of(config), check=lambda examples: None).tokenizer
    empty = empty_model(config, tokenizer)
    real = config.model.load_model(tokenizer, reward=False, max_length=config.data.max_length)
    parts = memory_parts(config, real, num_devices=1)
    assert parts == memory_parts(config, empty, num_devices=1)
    assert parts["weights"] == sum(p.numel() * p.element_size() for p in real.parameters())


def test_the_switch_stands_beside_its_node():
    assert prepare_overrides(["plan=true", "plan.device=h200"]) == ["++plan.enabled=true", "++plan.device=h200"]
    config = config_of("plan.device=h200", "plan.num_devices=8", "batch.examples=16", experiment="janus/orpo")
    assert (config.plan.enabled, config.plan.device, config.plan.num_devices) == (True, "h200", 8)
    assert run_name(["+experiment=orpo", "++plan.enabled=true", "++plan.device=h200"]) == "orpo"


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["plan.device=h200"], "plan.device=h200 without a plan: add plan=true"),
        (["plan=true", "plan.device=h2000"], "device is 'h2000'; known are a100_40gb"),
        (["plan=true", "plan.num_devices=8"], "plan.num_devices=8 with strategy=single"),
        (["plan=true", "plan.utilisation=45"], "utilisation is 45.0"),
    ],
)
def test_a_wrong_plan_is_refused_by_name(overrides, named):
    with pytest.raises(ConfigError) as refusal:
        build(composed("train", overrides), TrainConfig)
    assert named in str(refusal.value)


def test_a_gpu_is_not_planned_for_a_cpu():
    with pytest.raises(ValueError, match="set trainer=gpu"):
        plan(config_of("plan.device=h200"))
