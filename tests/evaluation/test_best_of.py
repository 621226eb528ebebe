"""Best-of-N: samples are drawn and rewarded once, the best among the first N is evaluated, and nothing is lost."""

import gc
import json
import shutil
import weakref
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multifaceted.config import ConfigError, build, to_plain
from multifaceted.evaluation.best_of import add_rewards, best_samples, check_samples, draw, write_chosen
from multifaceted.evaluation.config import EvalConfig
from multifaceted.evaluation.curve import curve_metrics, draw_curve
from multifaceted.evaluation.mini import MiniTask
from multifaceted.evaluation.run import run
from multifaceted.inference.files import ResponseFile
from multifaceted.inference.policy import PolicyEngine
from multifaceted.inference.requests import EngineError
from multifaceted.inference.rewards import Reward, RewardModel
from multifaceted.mini.rules import satisfies
from multifaceted.record_files import RecordError, read_json, read_jsonl, read_records
from multifaceted.records import CURVE, RESPONSES, RUN, SAMPLES, SCORES, VERDICTS, Prompt, Sample
from multifaceted.tables import curve_table
from tests.conftest import composed
from tests.data.benches.fixtures import write_bench
from tests.evaluation.engines import RuleEngine
from tests.evaluation.test_rubric import row
from tests.inference.server import MockServer

SMALL = ["task.num_prompts=2", "engine=sampled", "engine.max_tokens=8", "best_of.sizes=[1,2,4]"]


@pytest.fixture
def policy(tiny_run, tmp_path):
    return shutil.copytree(tiny_run.exported, tmp_path / "run" / "policy")


@pytest.fixture
def reward_model(tiny_reward_model, tmp_path):
    return shutil.copytree(tiny_reward_model, tmp_path / "reward_model")


def evaluate(policy, reward_model, *overrides, small=SMALL):
    asked = [f"policy={policy}", f"best_of.reward_model={reward_model}", *small, *overrides]
    config = build(composed("eval", asked), EvalConfig)
    return config, run(config, to_plain(config))


def test_every_size_is_an_ordinary_evaluation_below_the_whole(policy, reward_model):
    config, scores = evaluate(policy, reward_model)
    assert config.folder.name == "mini_test_best_of_seed-0"
    samples = list(read_jsonl(config.folder / SAMPLES))
    prompts = [row["id"] for row in read_jsonl(config.folder / "best_of_1" / "prompts.jsonl")]
    assert [(s["id"], s["sample"]) for s in samples] == [(name, n) for name in prompts for n in range(4)]
    by_prompt = {name: [s for s in samples if s["id"] == name] for name in prompts}
    for size in (1, 2, 4):
        part = config.folder / f"best_of_{size}"
        best = {name: max(row[:size], key=lambda s: s["reward"]) for name, row in by_prompt.items()}
        assert {r["id"]: r["text"] for r in read_jsonl(part / RESPONSES)} == {n: s["text"] for n, s in best.items()}
        for key, estimate in read_json(part / SCORES)["metrics"].items():
            split, metric = key.split("/", 1)
            assert read_json(config.folder / SCORES)["metrics"][f"{split}@{size}/{metric}"] == estimate
        seen = [s["reward"] for name, s in best.items() if name.startswith("seen")]
        assert scores.metrics[f"seen@{size}/reward"].value == pytest.approx(sum(seen) / 2)
    assert all(key.split("/")[0].count("@") == 1 and 1 <= key.count("/") <= 2 for key in scores.metrics)
    assert (config.folder / CURVE).read_bytes().startswith(b"\x89PNG")
    table = curve_table(scores)
    assert table.split()[:2] == ["adherence", "best"] and "unseen_topics" in table and "\nreward" in table


def test_the_first_sample_is_what_one_response_would_be(policy, reward_model, tmp_path):
    config, _ = evaluate(policy, reward_model)
    alone = build(composed("eval", [f"policy={policy}", *SMALL[:-1]]), EvalConfig)
    run(alone, to_plain(alone))
    ordinary = {row["id"]: row["text"] for row in read_jsonl(alone.folder / RESPONSES)}
    chosen = {row["id"]: row["text"] for row in read_jsonl(config.folder / "best_of_1" / RESPONSES)}
    same = sum(chosen[name] == text for name, text in ordinary.items())
    assert same >= 0.9 * len(ordinary), "padding may move a logit's last digit, and with it a rare near tie"
    assert len({s.text for s in read_records(config.folder / SAMPLES, Sample)}) > len(ordinary)


