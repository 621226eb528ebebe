"""Where a policy's files are: a folder or the hub's cache; and what is no policy."""

import json
import shutil

import pytest

from multifaceted.model.export import folder_fingerprint
from multifaceted.model.folder import is_hub_id, resolve_start
from multifaceted.model.policy_files import resolve_policy

ID = "someone/rain-7b"


@pytest.fixture
def policy(tiny_run, tmp_path):
    return shutil.copytree(tiny_run.exported, tmp_path / "run" / "policy")


def test_a_folder_is_told_apart_by_its_content(policy):
    files = resolve_policy(str(policy))
    assert (files.folder, files.fingerprint()) == (policy, folder_fingerprint(policy))


def test_a_hub_id_is_its_snapshot_and_no_weights_are_read_to_tell_it_apart(policy, model_hub, monkeypatch):
    snapshot = model_hub(ID, policy, commit="a" * 40)
    files = resolve_policy(ID)
    monkeypatch.setattr("multifaceted.model.export.hash_files", lambda *paths: pytest.fail("weights are read"))
    assert (files.folder, files.fingerprint()) == (snapshot, f"{ID}@{'a' * 40}")
    model_hub(ID, policy, commit="b" * 40)
    assert resolve_policy(ID).fingerprint() == f"{ID}@{'b' * 40}"
    assert resolve_policy(f"{ID}@{'a' * 40}") == files, "what a record names can be asked for"


def test_only_what_is_no_code_and_no_pickle_is_downloaded(policy, model_hub, monkeypatch):
    asked = {}

    def download(repository, *, revision, allow_patterns):
        asked.update(repository=repository, revision=revision, patterns=allow_patterns)
        return str(model_hub(ID, policy))

    monkeypatch.setattr("multifaceted.model.policy_files.snapshot_download", download)
    resolve_policy(f"{ID}@v1")
    assert (asked["repository"], asked["revision"]) == (ID, "v1")
    assert set(asked["patterns"]) == {"model*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"}


def test_a_hub_id_that_is_not_here_is_refused_with_how_to_get_it(policy, model_hub):
    model_hub("someone/else", policy)
    with pytest.raises(ValueError, match=rf"{ID}@v1 is no folder here.*hf download {ID} --revision v1 \(a gated one"):
        resolve_policy(f"{ID}@v1")


@pytest.mark.parametrize("lost", ["model.safetensors", "model-00002-of-00002.safetensors"])
def test_a_download_that_was_broken_off_is_refused(policy, model_hub, lost):
    snapshot = model_hub(ID, policy)
    if lost == "model.safetensors":
        (snapshot / lost).unlink()
    else:
        (snapshot / "model.safetensors").rename(snapshot / "model-00001-of-00002.safetensors")
        names = {"a": "model-00001-of-00002.safetensors", "b": lost}
        (snapshot / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    with pytest.raises(ValueError, match=rf"it lacks (\*.safetensors|{lost}).*hf download {ID} \("):
        resolve_policy(ID)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *[(name, True) for name in (ID, f"{ID}@main", f"{ID}@refs/pr/3", "mistralai/Mistral-7B-Instruct-v0.2")],
        *[(name, False) for name in ("somewhere", "/a", "./a", "outputs/orpo", "a/b/c", "sft/policy", "a /b", "a/")],
    ],
)
def test_what_looks_like_a_hub_id(name, expected):
    assert is_hub_id(name) is expected


def test_what_is_here_is_no_hub_id(policy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(policy, tmp_path / "someone" / "rain-7b")
    assert not is_hub_id(ID) and resolve_policy(ID).snapshot is None
    assert resolve_start(ID) == ID and resolve_start("someone/snow") == "someone/snow"


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"architectures": ["RainForCausalLM"], "model_type": "rain"}, r"a RainForCausalLM \(model_type 'rain'\)"),
        ({"architectures": ["T5ForConditionalGeneration"], "model_type": "t5"}, "a T5ForConditionalGeneration"),
        (
            {"architectures": ["BartForCausalLM"], "model_type": "bart", "is_encoder_decoder": True},
            "a BartForCausalLM",
        ),
        ({"architectures": ["BertForMaskedLM"], "model_type": "bert"}, "a BertForMaskedLM"),
        ({"architectures": None, "model_type": None}, r"a model \(model_type None\)"),
        ({"architectures": ["MistralForSequenceClassification"]}, "is a reward model"),
    ],
)
@pytest.mark.parametrize("on_hub", [False, True])
def test_what_writes_no_text_is_refused_by_name(policy, model_hub, config, named, on_hub):
    path = policy / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    if on_hub:
        model_hub(ID, policy)
    with pytest.raises(ValueError, match=named):
        resolve_policy(ID if on_hub else str(policy))


@pytest.mark.parametrize("architectures", [["MistralForCausalLM"], None])
def test_a_decoder_is_not_refused(policy, architectures):
    path = policy / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"architectures": architectures, "model_type": "mistral"}))
    assert resolve_policy(str(policy)).folder == policy


def test_other_tokens_that_end_an_answer_are_another_policy(policy):
    before = resolve_policy(str(policy)).fingerprint()
    settings = json.loads((policy / "generation_config.json").read_text())
    (policy / "generation_config.json").write_text(json.dumps(settings | {"eos_token_id": [1, 5]}))
    assert resolve_policy(str(policy)).fingerprint() != before
