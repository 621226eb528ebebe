"""Composition, the typed boundary, and what it refuses."""

import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from multifaceted.config import ConfigError, build, prepare_overrides, run_name, to_plain
from multifaceted.evaluation.config import EvalConfig
from multifaceted.evaluation.reward_accuracy import RewardAccuracy
from multifaceted.inference.policy import PolicyEngine
from multifaceted.inference.server import ServerEngine
from multifaceted.inference.spend import Price
from multifaceted.objective.base import Objective
from multifaceted.synthesis.run import SynthesizeConfig
from multifaceted.training.config import TrainConfig
from tests.conftest import CONF, ROOT, composed

GROUPS = {"adapter", "data", "mix", "model", "objective", "optimizer", "trainer", "strategy", "logger", "paths"}
EVAL_GROUPS = {"task", "engine", "judge"}
SYNTHESIS_TASKS = {"bench_instructions"}
REQUIRED = {
    **{f"adapter={name}": ["start=somewhere"] for name in ("lora", "dora", "qlora")},
    **{f"optimizer={name}": ["optimizer.lr=1e-3"] for name in ("adamw", "adamw_8bit")},
    **{f"engine={name}": ["engine.model=a"] for name in ("server", "openai")},
    "engine=file": ["engine.path=a"],
    "engine=inspect": ["engine.model=a/b"],
    "judge=inspect": ["judge.engine.model=a/b"],
    "data=dsp": ["data.source.train_file=a"],
    "data=preference_files": ["data.source.train_file=a", "data.max_length=100"],
    "judge=policy": ["judge.engine.policy=elsewhere"],
}
PAIRWISE = ("pairwise", "flask", "koala", "self_instruct", "vicuna")
JUDGED = ("rubric", "multifaceted_bench", "mt_bench", *PAIRWISE)
REQUIRED |= {f"task={name}": ["judge=policy", "judge.engine.policy=elsewhere"] for name in JUDGED}
for _name in PAIRWISE:
    REQUIRED[f"task={_name}"] += ["prompts=a", "task.against=b"]
for _name in ("alpaca_eval", "arena_hard"):
    REQUIRED[f"task={_name}"] = [f"judge={_name}", "bench=a", "task.against=b"]
REQUIRED["task=compare"] = ["task.ours=a", "task.theirs=b"]
REQUIRED["task=agreement"] = ["task.first=a", "task.second=b"]
NEEDED = {"janus/qlora_24gb": ["data.source.train_file=a"]}


@dataclass(kw_only=True, slots=True)
class OwnObjective(Objective):
    """What a user might write."""


def choices(group):
    return sorted(str(path.relative_to(CONF / group).with_suffix("")) for path in (CONF / group).rglob("*.yaml"))


def test_every_yaml_belongs_to_a_tested_group():
    groups = {path.relative_to(CONF).parts[0] for path in CONF.rglob("*.yaml") if path.parent != CONF}
    assert groups == GROUPS | EVAL_GROUPS | {"experiment", "recipe", "comparator"}, (
        "recipe: what several experiments share"
    )


@pytest.mark.parametrize("choice", [f"{group}={name}" for group in sorted(GROUPS) for name in choices(group)])
def test_every_group_choice_builds(choice):
    pretrained = choice.startswith("model=") and choice != "model=mini"
    needed = ["optimizer=adamw", "optimizer.lr=5e-6"] if pretrained else REQUIRED.get(choice, [])
    assert build(composed("train", [choice, *needed]), TrainConfig)


@pytest.mark.parametrize(
    "choice",
    [f"{group}={name}" for group in sorted(EVAL_GROUPS) for name in choices(group) if name not in SYNTHESIS_TASKS],
)
def test_every_eval_choice_builds(choice):
    if choice.endswith("=inspect"):
        pytest.importorskip("inspect_ai")
    judged = ["task=rubric"] if choice.startswith("judge=") else []
    assert build(composed("eval", [choice, *judged, "policy=somewhere", *REQUIRED.get(choice, [])]), EvalConfig)


PUBLISHED_JUDGES = {  # model, runs, retries, temperature, tokens, alternatives of the first, price of both kinds
    "paper": ("gpt-4-0125-preview", 3, 5, 1.0, 1024, 0, 10, 30),
    "mt_bench": ("gpt-4", 1, 0, 0.0, 2048, 0, 30, 60),
    "alpaca_eval": ("gpt-4-1106-preview", 1, 0, 1.0, 1, 5, 10, 30),
    "arena_hard": ("gpt-4-1106-preview", 1, 1, 0.0, 4096, 0, 10, 30),
}