def never(*arguments):
    raise AssertionError("a model was loaded")


def test_the_same_command_makes_nothing_again_and_more_sizes_only_what_is_missing(policy, reward_model, monkeypatch):
    config, first = evaluate(policy, reward_model)
    before = (config.folder / SAMPLES).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("multifaceted.inference.policy.PolicyEngine._load", never)
        patch.setattr("multifaceted.inference.rewards.RewardModel.load", never)
        assert evaluate(policy, reward_model)[1] == first
        evaluate(policy, reward_model, "best_of.sizes=[1,3]")
    evaluate(policy, reward_model, "best_of.sizes=[1,2,6]")
    after = read_records(config.folder / SAMPLES, Sample)
    assert len(after) == 1.5 * before.count(b"\n") and all(sample.reward is not None for sample in after)
    known = {(s.id, s.sample): s for s in (Sample(**json.loads(line)) for line in before.splitlines())}
    assert all(known.get((s.id, s.sample), s) == s for s in after)


def test_another_reward_model_or_engine_in_the_same_folder_is_refused(policy, reward_model):
    config, _ = evaluate(policy, reward_model)
    with pytest.raises(RecordError, match=r"holds samples .*something else .*engine.*into="):
        evaluate(policy, reward_model, "engine.top_p=0.5")
    weights = bytearray((reward_model / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (reward_model / "model.safetensors").write_bytes(weights)
    with pytest.raises(RecordError, match=r"holds samples .*something else .*reward_model"):
        evaluate(policy, reward_model)
    written = (config.folder / SAMPLES).stat().st_mtime_ns
    evaluate(policy, reward_model, "overwrite=true")
    assert (config.folder / SAMPLES).stat().st_mtime_ns > written


def test_what_was_chosen_is_not_taken_for_what_is_drawn(policy, reward_model):
    """The same policy, settings, seed and prompts, but another response."""
    config, _ = evaluate(policy, reward_model)
    plain = [f"policy={policy}", *SMALL[:3]]
    for folder in (config.folder / "best_of_4", config.folder):
        other = build(composed("eval", [*plain, f"into={folder}"]), EvalConfig)
        with pytest.raises(RecordError, match=r"something else .*reward_model"):
            run(other, to_plain(other))


def test_a_policy_leaves_the_memory_to_the_reward_model(policy, reward_model, monkeypatch):
    models, load, read = [], PolicyEngine._load, RewardModel.load

    def loaded(self):
        found = load(self)
        models.append(weakref.ref(found.model))
        return found

    def rewarding(folder):
        gc.collect()
        assert models and all(model() is None for model in models)
        return read(folder)

    monkeypatch.setattr(PolicyEngine, "_load", loaded)
    monkeypatch.setattr(RewardModel, "load", rewarding)
    evaluate(policy, reward_model)


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (["engine=policy"], EngineError, "would be answered at temperature 0, .*engine=sampled"),
        (["engine=server", "engine.model=m"], EngineError, "engine.temperature=1"),
        (["best_of.sizes=[4,1]"], ConfigError, r"sizes is \[4, 1\]; name numbers from 1 on, ascending"),
        (["best_of.sizes=[]"], ConfigError, r"sizes is \[\]"),
        (["best_of.sizes=[0,1]"], ConfigError, r"sizes is \[0, 1\]"),
        (["best_of.size=[1]"], ConfigError, "did you mean 'best_of.sizes'"),
        (["task=reward_accuracy"], ConfigError, "asks for none; leave best_of out"),
    ],
)
def test_what_cannot_be_sampled_is_refused_before_a_model_loads(tmp_path, policy, overrides, error, message):
    small = [] if "task=reward_accuracy" in overrides else SMALL[:1] if overrides[0].startswith("engine") else SMALL
    with pytest.raises(error, match=message):
        evaluate(policy, tmp_path / "nothing", *overrides, small=small)


def test_a_policy_is_no_reward_model(policy):
    with pytest.raises(ValueError, match="is no reward model"):
        evaluate(policy, policy)


