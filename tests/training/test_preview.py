"""A preview shows the data that training then reads, and refuses what would stop it, after all is said."""

import json
from functools import partial

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig

import multifaceted.data.dataset
from multifaceted.app import OK, REFUSED, train
from multifaceted.config import build, prepare_overrides, run_name
from multifaceted.data.bad_rows import DataError, OnBadRow
from multifaceted.data.examples import store_examples
from multifaceted.data.tokenize import Limits, tokenize
from multifaceted.model.build import PretrainedModel, ScratchModel
from multifaceted.record_files import read_json
from multifaceted.records import LENGTHS, REPORT
from multifaceted.training.config import TrainConfig
from multifaceted.training.prepare import encode_examples, prepare_data, read_examples
from multifaceted.training.preview import _Looked, preview
from multifaceted.training.start import source_of
from tests.conftest import CONF, TINY, composed

ROWS = [
    {"system": f"Be {i}.", "prompt": f"Why {i // 2}?", "chosen": "Because it rains.", "rejected": "No."}
    for i in range(30)
]
BAD = [
    {"prompt": "Why?", "chosen": "", "rejected": "No."},
    {"prompt": "Why?", "chosen": "Yes </s> yes.", "rejected": "No."},
    {"prompt": "Why?", "chosen": "word " * 300, "rejected": "No."},
]


def only_empty(load):
    def loaded(*arguments, empty=False, **named):
        assert empty, "a preview reads weights"
        return load(*arguments, empty=True, **named)

    return loaded


@pytest.fixture
def run_app(tmp_path, monkeypatch):
    """`train.py` in this process, in a folder of its own; weights cannot be had."""
    monkeypatch.chdir(tmp_path)
    for kind in (ScratchModel, PretrainedModel):
        monkeypatch.setattr(kind, "load_model", only_empty(kind.load_model))

    def run(*overrides):
        paths = [f"paths.outputs={tmp_path}/outputs", f"paths.cache={tmp_path}/cache"]
        arguments = prepare_overrides([*overrides, *paths])
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose("train", overrides=arguments, return_hydra_config=True)
            HydraConfig.instance().set_config(config)
        return train(composed("train", arguments))

    yield run
    HydraConfig.instance().cfg = None


@pytest.fixture
def pairs(tmp_path):
    def write(rows):
        path = tmp_path / "pairs.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        of_files = ["objective=orpo", "data=preference_files", f"data.source.train_file={path}"]
        return [*of_files, "data.max_length=120", "data.source.validation_share=0.2"]

    return write


def config_of(*overrides):
    return build(composed("train", overrides), TrainConfig)


def test_it_says_what_training_then_does(run_app, tmp_path, capsys):
    options = [*TINY, "data.max_length=150", "data.on_bad_row=drop", "mix=balanced", "data.overlong=cut"]
    assert run_app("+experiment=orpo", *options, "preview=3") == OK
    printed = capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"cache", "outputs"}
    (folder,) = (tmp_path / "outputs" / "preview").iterdir()
    assert folder.name.startswith("orpo_") and {path.name for path in folder.iterdir()} == {REPORT, LENGTHS}
    assert f"{folder.relative_to(tmp_path)}/{REPORT}" in printed and "no row is lost" in printed
    assert printed.count("\nexample ") >= 3 and "\x1b" not in printed and printed.isascii()
    assert "tokens cut off here" in printed
    report = read_json(folder / REPORT)
    rows = report["rows"] | {f"view/{view}": number for view, number in report["views"].items()}
    config = config_of("+experiment=orpo", *options, f"paths.cache={tmp_path}/cache")
    data = prepare_data(config, source_of(config), check=lambda examples: None)
    assert {key: rows[key] for key in data.counts if not key.startswith("validation_view")} == {
        key: number for key, number in data.counts.items() if not key.startswith("validation_view")
    }
    assert rows["examples"] == len(data.train.trees) == sum(report["sources"].values())