@pytest.mark.parametrize(("name", "settings"), PUBLISHED_JUDGES.items(), ids=PUBLISHED_JUDGES)
def test_a_published_judge_has_its_settings_and_is_named_by_its_model(name, settings):
    asked = ["task=rubric", f"judge={name}", "policy=a"]
    judge = build(composed("eval", [*asked, "judge.engine.max_spend=50"]), EvalConfig).judge
    assert judge is not None and isinstance(judge.engine, ServerEngine)
    engine = judge.engine
    assert judge.name == engine.model and engine.top_p == (0.9 if name == "paper" else None)
    found = (engine.model, judge.runs, judge.retries, engine.temperature, engine.max_tokens, engine.top_logprobs)
    assert (*found, engine.price.input, engine.price.output) == settings and engine.max_spend == 50
    other = build(composed("eval", [*asked, "judge.engine.model=qwen"]), EvalConfig).judge
    assert other is not None and other.name == "qwen"
    named = build(composed("eval", [*asked, "judge.name=mine"]), EvalConfig).judge
    assert named is not None and named.name == "mine"


COMPARATORS = {
    "mistral_7b_base": ("mistral-community/Mistral-7B-v0.2", {"template": "plain", "system_in_user": False}),
    "mistral_7b_instruct": ("mistralai/Mistral-7B-Instruct-v0.2", {"template": None, "system_in_user": True}),
    "llama3_8b_instruct": ("meta-llama/Meta-Llama-3-8B-Instruct", {"template": None, "system_in_user": False}),
    "janus_7b": ("kaist-ai/janus-7b", {"template": "janus", "system_in_user": False}),
    "gpt_35_turbo": (None, {"model": "gpt-3.5-turbo-0125", "price": Price(input=0.5, output=1.5)}),
    "gpt_4": (None, {"model": "gpt-4-0613", "price": Price(input=30.0, output=60.0)}),
    "gpt_4_turbo": (None, {"model": "gpt-4-0125-preview", "price": Price(input=10.0, output=30.0)}),
}


@pytest.mark.parametrize("name", choices("comparator"))
def test_a_comparator_of_the_paper_is_asked_as_it_says(name):
    policy, settings = COMPARATORS[name]
    config = build(composed("eval", [f"+comparator={name}", "task=mini"]), EvalConfig)
    assert config.policy == policy and {key: getattr(config.engine, key) for key in settings} == settings
    assert isinstance(config.engine, PolicyEngine if policy else ServerEngine)
    if policy:
        assert config.folder == Path("outputs/eval") / policy.replace("/", "-") / "mini_test_seed-0"


@pytest.mark.parametrize("name", [name for name, (policy, _) in COMPARATORS.items() if policy])
def test_a_comparator_can_be_asked_of_a_server(name):
    """Which renders by a template of its own; the system message is put where it has its place all the same."""
    policy, settings = COMPARATORS[name]
    served = [f"+comparator={name}", "engine=server", "engine.model=served"]
    served += ["~engine.template"] if settings["template"] else []
    config = build(composed("eval", served), EvalConfig)
    assert isinstance(config.engine, ServerEngine) and (config.policy, config.engine.model) == (policy, "served")
    assert config.engine.system_in_user is settings["system_in_user"]


@pytest.mark.parametrize("name", choices("data"))
def test_a_reward_model_is_evaluated_on_any_collection(name):
    needed = [f"task.{override}" for override in REQUIRED.get(f"data={name}", [])]
    task = build(composed("eval", ["policy=a", "task=reward_accuracy", f"pairs={name}", *needed]), EvalConfig).task
    trained_on = build(composed("train", [f"data={name}", *REQUIRED.get(f"data={name}", [])]), TrainConfig).data
    assert isinstance(task, RewardAccuracy) and task.data == replace(trained_on, template="own")


