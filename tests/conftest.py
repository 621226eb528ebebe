"""Shared fixtures. Nothing here reaches a network: hub and tracking are offline."""

import os
import shutil

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "disabled")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from pathlib import Path

import hypothesis
import pytest
from hydra import compose, initialize_config_dir

from multifaceted.config import prepare_overrides

hypothesis.settings.register_profile("busy", deadline=None)  # how long an example takes says how busy the machine is
hypothesis.settings.load_profile("busy")

ROOT = Path(__file__).parents[1]
CONF = ROOT / "conf"
SHARED = ROOT.parent / "shared" / "data"
"""Real files, for those who have them; every test that wants one skips without it."""
TINY = [
    "model.config.hidden_size=16",
    "model.config.intermediate_size=32",
    "model.config.num_hidden_layers=1",
    "model.config.num_attention_heads=2",
    "model.config.num_key_value_heads=1",
    "model.vocab_size=400",
    "data.source.num_examples=16",
    "data.source.num_validation=8",
    "data.max_length=400",
    "batch.examples=4",
    "trainer.log_every_n_steps=1",
]
"""Overrides that make any mini experiment a matter of a second."""


def composed(name, overrides=()):
    """Compose a root config as the app would."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, overrides=prepare_overrides(list(overrides)))


@pytest.fixture(scope="session")
def shared():
    """The path of a real file or folder, where it is here."""

    def find(name="."):
        path = SHARED / name
        if not path.exists():
            pytest.skip(f"{path} is not here")
        return path

    return find


@pytest.fixture
def trained(tmp_path):
    """Train tiny experiments: `trained("sft", "max_steps=1")` gives config, plain config and outcome."""
    from multifaceted.config import build, to_plain
    from multifaceted.training.config import TrainConfig
    from multifaceted.training.run import run

    def train(experiment, *overrides, folder=None, without=(), callbacks=None):
        tiny = [override for override in TINY if not override.startswith(tuple(without))]
        paths = [f"paths.outputs={tmp_path}/outputs", f"paths.cache={tmp_path}/cache"]
        config = build(composed("train", [f"+experiment={experiment}", *tiny, *paths, *overrides]), TrainConfig)
        plain = to_plain(config)
        config.callbacks |= callbacks or {}
        return run(config, plain, folder or tmp_path / "outputs" / experiment)

    return train


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """A finished tiny SFT run that other tests start from or evaluate."""
    from multifaceted.config import build, to_plain
    from multifaceted.training.config import TrainConfig
    from multifaceted.training.run import run

    root = tmp_path_factory.mktemp("tiny")
    paths = [f"paths.outputs={root}/outputs", f"paths.cache={root}/cache"]
    config = build(composed("train", ["+experiment=sft", *TINY, *paths, "max_steps=2"]), TrainConfig)
    return run(config, to_plain(config), root / "outputs" / "sft")


@pytest.fixture
def model_hub(tmp_path, monkeypatch):
    """Puts a folder into the hub's cache as a download leaves it: `model_hub("a/b", folder)` gives the snapshot."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))

    def cached(name, folder, commit="0" * 39 + "1"):
        repository = tmp_path / "hub" / f"models--{name.replace('/', '--')}"
        (repository / "refs").mkdir(parents=True, exist_ok=True)
        (repository / "refs" / "main").write_text(commit)
        return shutil.copytree(folder, repository / "snapshots" / commit)

    return cached


@pytest.fixture(scope="session")
def tiny_reward_run(tiny_run):
    """A finished tiny reward-model run."""
    from multifaceted.config import build, to_plain
    from multifaceted.training.config import TrainConfig
    from multifaceted.training.run import run

    root = tiny_run.folder.parent
    paths = [f"paths.outputs={root}", f"paths.cache={root.parent}/cache"]
    overrides = ["+experiment=reward_model", *TINY, *paths, f"start={tiny_run.folder}", "max_steps=3"]
    config = build(composed("train", overrides), TrainConfig)
    return run(config, to_plain(config), root / "reward_model")


@pytest.fixture(scope="session")
def tiny_reward_model(tiny_reward_run):
    """The folder that it exported."""
    return tiny_reward_run.exported
