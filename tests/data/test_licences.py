"""What licences allow: who is warned of what, and what the card of a policy says."""

import logging

import pytest

from multifaceted.config import ConfigError, build
from multifaceted.data.blend import Blend
from multifaceted.data.collections.dsp import Dsp
from multifaceted.data.collections.webgpt import WebGpt
from multifaceted.data.licences import KNOWN, Collection, Licence, Terms, Use, card_section, objections
from multifaceted.data.preference_files import PreferenceFiles
from multifaceted.data.source import MiniCollection
from multifaceted.training.config import TrainConfig
from tests.conftest import composed
from tests.data.collections.sets import SETS, domains
from tests.data.shapes import write
from tests.test_config import REQUIRED, choices

OWN = {"name": "CC BY-NC-ND 4.0", "commercial": False, "training": False, "text": "No derivatives."}


def said(licence, use):
    return objections([Terms(where="data.source", files="rain.jsonl", licence=licence)], use)


@pytest.mark.parametrize("collection", Collection)
def test_research_may_use_every_known_collection(collection):
    assert said(KNOWN[collection], Use.RESEARCH) == []


@pytest.mark.parametrize(
    ("licence", "use", "expected"),
    [
        (
            KNOWN[Collection.DSP],
            Use.COMMERCIAL,
            "the licence (CC BY-NC 4.0) forbids commercial use. Give",
        ),
        (KNOWN[Collection.WEBGPT], Use.COMMERCIAL, "(not stated) does not say that it allows commercial use"),
        (KNOWN[Collection.HELPSTEER], Use.COMMERCIAL, None),
        (None, Use.RESEARCH, None),
        (None, Use.COMMERCIAL, "no licence is stated, and data.use=commercial. Make sure that you may"),
        (Licence(**OWN), Use.RESEARCH, "rain.jsonl: the licence (CC BY-NC-ND 4.0) forbids training. No derivatives."),
        (Licence(name="house"), Use.COMMERCIAL, "does not say"),
    ],
)
def test_who_is_told_what(licence, use, expected):
    told = said(licence, use)
    assert (told == []) if expected is None else (len(told) == 1 and expected in told[0])


@pytest.mark.parametrize("name", choices("data"))
def test_every_collection_that_is_configured_states_its_licence(name):
    config = build(composed("train", [f"data={name}", *REQUIRED.get(f"data={name}", [])]), TrainConfig)
    terms = config.data.source.terms()
    assert all(part.licence for part in terms) or name == "preference_files"
    assert terms or name == "mini"


def test_a_user_states_the_licence_of_own_files():
    source = build({"train_file": "rain.jsonl", "licence": OWN}, PreferenceFiles)
    assert source.terms() == [Terms(where="data.source", files="rain.jsonl", licence=Licence(**OWN))]
    assert build({"train_file": "a", "licence": "oasst1"}, PreferenceFiles).terms()[0].licence.name == "Apache-2.0"
    assert build({"train_file": "a", "licence": None}, WebGpt).terms()[0].licence is None
    with pytest.raises(ConfigError, match="licence: 'mine' does not fit"):
        build({"train_file": "a", "licence": "mine"}, PreferenceFiles)


def test_a_blend_names_each_of_its_sources():
    sources = {"domains": Dsp(train_file="a"), "rain": PreferenceFiles(train_file="b"), "none": WebGpt(train_file="c")}
    blend = Blend(sources=sources, weights={"domains": 1, "rain": 1, "none": 0}, num_examples=2)
    first, second = objections(blend.terms(), Use.COMMERCIAL)
    assert "a: the licence (CC BY-NC 4.0) forbids" in first and "data.source.sources.rain.licence={name:" in second


def test_a_card_says_what_is_known():
    assert card_section(MiniCollection(num_examples=1).terms(), Use.COMMERCIAL) == ""
    assert card_section(PreferenceFiles(train_file="a").terms(), Use.COMMERCIAL) == ""
    section = card_section(Dsp(train_file="hf:/datasets/a/b").terms(), Use.COMMERCIAL)
    assert "- hf://datasets/a/b: licence CC BY-NC 4.0. Give credit" in section and "\nWarning: " in section
    assert "Warning" not in card_section(Dsp(train_file="a").terms(), Use.RESEARCH)


@pytest.mark.parametrize("use", Use)
def test_a_run_warns_and_its_policy_carries_the_terms(trained, tmp_path, caplog, use):
    train = write(tmp_path / "train.jsonl", [domains(n) for n in range(3)])
    held_out = write(tmp_path / "held_out.jsonl", SETS["dsp"].rows[3:4])
    files = [f"data.source.train_file={train}", f"data.source.validation_file={held_out}", f"data.use={use}"]
    with caplog.at_level(logging.WARNING):
        outcome = trained("sft", "data=dsp", *files, "data.max_length=400", "max_steps=1", without=["data."])
    warned = [message for message in caplog.messages if message.startswith("licence: ")]
    card = (outcome.exported / "README.md").read_text()
    assert f"Trained for {use} use, on:" in card and f"{train}: licence CC BY-NC 4.0." in card
    assert len(warned) == ("Warning" in card) == (use is Use.COMMERCIAL)
