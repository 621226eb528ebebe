"""Recomputing layers in the backward pass and compiling them: less memory or time, the same numbers."""

import pytest
import torch
from lightning.pytorch import Callback
from safetensors.torch import load_file

from tests.training.test_invariance import curve

LAYERS = ["model.config.num_hidden_layers=3"]


class CountsForwards(Callback):
    """How often the first layer's feed-forward part runs in training."""

    def __init__(self):
        self.number = 0

    def on_train_start(self, trainer, pl_module):
        mlp = pl_module.scorer.model.base_model.layers[0].mlp
        mlp.register_forward_pre_hook(lambda module, *_: setattr(self, "number", self.number + module.training))


@pytest.mark.parametrize("experiment", ["orpo", "reward_model"])
def test_activation_checkpointing_recomputes_the_same_numbers(experiment, trained, tiny_run, tmp_path):
    start = [f"start={tiny_run.folder}"] if experiment == "reward_model" else []
    curves, forwards = [], []
    for recompute in (False, True):
        counts, setting = CountsForwards(), f"activation_checkpointing={str(recompute).lower()}"
        outcome = trained(
            experiment, *LAYERS, *start, setting, folder=tmp_path / str(recompute), callbacks={"count": counts}
        )
        curves.append(curve(outcome))
        forwards.append(counts.number)
    assert curves[1] == pytest.approx(curves[0], rel=1e-6)
    assert forwards[1] == 2 * forwards[0] > 0


def test_compiling_a_layer_keeps_its_names(trained, tmp_path):
    with torch.compiler.set_stance("force_eager"):
        compiled = trained("orpo", *LAYERS, "compile=true", "max_steps=1", folder=tmp_path / "compiled")
    plain = trained("orpo", *LAYERS, "max_steps=1", folder=tmp_path / "plain")
    ours, theirs = (load_file(outcome.exported / "model.safetensors") for outcome in (compiled, plain))
    assert ours.keys() == theirs.keys() and curve(compiled) == curve(plain)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [[], ["activation_checkpointing=true", "strategy=fsdp"]], ids=["", "fsdp"])
def test_compiled_layers_give_the_same_numbers(settings, trained, tmp_path):
    """Whatever the width of the rows, and once for all layers."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiled = trained("orpo", *LAYERS, *settings, "compile=true", folder=tmp_path / "compiled")
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    plain = trained("orpo", *LAYERS, *settings, folder=tmp_path / "plain")
    assert curve(compiled) == pytest.approx(curve(plain), rel=1e-5)
    assert 1 <= graphs <= 16, "parts of a layer, in training and validation, for one width and for any"
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs, "the other run was not compiled"
