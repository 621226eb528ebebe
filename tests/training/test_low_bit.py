"""AdamW on bf16 weights and with 8-bit state: what moves, what it costs, and checkpoints on one rank and on two."""

import signal
from copy import deepcopy

import pytest
import torch
from lightning.pytorch import Callback
from safetensors.torch import load_file
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from multifaceted.config import ConfigError, build
from multifaceted.training import checkpoint
from multifaceted.training.config import TrainConfig
from multifaceted.training.launch import launch
from multifaceted.training.low_bit import plain_parts
from multifaceted.training.optimizer import AdamW
from multifaceted.training.ranks import Ranks, joined
from tests.conftest import composed
from tests.training.test_invariance import SignalAt, curve
from tests.training.test_sharding import compose_run, on_each_rank, run

pytest.importorskip("torchao", reason='needs the extra "torchao"')

BLOCKED = ["optimizer=adamw_8bit", "optimizer.lr=1e-2", "model.config.hidden_size=256"]
"""At this width the state of all matrices is in blocks; that of the norms is not."""


@pytest.fixture(autouse=True)
def uncompiled(request):
    """torchao compiles its step, which takes a CPU many seconds; slow tests let it."""
    with torch.compiler.set_stance("default" if request.node.get_closest_marker("slow") else "force_eager"):
        yield


def model_of_all_kinds(dtype=torch.float32):
    """Matrices in blocks, one with fewer rows than two ranks, one whose rows are no multiple of a block, and biases."""
    torch.manual_seed(0)
    layers = {"wide": nn.Linear(1024, 5), "down": nn.Linear(4096, 1), "odd": nn.Linear(100, 60)}
    return nn.ModuleDict(layers).to(dtype)


def step(model, optimizer, index=0):
    torch.manual_seed(index)
    optimizer.zero_grad()
    for layer in model.values():
        inputs = torch.randn(8, layer.in_features, dtype=layer.weight.dtype)
        (layer(inputs) - inputs[:, :1]).square().mean().backward()
    optimizer.step()


def flat(model, optimizer):
    named = {id(parameter): name for name, parameter in model.named_parameters()}
    state = {
        f"{named[id(parameter)]}.{key}": tensor for parameter, s in optimizer.state.items() for key, tensor in s.items()
    }
    return {name: part for key, tensor in state.items() for name, part in plain_parts(key, tensor).items()}


def num_bytes(tensors):
    return sum(t.numel() * t.element_size() for t in tensors)


def test_state_in_8_bits_is_small_and_follows_fp32():
    ours, theirs = model_of_all_kinds(), model_of_all_kinds()
    eight, full = AdamW(lr=1e-3, eight_bit=True).build(ours), AdamW(lr=1e-3).build(theirs)
    start = deepcopy(theirs)
    for index in range(10):
        step(ours, eight, index)
        step(theirs, full, index)
    state = flat(ours, eight)
    large = [tensor for name, tensor in state.items() if name.startswith(("wide.weight", "down.weight"))]
    num_weights = theirs["wide"].weight.numel() + theirs["down"].weight.numel()
    assert num_bytes(large) < 2.05 * num_weights
    moments = num_bytes(tensor for name, tensor in state.items() if not name.endswith("step"))
    assert AdamW(lr=1e-3, eight_bit=True).state_bytes(ours) == moments
    assert not any(name.startswith("odd") and "codes" in name for name in state), "a block would cross rows"
    for name, weight in ours.named_parameters():
        exact, initial = theirs.get_parameter(name), start.get_parameter(name)
        moved = (exact - initial).norm()
        assert moved > 0 and (weight - exact).norm() < 0.05 * moved, name


def test_torch_would_lose_small_updates_of_bf16_weights_and_ours_keeps_them_on_average():
    """Under a constant gradient a step is lr: 100 steps of 1e-5 on weights of 1, where the next bf16 is 1/256 away."""
    moves = {}
    for name in ("torch", "ours"):
        weight = nn.Linear(100, 100, bias=False, dtype=torch.bfloat16)
        nn.init.ones_(weight.weight)
        builders = {"torch": lambda p: torch.optim.AdamW(p, lr=1e-5, weight_decay=0.0), "ours": None}
        optimizer = builders[name](weight.parameters()) if builders[name] else AdamW(lr=1e-5).build(weight)
        torch.manual_seed(0)
        for _ in range(100):
            weight.weight.grad = torch.full_like(weight.weight, 1e-3)
            optimizer.step()
        moves[name] = 1 - weight.weight.float().mean().item()
    assert moves["torch"] == 0
    assert moves["ours"] == pytest.approx(100 * 1e-5, rel=0.1)


@pytest.mark.parametrize("eight_bit", [False, True])
def test_state_of_bf16_weights_is_not_in_bf16(eight_bit):
    model = model_of_all_kinds(torch.bfloat16)
    optimizer = AdamW(lr=1e-3, eight_bit=eight_bit).build(model)
    step(model, optimizer)
    assert {t.dtype for t in flat(model, optimizer).values()} <= {torch.float32, torch.uint8}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("eight_bit", [False, True])
