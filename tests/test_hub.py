"""Pushing to the hub: what arrives there, and what is refused before anything is trained."""

import json
import os
import subprocess
import sys

import pytest

from multifaceted.app import OK, REFUSED, train
from multifaceted.hub import HubError, require_hub
from multifaceted.record_files import read_json
from multifaceted.records import RUN
from tests.conftest import ROOT, TINY, composed
from tests.hub import running_hub

PUSH = """
import sys
from pathlib import Path
from multifaceted.hub import HubError, push, require_hub
try:
    require_hub(sys.argv[1])
    print(push(sys.argv[1], {"": Path(sys.argv[2]), "adapter": Path(sys.argv[3])}))
except HubError as error:
    print(error)
"""


def pushed(name, folders, env):
    command = [sys.executable, "-c", PUSH, name, *map(str, folders)]
    return subprocess.run(command, env=os.environ | env, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def folders(tmp_path):
    for name in ("policy", "adapter"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "README.md").write_text(f"# {name}\n")
    return tmp_path / "policy", tmp_path / "adapter"


def test_folders_arrive_in_a_private_repository(folders):
    with running_hub() as (hub, env):
        assert pushed("someone/orpo", folders, env) == f"{env['HF_ENDPOINT']}/someone/orpo"
        assert hub.repositories["models", "someone/orpo"] == {
            "README.md": b"# policy\n",
            "adapter/README.md": b"# adapter\n",
        }
        assert hub.created[0]["visibility"] == "private"
        assert "knows no such token" in pushed("someone/orpo", folders, env | {"HF_TOKEN": "hf_other"})
        hub.rejects = True
        said = pushed("someone/orpo", folders, env)
        assert "failed: " in said and "are kept; the same command pushes again" in said
    assert "the hub does not answer" in pushed("someone/orpo", folders, env)


@pytest.mark.parametrize("name", ["orpo", "a/b/c", "some one/orpo", "/orpo"])
def test_names_that_no_repository_can_have(name):
    with pytest.raises(HubError, match=r"push_to_hub="):
        require_hub(name)


def test_a_push_is_refused_before_training(tmp_path, monkeypatch, capsys):
    config = composed("train", ["+experiment=sft", *TINY, f"paths.outputs={tmp_path}", "push_to_hub=someone/sft"])
    monkeypatch.setattr("multifaceted.hub.is_offline_mode", lambda: True)
    monkeypatch.setattr("multifaceted.app._run_folder", lambda outputs: outputs / "sft")
    assert train(config) == REFUSED
    said = capsys.readouterr().err
    assert "HF_HUB_OFFLINE is set, so nothing can be pushed; unset it, or leave it out" in said
    monkeypatch.setattr("multifaceted.hub.is_offline_mode", lambda: False)
    monkeypatch.setattr("multifaceted.hub.get_token", lambda: None)
    assert train(config) == REFUSED and "hf auth login or set HF_TOKEN" in capsys.readouterr().err
    assert not (tmp_path / "sft" / RUN).exists()


def test_a_run_is_pushed_when_it_ends_and_again_when_it_is_finished(tmp_path, monkeypatch, capsys):
    """The run's own folder; what goes over the wire is tested above."""
    calls = []
    monkeypatch.setattr("multifaceted.training.run.require_hub", calls.append)
    monkeypatch.setattr(
        "multifaceted.training.run.push", lambda name, folders: calls.append((name, folders)) or f"https://hub/{name}"
    )
    monkeypatch.setattr("multifaceted.app._run_folder", lambda outputs: outputs / "sft")
    options = ["+experiment=sft", *TINY, "max_steps=1", f"paths.outputs={tmp_path}", f"paths.cache={tmp_path}/cache"]
    for _ in range(2):
        assert train(composed("train", [*options, "push_to_hub=someone/sft"])) == OK
        assert "policy is also at https://hub/someone/sft" in capsys.readouterr().out
    assert calls == ["someone/sft", ("someone/sft", {"": tmp_path / "sft" / "policy"})] * 2
    facts = read_json(tmp_path / "sft" / RUN)
    assert len(facts["data_fingerprint"]) == 64 and facts["datasets_fingerprint"].keys() == {"training", "validation"}
    cached = {path.name for path in (tmp_path / "cache" / "datasets").glob("cache-*.arrow")}
    assert {f"cache-{fingerprint}.arrow" for fingerprint in facts["datasets_fingerprint"].values()} == cached


def test_instructions_are_pushed_with_a_card(tmp_path):
    koala = tmp_path / "koala.jsonl"
    koala.write_text("".join(json.dumps({"id": f"k{i}", "prompt": f"Why {i}?"}) + "\n" for i in range(9)))
    command = [
        *(sys.executable, "synthesize.py", "task.sources=[koala]", "task.num_instructions=5"),
        *(f"benches.koala={koala}", f"into={tmp_path}/bench", "push_to_hub=someone/bench"),
    ]
    with running_hub() as (hub, env):
        done = subprocess.run(command, check=False, cwd=ROOT, env=os.environ | env, capture_output=True, text=True)
        assert done.returncode == OK, done.stderr
        files = hub.repositories["datasets", "someone/bench"]
    assert {*files} == {"README.md", "instructions.jsonl", "summary.json"}
    card = files["README.md"].decode()
    assert "data_files: instructions.jsonl" in card and "- koala: licence Apache-2.0" in card