def test_bad_rows_are_shown_before_the_run_is_refused(run_app, pairs, capsys):
    assert run_app(*pairs(ROWS + BAD), "preview=2") == REFUSED
    found = capsys.readouterr()
    for reason in ("empty_response", "special_token", "path_too_long"):
        assert f"left out as {reason}: 1" in found.out
    assert "Yes </s> yes." in found.out and "word word" in found.out and "no row is lost" in found.out
    config = config_of(*pairs(ROWS + BAD))
    with pytest.raises(DataError) as stop:
        prepare_data(config, source_of(config), check=lambda examples: None)
    message = str(stop.value).partition(" (or leave out")[0]
    assert message in found.err and "first of 2 bad rows" in found.err and "data.on_bad_row=drop" in found.err
    assert run_app(*pairs(ROWS + BAD), "preview=0", "data.on_bad_row=drop") == OK
    shown = capsys.readouterr()
    assert "\nexample " not in shown.out and not shown.err
    assert run_app(*pairs(ROWS + BAD[2:]), "preview=1") == OK, "what is too long stops no run"


@pytest.mark.parametrize("overlong", ["drop", "cut"])
def test_each_example_is_the_one_of_its_tree(overlong, monkeypatch, tmp_path):
    """Also where examples lie on disk, in several views, some of them left out."""
    monkeypatch.setattr(multifaceted.data.dataset, "store_examples", partial(store_examples, in_memory=3))
    options = [*TINY, "data.max_length=150", "mix=balanced", f"data.overlong={overlong}", "data.on_bad_row=drop"]
    config = config_of("+experiment=orpo", *options, f"paths.cache={tmp_path}")
    part, validation = read_examples(config)
    assert part.examples.dataset.cache_files
    data = encode_examples(config, source_of(config), part, validation)
    trees, kept = data.train.trees, _Looked(config=config, data=data, part=part).kept()
    assert len(trees) == len(kept) == (9 if overlong == "drop" else 16) and len(set(kept.views.values())) > 1
    limits = Limits(max_length=150, max_tokens=config.batch.max_tokens, overlong=config.data.overlong)
    again = [row.tree for row in tokenize(list(kept), data.tokenizer, limits, with_rejected=True)]
    assert [(t.id, t.prompt.tolist()) for t in again] == [(t.id, t.prompt.tolist()) for t in trees]


def test_a_recipe_with_files_and_a_tokenizer_of_its_own(run_app, pairs, tiny_run, capsys):
    *_, train_file, max_length, share = pairs(ROWS)
    recipe = ["+experiment=janus/orpo", f"start={tiny_run.folder}", "trainer=cpu", train_file, max_length, share]
    assert run_app(*recipe, "preview=1") == OK
    printed = capsys.readouterr().out
    assert "example 1 of 1: pairs:" in printed and "instructions/with_2_system_messages" in printed


def test_sft_has_no_rejected(run_app, capsys):
    assert run_app("+experiment=sft", *TINY, "preview=1") == OK
    printed = capsys.readouterr().out
    assert "    + [[" in printed and "    - [[" not in printed and "tokens  rejected" not in printed


def test_it_names_no_run_and_may_be_planned_too(run_app, capsys):
    assert run_name(["+experiment=orpo", "preview=3"]) == "orpo"
    assert run_app("+experiment=orpo", *TINY, "preview=0", "plan=true") == OK
    printed = capsys.readouterr().out
    assert "packing" in printed and "no row is lost" in printed
    assert run_app("+experiment=orpo", *TINY, "preview=-1") == REFUSED
    assert "preview=-1" in capsys.readouterr().err


def test_a_terminal_gets_colours(tmp_path):
    config = config_of("+experiment=orpo", *TINY, "preview=1")
    shown = preview(config, tmp_path / "orpo", colour=True, width=80).shown
    assert "\x1b[32m" in shown[1] and config.data.on_bad_row is OnBadRow.RAISE
