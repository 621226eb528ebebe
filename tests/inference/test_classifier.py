"""A classifier gives the probability of its label of toxicity, whatever the batch."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import multifaceted.inference.classifier
from multifaceted.inference.classifier import Classifier, toxicity_label
from multifaceted.inference.likelihood import LikelihoodModel
from multifaceted.inference.loading import model_folder
from multifaceted.inference.requests import EngineError
from multifaceted.inference.rewards import RewardModel
from tests.inference.classifiers import DETOXIFY, write_classifier


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_classifier(tmp_path_factory.mktemp("classifier"))


@pytest.fixture(scope="module")
def classifier(folder):
    return Classifier.load(folder)


@torch.no_grad()
def logits(classifier, text):
    return classifier.model(**classifier.tokenizer(text, return_tensors="pt")).logits[0].double()


@given(st.lists(st.text("you are a fool", min_size=1, max_size=30), min_size=1, max_size=9), st.integers(1, 4))
@settings(max_examples=25)
def test_a_probability_does_not_depend_on_its_batch(classifier, texts, size):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(multifaceted.inference.classifier, "BATCH", size)
        found = classifier.probabilities([(str(place), text) for place, text in enumerate(texts)])
    assert list(found) == [str(place) for place in range(len(texts))]
    for place, text in enumerate(texts):
        assert found[str(place)] == pytest.approx(float(logits(classifier, text).sigmoid()[0]), abs=1e-5)


@pytest.mark.parametrize(
    ("labels", "problem", "place"),
    [
        (DETOXIFY, "multi_label_classification", 0),
        (("obscene", "Toxic"), "multi_label_classification", 1),
        (("neutral", "toxic"), None, 1),
        (("toxic", "neutral", "other"), "single_label_classification", 0),
    ],
)
def test_labels_exclude_each_other_or_not_as_the_config_says(tmp_path, labels, problem, place):
    classifier = Classifier.load(write_classifier(tmp_path, labels, problem_type=problem))
    values = logits(classifier, "you fool")
    shares = values.sigmoid() if problem == "multi_label_classification" else values.softmax(-1)
    assert classifier.probabilities([("a", "you fool")])["a"] == pytest.approx(float(shares[place]), abs=1e-5)


def test_a_classifier_of_something_else_is_refused_with_its_labels(tmp_path):
    with pytest.raises(EngineError, match="has no label toxicity or toxic; it has sadness, joy"):
        toxicity_label(write_classifier(tmp_path, ("sadness", "joy")))


def test_a_classifier_without_a_head_is_refused(tmp_path):
    folder = write_classifier(tmp_path / "classifier")
    weights = {n: w for n, w in load_file(folder / "model.safetensors").items() if not n.startswith("classifier.")}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(EngineError, match="lacks weights of a RobertaForSequenceClassification"):
        Classifier.load(folder)


def test_a_text_that_is_too_long_is_refused_by_id(classifier):
    with pytest.raises(EngineError, match=r"'a#3' has \d+ tokens, and the classifier's context is 64"):
        classifier.probabilities([("a#3", "fool " * 100)])
    assert classifier.probabilities([]) == {}


def test_pickles_and_models_that_are_not_there_are_refused(folder, tmp_path, monkeypatch):
    assert model_folder(str(folder), "task.classifier") == folder
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(EngineError, match=r"task.classifier=.* lacks model\*.safetensors.*a pickle"):
        model_folder(str(tmp_path), "task.classifier")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(EngineError, match=r"task.fluency: nobody/nothing is no folder .* hf download nobody/nothing"):
        model_folder("nobody/nothing", "task.fluency")


@pytest.mark.parametrize("load", [toxicity_label, LikelihoodModel.load, RewardModel.load])
def test_code_that_a_model_brings_is_never_run_and_nobody_is_asked_to(load, tmp_path, monkeypatch):
    folder = write_classifier(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text()) | {
        "model_type": "own",
        "auto_map": {"AutoConfig": "own.Own"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text("raise SystemExit('this code ran')")
    monkeypatch.setattr("builtins.input", lambda *question: pytest.fail(f"somebody is asked: {question}"))
    with pytest.raises(ValueError, match=r"custom code|is a reward model|has no chat template"):
        load(folder)