def test_best_of_is_asked_for_by_naming_its_reward_model():
    config = build(composed("eval", ["policy=a", "engine=sampled", "best_of.reward_model=b"]), EvalConfig)
    assert config.best_of is not None and config.best_of.sizes == [1, 2, 4, 8, 16, 32, 64]
    assert build(composed("eval", ["policy=a"]), EvalConfig).best_of is None
    with pytest.raises(ConfigError, match=r"best_of.reward_model is required"):
        build(composed("eval", ["policy=a", "best_of.sizes=[1]"]), EvalConfig)


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["task=alpaca_eval", "task.against=a"], "task alpaca_eval needs a judge; name one with judge=..."),
        (["task=alpaca_eval", "task.against=a", "judge=paper"], "use judge=alpaca_eval, or a server or a policy with"),
        (["task=alpaca_eval", "judge=alpaca_eval"], "task.against has no default here; set task.against=..."),
        (["task=rubric"], "task rubric_multifaceted_bench needs a judge; name one with judge=..."),
        (["task=rubric", "task.reader=koala"], "reader is 'koala'; benches with rubrics are"),
        (["task=rubric", "task.controls=[flop]"], "task.controls: ['flop'] does not fit"),
        (["task=mini", "bench=a"], "unknown key 'task.bench'"),
        (["judge=policy", "judge.engine.policy=a", "judge.runs=0"], "judge: runs is 0"),
        (["task=rubric", "judge=policy", "judge.engine=${engine}"], "judge.engine.policy is missing"),
        (["engine.policy=a"], "engine.policy=a: what is evaluated is named by policy=... alone"),
        (["engine.template=vicuna"], "engine: template is 'vicuna'; there are chatml, gemma, janus"),
        (["engine.top_logprobs=-1"], "engine: top_logprobs is -1"),
    ],
)
def test_a_judged_task_refuses_by_name(overrides, named):
    with pytest.raises(ConfigError) as refusal:
        build(composed("eval", ["policy=somewhere", *overrides]), EvalConfig)
    assert named in str(refusal.value)


@pytest.mark.parametrize("name", sorted(SYNTHESIS_TASKS))
def test_every_synthesis_task_builds_and_no_other_app_takes_it(name):
    assert build(composed("synthesize", [f"task={name}", "benches.koala=somewhere"]), SynthesizeConfig)
    with pytest.raises(ConfigError, match=r"task._target_: .* is not a Task"):
        build(composed("eval", [f"task={name}", "policy=somewhere"]), EvalConfig)


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("benches.kola=a", "benches.kola is none of task.sources (alpaca_eval, flask, koala"),
        ("task.sources=[kola]", "no bench is called 'kola'; did you mean 'koala'?"),
        ("task.sources=[koala,koala]", "name at least one bench, and each once"),
        ("task.sources=[crows_pairs]", "sources has crows_pairs, whose prompts are no instructions (sentences)"),
        ("task.num_instructions=0", "task: num_instructions is 0"),
        ("training_columns={instruction: a}", "training_columns has 'instruction', which is not ours"),
        ("training=a.jsonl", "training: 'a.jsonl' does not fit list"),
    ],
)
def test_a_wrong_key_or_value_of_synthesis_is_refused_by_name(override, named):
    with pytest.raises(ConfigError) as refusal:
        build(composed("synthesize", [override]), SynthesizeConfig)
    assert named in str(refusal.value)


@pytest.mark.parametrize("name", choices("experiment"))
def test_every_experiment_builds_and_its_config_is_complete(name):
    config = build(composed("train", [f"+experiment={name}", *NEEDED.get(name, [])]), TrainConfig)
    plain = yaml.safe_load(yaml.safe_dump(to_plain(config)))
    assert plain["clip_norm"] == 1.0 and plain["schedule"]["floor"] == 0.0, "defaults of the code are spelled out"
    plain.pop("_target_")
    assert build(plain, TrainConfig) == config


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("+typo=1", "unknown key 'typo'"),
        ("objective.lamb=0.2", "did you mean 'objective.lam'?"),
        ("batch.example=8", "did you mean 'batch.examples'?"),
        ("data.source.num_exampels=8", "did you mean 'data.source.num_examples'?"),
        ("schedule.shape=cosin", "schedule.shape: 'cosin' does not fit Shape"),
        ("projection=fused", "projection: 'fused' does not fit Projection"),
        ("mix.views.style=-1", "mix: views.style is -1"),
        ("mix.views.released=0", "mix: views is {'released': 0.0}; at least one weight must be positive"),
        ("mix.contrast.style=1", "did you mean 'mix.contrasts'?"),
        ("objective.lam=strong", "objective.lam: 'strong'"),
        ("objective.lam=-1", "objective: lam is -1"),
        ("batch.examples=0", "batch: examples is 0"),
        ("batch.examples=true", "batch.examples: True is a boolean"),
        ("batch.examples=2.5", "batch.examples: 2.5"),
        ("seed=abc", "seed: 'abc'"),
        ("data.overlong=shorten", "data.overlong: 'shorten'"),
        ("logger.mode=sometimes", "logger: mode is 'sometimes'"),
        ("validation.times=0", "validation: times is 0"),
        ("validation.monitor=val/los", "validation.monitor='val/los' is not measured"),
        ("trainer.acelerator=cpu", "did you mean trainer.accelerator?"),
        ("trainer.max_epochs=3", "trainer.max_epochs=3 is set by num_epochs"),
        ("trainer.precision=16-mixed", "set trainer.precision=bf16-mixed"),
        ("trainer.precision=16", "trainer.precision=16 is none of 32-true, bf16-mixed, bf16-true"),
        ("trainer.devices=2", "trainer.devices=2 with strategy=single"),
        ("model=mistral_7b", "the optimizer's settings are for mini models, and this is a pretrained one"),
        ("+callbacks.x._target_=collections.OrderedDict", "outside the trusted packages"),
        ("+callbacks.x._target_=lightning.pytorch.loggers.CSVLogger", "refused its arguments"),
        ("compile=sometimes", "compile: 'sometimes'"),
        ("schedule.warmup_steps=3", "warmup_steps or warmup_share, not both"),
        ("optimizer=adamw", "optimizer.lr"),
        ("objective._target_=os.system", "outside the trusted packages"),
        ("objective._target_=multifaceted.objective.dpo.Dpo", "cannot import"),
        ("objective._target_=multifaceted.training.muon.Muon", "unknown key 'objective.lam'"),
        ("+callbacks.stop._target_=lightning.pytorch.callbacks.EarlyStopping", "refused its arguments"),
    ],
)
def test_a_wrong_key_or_value_is_refused_by_name(override, named):
    with pytest.raises(ConfigError) as refusal:
        build(composed("train", [override]), TrainConfig)
    assert named in str(refusal.value)