def test_several_turns_and_files_are_refused(tmp_path):
    prompt = Prompt(id="a", split="s", system=None, instruction="Why?", follow_ups=["And?"])
    with pytest.raises(EngineError, match="prompt 'a' goes on after its first answer"):
        check_samples([prompt], PolicyEngine())
    with pytest.raises(EngineError, match="engine=file holds one response a prompt"):
        check_samples([], ResponseFile(path=tmp_path))


PROMPTS = [Prompt(id=f"{n}", split="s", system="Be brief.", instruction=f"Why {n}?") for n in range(3)]


def text_of(request):
    return f"{request.id} {request.sample}"


def test_a_kill_loses_no_sample_that_arrived(tmp_path):
    with pytest.raises(EngineError, match="cap"):
        draw(RuleEngine(text_of, most=5), PROMPTS, 4, 0, tmp_path)
    assert len(read_records(tmp_path / SAMPLES, Sample)) == 5
    with (tmp_path / SAMPLES).open("a") as stream:
        stream.write('{"id": "2", "sam')
    engine = RuleEngine(text_of, order=-1)
    samples = draw(engine, PROMPTS, 4, 0, tmp_path)
    assert len(engine.asked) == 7 and len({request.id for request in engine.asked}) == 7
    assert [(s.id, s.sample) for s in samples] == [(p.id, n) for p in PROMPTS for n in range(4)]
    assert len({s.text for s in samples}) == 12
    assert all(request.sampling.temperature == 1.0 for request in engine.asked), "as in the paper"


class Silent:
    def answer(self, requests, seed):
        return iter(())


def test_an_engine_that_leaves_samples_open_is_said(tmp_path):
    with pytest.raises(EngineError, match=r"6 responses are missing, first '0'; the same command asks again"):
        draw(Silent(), PROMPTS, 2, 0, tmp_path)


class Oracle:
    """Rewards by a rule; after `most` rewards it fails."""

    def __init__(self, rule, most=None):
        self.rule, self.most, self.asked = rule, most, 0

    def of(self, conversations):
        for place in reversed(range(len(conversations))):
            if self.asked == self.most:
                raise EngineError("out of order")
            self.asked += 1
            yield place, Reward(self.rule(conversations[place]))


def test_a_kill_loses_no_reward_that_was_given(tmp_path):
    samples = draw(RuleEngine(text_of), PROMPTS, 4, 0, tmp_path)
    with pytest.raises(EngineError, match="out of order"):
        add_rewards(lambda: Oracle(lambda each: 1.0, most=5), PROMPTS, samples, tmp_path)
    samples = draw(RuleEngine(text_of), PROMPTS, 4, 0, tmp_path)
    assert sum(sample.reward is not None for sample in samples) == 5
    rest = Oracle(lambda each: float(len(each.messages)))
    add_rewards(lambda: rest, PROMPTS, samples, tmp_path)
    assert rest.asked == 7 and read_records(tmp_path / SAMPLES, Sample) == samples


def test_what_gets_no_reward_or_was_cut_is_said(tmp_path, caplog):
    samples = [Sample(id="0", sample=n, text="", finished=True) for n in range(3)]

    class Half(Oracle):
        def of(self, conversations):
            yield from [(0, Reward(None)), (1, Reward(2.0, cut=True)), (2, Reward(1.0))]

    add_rewards(lambda: Half(None), PROMPTS, samples, tmp_path)
    assert "1 of 3 responses spell a special token" in caplog.text and "1 of 3 responses are longer" in caplog.text
    assert [best_samples(samples, n)["0"].sample for n in (1, 2, 3)] == [0, 1, 1]
    metrics = curve_metrics(PROMPTS[:1], {1: {}}, {1: best_samples(samples, 1)})
    assert (metrics["s@1/reward"].n, metrics["s@1/reward"].unscored) == (0, 1)


