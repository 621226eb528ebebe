"""The paper's recipes: two steps each with a tiny model and files, alone and on two ranks, from the stage before."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from multifaceted.app import OK, train
from multifaceted.config import build, to_plain
from multifaceted.mini import world
from multifaceted.model.tokenizer import train_tokenizer
from multifaceted.record_files import read_jsonl
from multifaceted.records import METRICS
from multifaceted.training.config import TrainConfig
from multifaceted.training.launch import launch
from multifaceted.training.ranks import joined
from multifaceted.training.run import run
from tests.conftest import composed

RECIPES = ["sft", "sft_small", "sft_epoch1", "orpo", "dpo", "rm_stage1", "rm_stage2"]
FROM = {"dpo": "sft_small", "rm_stage1": "sft_epoch1", "rm_stage2": "rm_stage1"}
EVERY = ["style", "background_knowledge", "informativeness", "harmlessness"]
BLENDED = ("hh_rlhf", "oasst1", "webgpt")
KINDS = {
    "policy": (AutoModelForCausalLM, "ForCausalLM"),
    "rm": (AutoModelForSequenceClassification, "ForSequenceClassification"),
}


def rows(shape, number):
    """Rows of the mini world in the shape of a released collection."""
    for example in world.collection([EVERY] * number, 0):
        prompt, stated = example.turns[0].content, {"system": example.system, "main_source": "nectar"}
        if shape == "output":
            preferences = [
                {k: getattr(p, k) for k in ("dimension", "subdimension", "preference", "description")}
                for p in example.preferences
            ]
            yield stated | {"prompt": prompt, "output": example.chosen, "preference_set": preferences}
        elif shape == "messages":
            asked = [{"role": "user", "content": prompt}]
            answers = {"chosen": example.chosen, "rejected": example.rejected[0]}
            told = {k: [*asked, {"role": "assistant", "content": text}] for k, text in answers.items()}
            yield stated | {"prompt": prompt, **told}
        elif shape == "hh_rlhf":
            yield {
                k: f"\n\nHuman: {prompt}\n\nAssistant: {text}"
                for k, text in (("chosen", example.chosen), ("rejected", example.rejected[0]))
            }
        elif shape == "webgpt":
            answers = {"answer_0": example.rejected[0], "answer_1": example.chosen}
            yield {"question": {"full_text": prompt}, "score_0": -1.0, "score_1": 1.0, **answers}
        else:
            told = [(None, "prompter", prompt), (0, "assistant", example.rejected[0]), (0, "assistant", example.chosen)]
            for n, (parent, role, text) in enumerate(told):
                names = {"message_id": f"{example.id}{n}", "parent_id": parent if parent is None else f"{example.id}0"}
                ranked = {"rank": 2 - n if n else None, "message_tree_id": example.id}
                yield names | ranked | {"role": role, "text": text}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A tiny Mistral from scratch as a folder of the hub's kind, and files in each shape."""
    root = tmp_path_factory.mktemp("recipes")
    files = {}
    for shape in ("output", "messages", *BLENDED):
        files[shape] = root / f"{shape}.jsonl"
        files[shape].write_text("".join(json.dumps(row) + "\n" for row in rows(shape, 60)))
    texts = [value for row in rows("hh_rlhf", 60) for value in row.values()]
    tokenizer = train_tokenizer([*texts, *(row["system"] for row in rows("output", 60))], 500)
    config = AutoConfig.for_model(
        "mistral", vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=8192, sliding_window=None,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(root / "base")
    tokenizer.save_pretrained(root / "base")
    return root, files


def recipe(tiny, outputs, name, *overrides):
    """The committed recipe with nothing changed but where it runs, its model, its files and its length."""
    root, files = tiny
    sources = {"data.source": files["output" if name.startswith("sft") else "messages"]}
    if name == "rm_stage2":
        sources = {f"data.source.sources.{part}": files[part] for part in BLENDED}
    settings = [
        "trainer.accelerator=cpu", "trainer.devices=1", "trainer.precision=32-true", "max_steps=2",
        f"model.name={root}/base", f"paths.outputs={outputs}", f"paths.cache={root}/cache", "batch.examples=4",
        "checkpoint.every_steps=null", "optimizer.lr=1e-3", "schedule.warmup_steps=null", "schedule.warmup_share=null",
        *(f"{source}.train_file={file}" for source, file in sources.items()),
        *(f"{source}.validation_share=0.2" for source in sources),
        *(["data.source.num_examples=40"] if name == "rm_stage2" else []),
        *([f"start={outputs}/{FROM[name]}"] if name in FROM else []),
    ]  # fmt: skip
    config = build(composed("train", [f"+experiment=janus/{name}", *settings, *overrides]), TrainConfig)
    return to_plain(config), outputs / name


def run_all(jobs):
    """One after the other, on every rank."""
    with joined("cpu", alone=True):
        return [
            run(build({k: v for k, v in plain.items() if k != "_target_"}, TrainConfig), plain, folder)
            for plain, folder in jobs
        ]


def curve(folder):
    return [row["train/loss"] for row in read_jsonl(folder / METRICS) if "train/loss" in row]


def weights(folder):
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


def test_every_recipe_runs(tiny, tmp_path):
    outcomes = run_all([recipe(tiny, tmp_path, name) for name in RECIPES])
    for name, outcome in zip(RECIPES, outcomes, strict=True):
        assert outcome.summary["steps"] == 2, name
        kind, suffix = KINDS["rm" if name.startswith("rm") else "policy"]
        assert kind.from_pretrained(outcome.exported).config.architectures == [f"Mistral{suffix}"], name
    by_name = dict(zip(RECIPES, outcomes, strict=True))
    assert curve(by_name["dpo"].folder)[0] == pytest.approx(0.693147, abs=1e-5)
    sources = {key for key in by_name["rm_stage2"].summary if key.startswith("val/pair_accuracy/")}
    assert sources == {f"val/pair_accuracy/{name}" for name in BLENDED}


@pytest.mark.slow
def test_every_recipe_does_on_two_ranks_what_it_does_on_one(tiny, tmp_path):
    alone = run_all([recipe(tiny, tmp_path / "one", name) for name in RECIPES])
    together = launch(2, run_all, [recipe(tiny, tmp_path / "two", name, "trainer.devices=2") for name in RECIPES])
    for name, one, two in zip(RECIPES, alone, together, strict=True):
        assert curve(two.folder) == pytest.approx(curve(one.folder), abs=1e-5), name
        ours, theirs = weights(two.exported), weights(one.exported)
        assert ours.keys() == theirs.keys()
        assert all(torch.allclose(ours[key], theirs[key], atol=1e-4) for key in theirs), name


def test_stage_two_keeps_the_head_of_stage_one(tiny, tmp_path):
    first, second = run_all(
        [
            recipe(tiny, tmp_path, "sft_epoch1"),
            recipe(tiny, tmp_path, "rm_stage1"),
            recipe(tiny, tmp_path, "rm_stage2", "optimizer.lr=1e-12"),
        ]
    )[1:]
    before, after = weights(first.exported), weights(second.exported)
    assert torch.allclose(before["score.weight"], after["score.weight"], atol=1e-9)
    assert before["score.weight"].abs().max() > 1e-3


def test_a_recipe_refuses_a_model_of_another_scale():
    with pytest.raises(ValueError, match="settings are for pretrained models, and this is a mini one"):
        build(composed("train", ["+experiment=janus/sft", "model=mini"]), TrainConfig)


@pytest.mark.parametrize("per_instruction", [1, 2, 3])
def test_system_messages_per_instruction_are_an_option_of_the_data(tiny, tmp_path, per_instruction):
    three = [row | {"system": f"{row['system']} Take {i}."} for row in rows("output", 20) for i in range(3)]
    (tmp_path / "three.jsonl").write_text("".join(json.dumps(row) + "\n" for row in three))
    settings = [f"data.per_instruction={per_instruction}", f"data.source.train_file={tmp_path}/three.jsonl"]
    plain, folder = recipe(tiny, tmp_path, "sft", *settings)
    summary = run_all([(plain, folder)])[0].summary
    held_out = summary["validation_view/released"]
    assert held_out % 3 == 0
    assert summary["examples"] == (60 - held_out) // 3 * per_instruction
    assert summary.get("dropped/per_instruction", 0) == (60 - held_out) // 3 * (3 - per_instruction)


@pytest.mark.parametrize("mix", ["none", "default", "style"])
def test_what_the_system_message_says_is_an_option_too(tiny, tmp_path, mix):
    plain, folder = recipe(tiny, tmp_path, "sft", f"mix={mix}")
    summary = run_all([(plain, folder)])[0].summary
    assert summary[f"view/{mix}"] == summary["examples"]


def test_a_recipe_is_planned_for_devices_that_are_not_here(tiny, tmp_path, capsys):
    root, files = tiny
    overrides = [
        "+experiment=janus/orpo", "plan=true", "plan.device=h200", "plan.num_devices=8", "plan.price=3.5",
        f"model.name={root}/base", f"data.source.train_file={files['messages']}", f"paths.outputs={tmp_path}",
        "data.source.validation_share=0.2",
    ]  # fmt: skip
    assert train(composed("train", overrides)) == OK
    said = capsys.readouterr().out
    assert "memory of each of 8 h200" in said and "cost_usd" in said and not any(tmp_path.iterdir())