def test_a_third_party_callback_passes_through():
    overrides = [
        "+callbacks.stop._target_=lightning.pytorch.callbacks.EarlyStopping",
        "+callbacks.stop.monitor=val/loss",
    ]
    config = build(composed("train", overrides), TrainConfig)
    assert type(config.callbacks["stop"]).__name__ == "EarlyStopping"
    assert to_plain(config)["callbacks"]["stop"]["monitor"] == "val/loss", "and is written to config.yaml"


def test_a_component_of_the_wrong_kind_is_refused():
    node = OmegaConf.to_container(composed("train"))
    node["objective"] = {"_target_": "multifaceted.training.optimizer.AdamW", "lr": 0.1}
    with pytest.raises(ConfigError, match=r"objective._target_: .* is not a Objective"):
        build(node, TrainConfig)


def test_user_modules_are_trusted_by_name_only():
    node = OmegaConf.to_container(composed("train")) | {"objective": {"_target_": "tests.test_config.OwnObjective"}}
    with pytest.raises(ConfigError, match=r"trust=\[tests\]"):
        build(node, TrainConfig)
    assert type(build(node | {"trust": ["tests"]}, TrainConfig).objective).__name__ == "OwnObjective"


def test_overrides_of_unset_keys_are_accepted_without_a_plus():
    arguments = ["objective.beta=1", "+experiment=dpo", "hydra.run.dir=x", "data=mini", "seed=1", "~trainer.devices"]
    assert prepare_overrides(arguments) == ["++objective.beta=1", *arguments[1:]]


def test_where_a_run_is_kept_does_not_name_it():
    assert run_name(["+experiment=orpo", "logger=wandb", "++paths.outputs=x", "++logger.project=y"]) == "orpo"


def test_run_names():
    assert run_name(["+experiment=orpo"]) == "orpo"
    assert run_name(["++b.c=1", "+experiment=orpo", "seed=2"]) == run_name(["seed=2", "++b.c=1", "+experiment=orpo"])
    assert run_name(["+experiment=orpo", "overwrite=true"]) == "orpo"
    assert run_name(["start=a/b"]) != run_name(["start=a-b"]), "what a name cannot show, its hash tells apart"
    assert len(run_name([f"key{i}=value" for i in range(50)])) <= 100


@pytest.mark.parametrize("arguments", [["--help"], ["+experiment=orpo", "--cfg", "job"]])
@pytest.mark.parametrize("app", ["train.py", "eval.py", "synthesize.py"])
def test_help_and_cfg_import_nothing_heavy(app, arguments):
    if app != "train.py":
        arguments = [a for a in arguments if not a.startswith("+experiment")]
    code = (
        "import runpy, sys, atexit\n"
        f"sys.argv = {[app, *arguments]!r}\n"
        "heavy = ('torch', 'transformers', 'lightning')\n"
        "atexit.register(lambda: print('HEAVY', [m for m in heavy if m in sys.modules]))\n"
        f"runpy.run_path({app!r}, run_name='__main__')\n"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "HEAVY []" in result.stdout, result.stdout + result.stderr
    assert any(word in result.stdout for word in ("policy", "objective", "benches"))