@given(st.lists(st.one_of(st.none(), st.integers(-3, 3).map(float)), min_size=1, max_size=12))
def test_the_best_of_more_is_never_worse_and_equal_ones_change_nothing(rewards):
    samples = [Sample(id="a", sample=n, text="", finished=True, reward=r) for n, r in enumerate(rewards)]
    chosen = [best_samples(samples, n + 1)["a"] for n in range(len(rewards))]
    values = [float("-inf") if s.reward is None else s.reward for s in chosen]
    assert values == sorted(values)
    for before, after, value, following in zip(chosen, chosen[1:], values, values[1:], strict=False):
        assert (before is after) == (value == following)


def test_a_reward_that_is_the_rule_gives_a_curve_that_never_falls(tmp_path):
    """Of every prompt, not only on average."""
    task = MiniTask(num_prompts=3)
    prompts = task.prompts(0)
    sentences = ["Could we begin now?", "- You can.\n- It helps.", "A short list helps.", "Studies show 40 percent."]
    engine = RuleEngine(lambda request: " ".join(sentences[: (request.sample * 7 + len(request.id)) % 5]))
    samples = draw(engine, prompts, 8, 0, tmp_path)
    stated = {tuple(map(str, p.messages())): {q.preference for q in p.preferences} for p in prompts}

    def rule(each):
        wanted = stated[tuple(map(str, each.messages))]
        return sum(satisfies(each.response, name) for name in wanted) / len(wanted)

    add_rewards(lambda: Oracle(rule), prompts, samples, tmp_path)
    curves = []
    for size in (1, 2, 4, 8):
        responses = write_chosen(best_samples(samples, size), {}, lambda rows: None)
        rows = task.verdicts(prompts, responses)
        curves.append(
            [
                sum(q.preference in v["satisfied"] for q in p.preferences) / len(p.preferences)
                for p, v in zip(prompts, rows, strict=True)
            ]
        )
    for before, after in pairwise(curves):
        assert all(b <= a for b, a in zip(before, after, strict=True))
    assert sum(curves[-1]) > sum(curves[0])


def test_a_judge_is_paid_once_for_a_response_that_is_chosen_twice(policy, reward_model, tmp_path):
    bench = write_bench(tmp_path, "multifaceted_bench", [row(n) for n in range(3)])
    with MockServer() as server:
        judge = ["judge=paper", f"judge.engine.base_url={server.address}", "judge.engine.key_variable=null"]
        judge += [f"judge.engine.ledger={tmp_path}/requests.sqlite", "judge.runs=2", "judge.engine.price.input=0"]
        config, scores = evaluate(
            policy, reward_model, "task=rubric", f"bench={bench}", *judge, small=[*SMALL[1:3], "best_of.sizes=[1,2,4]"]
        )
        asked = server.asked.total()
    texts, verdicts = set(), 0
    for size in (1, 2, 4):
        part = config.folder / f"best_of_{size}"
        texts |= {(r["id"], r["text"]) for r in read_jsonl(part / RESPONSES) if r["text"].strip()}
        verdicts += sum(v["judge"] != "rule" for v in read_jsonl(part / VERDICTS))
        assert read_json(part / RUN)["best_of"] == size
    assert asked == len(texts) * 4 * 2 < verdicts
    assert scores.metrics["multifaceted_bench@4/score"].value is not None
    assert next(iter(scores.metrics)).endswith("/score")


def test_samples_come_from_a_server_each_under_its_own_seed(policy, reward_model, tmp_path):
    with MockServer() as server:
        engine = ["engine=server", "engine.model=m", "engine.temperature=1", f"engine.base_url={server.address}"]
        small = [SMALL[0], "best_of.sizes=[1,3]", *engine, f"engine.ledger={tmp_path}/requests.sqlite"]
        evaluate(policy, reward_model, small=small)
        number, seeds = server.asked.total(), {(str(b["messages"]), b["seed"]) for b in server.bodies}
        assert number == 22 * 3 == len(seeds)
        ordinary = build(composed("eval", [f"policy={policy}", SMALL[0], *small[2:]]), EvalConfig)
        run(ordinary, to_plain(ordinary))
        assert server.asked.total() == number, "an ordinary response is the first sample"


def test_a_curve_without_values_can_be_drawn(tmp_path):
    samples = {"0": Sample(id="0", sample=0, text="", finished=True)}
    draw_curve(curve_metrics(PROMPTS[:1], {1: {}, 2: {}}, {1: samples, 2: samples}), tmp_path)
    assert (tmp_path / CURVE).exists()