def test_a_checkpoint_continues_to_the_same_bytes(eight_bit, dtype, tmp_path):
    config = AdamW(lr=1e-3, eight_bit=eight_bit)
    model = model_of_all_kinds(dtype)
    optimizer = config.build(model)
    for index in range(3):
        step(model, optimizer, index)
    folder = checkpoint.folder_of(tmp_path, 3)
    checkpoint.write(folder, model, [optimizer], {"global_step": 3}, Ranks())
    other = model_of_all_kinds(dtype)
    resumed = config.build(other)
    checkpoint.read(folder, other, [resumed], Ranks())
    for index in range(3, 5):
        step(model, optimizer, index)
        step(other, resumed, index)
    for ours, theirs in ((flat(other, resumed), flat(model, optimizer)), (other.state_dict(), model.state_dict())):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def hand_over(source, target, stance):
    """What a launched rank does: read a checkpoint and write it again, sharded."""
    with torch.compiler.set_stance(stance), joined("cpu", alone=True) as ranks:
        model = model_of_all_kinds()
        for layer in model.values():
            fully_shard(layer, mesh=init_device_mesh("cpu", (ranks.world_size,)))
        optimizer = AdamW(lr=1e-3, eight_bit=True).build(model)
        checkpoint.read(source, model, [optimizer], ranks)
        checkpoint.write(target, model, [optimizer], {"global_step": 3}, ranks)
        step(model, optimizer, 3)  # also where a rank has no rows of a matrix


@pytest.mark.parametrize("stance", ["force_eager", pytest.param("default", marks=pytest.mark.slow)])
def test_blocks_are_dealt_to_ranks_and_back_exactly(stance, tmp_path):
    model = model_of_all_kinds()
    optimizer = AdamW(lr=1e-3, eight_bit=True).build(model)
    for index in range(3):
        step(model, optimizer, index)
    one, two = (checkpoint.folder_of(tmp_path / name, 3) for name in ("one", "two"))
    checkpoint.write(one, model, [optimizer], {"global_step": 3}, Ranks())
    launch(2, hand_over, one, two, stance)
    other = model_of_all_kinds()
    returned = AdamW(lr=1e-3, eight_bit=True).build(other)
    checkpoint.read(two, other, [returned], Ranks())
    ours, theirs = flat(other, returned), flat(model, optimizer)
    assert ours.keys() == theirs.keys() and any("codes" in name for name in theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_an_interrupted_run_in_8_bits_continues_to_the_same_bytes(trained, tmp_path, monkeypatch):
    settings = [*BLOCKED, "validation.times=1"]
    whole = trained("orpo", *settings, folder=tmp_path / "whole")
    SignalAt(monkeypatch, step=2, number=signal.SIGTERM)
    assert trained("orpo", *settings, folder=tmp_path / "stopped").interrupted_by == signal.SIGTERM
    continued = trained("orpo", *settings, folder=tmp_path / "stopped")
    assert curve(continued) == curve(whole)
    ours, theirs = (load_file(outcome.exported / "model.safetensors") for outcome in (continued, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_state_in_8_bits_is_not_offloaded():
    overrides = [*BLOCKED, "strategy=fsdp", "strategy.cpu_offload=true"]
    with pytest.raises(ConfigError, match=r"eight_bit=true with strategy.cpu_offload=true.*set one of them to false"):
        build(composed("train", overrides), TrainConfig)


def train_uncompiled(jobs):
    """What a launched rank does."""
    with torch.compiler.set_stance("force_eager"):
        return on_each_rank(jobs)


def test_two_ranks_in_8_bits_give_the_curve_of_one_process(tmp_path):
    """Up to rounding: a gradient's last digit may choose the neighbouring code."""
    config, plain = compose_run(tmp_path, None, "orpo", *BLOCKED, "max_steps=5")
    single = run(config, plain, tmp_path / "single")
    sharded = compose_run(tmp_path, None, "orpo", *BLOCKED, "max_steps=5", "strategy=fsdp", "trainer.devices=2")[1]
    outcome = launch(2, train_uncompiled, [(sharded, tmp_path / "sharded", None)])[0]
    assert curve(outcome) == pytest.approx(curve(single), rel=1e-3)


@pytest.mark.parametrize("strategy", ["single", "fsdp"])
def test_weights_in_bf16_train_and_their_rotary_frequencies_stay_in_fp32(strategy, trained, tiny_run, tmp_path):
    settings = [f"start={tiny_run.folder}", "optimizer=adamw", "optimizer.lr=1e-3", f"strategy={strategy}"]
    types = {}

    class Types(Callback):
        def on_train_start(self, trainer, pl_module):
            model = pl_module.scorer.model
            types.update(weights={p.dtype for p in model.parameters()}, buffers={b.dtype for b in model.buffers()})
            state = trainer.optimizers[0].state.values()
            types.update(state={tensor.dtype for values in state for tensor in values.values()})

    exact = trained("dpo", *settings, folder=tmp_path / "exact")
    outcome = trained("dpo", *settings, "trainer.precision=bf16-true", callbacks={"types": Types()})
    assert types == {"weights": {torch.bfloat16}, "buffers": {torch.float32}, "state": {torch.float32}}
    assert curve(outcome, "train/margin")[0] == pytest.approx(0, abs=1e-4), "the reference is computed as the policy is"
    assert curve(outcome) == pytest.approx(curve(exact), abs=2e-3)
