"""Winogender, BBQ and CrowS-Pairs end to end: by likelihood of a tiny policy, and by text of a server."""

import json
import shutil

import pytest

from multifaceted.config import ConfigError, build, to_plain
from multifaceted.evaluation.bias import BbqTask, CrowsPairsTask, WinogenderTask
from multifaceted.evaluation.choices import LETTERS, By
from multifaceted.evaluation.config import EvalConfig
from multifaceted.evaluation.likelihoods import read_likelihoods
from multifaceted.evaluation.run import rescore, run
from multifaceted.inference.likelihood import LikelihoodModel
from multifaceted.inference.requests import EngineError
from multifaceted.record_files import RecordError, read_json, read_jsonl, read_prompts
from multifaceted.records import LIKELIHOODS, PROMPTS, RESPONSES, RUN, SCORES, VERDICTS, Response
from multifaceted.tables import score_table
from tests.conftest import composed
from tests.data.benches.fixtures import LAYOUTS, write_bench
from tests.inference.server import MockServer

BENCHES = ("winogender", "bbq", "crows_pairs")


@pytest.fixture
def policy(tiny_run, tmp_path):
    """A tiny policy with room for a question."""
    folder = shutil.copytree(tiny_run.exported, tmp_path / "run" / "policy")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 2048}))
    return folder


@pytest.fixture
def bench(tmp_path):
    """Writes a bench: `bench("bbq")`."""

    def write(name):
        (tmp_path / name).mkdir(exist_ok=True)
        return write_bench(tmp_path / name, name, [LAYOUTS[name](number) for number in range(6)])

    return write


def configured(*overrides):
    return build(composed("eval", overrides), EvalConfig)


def evaluate(*overrides):
    config = configured(*overrides)
    return config, run(config, to_plain(config))


def letters(task, prompts, wanted):
    """Responses that name by letter what is wanted of each prompt; None says something else."""
    found = {}
    for prompt in prompts:
        meanings, value = list(task.choice(prompt).options), wanted(prompt)
        text = "Hard to say." if value is None else f"({LETTERS[meanings.index(value)]})"
        found[prompt.id] = Response(id=prompt.id, text=text, finished=True)
    return found


def right(prompt):
    return prompt.metadata["answer"] if prompt.split == "winogender" else str(prompt.metadata["label"])


def values(metrics):
    return {name.split("/", 1)[1]: (e.value, e.n, e.unscored) for name, e in metrics.items()}


@pytest.mark.parametrize("name", BENCHES)
def test_likelihoods_are_kept_then_verdicts_and_metrics(policy, bench, name):
    config, scores = evaluate(f"policy={policy}", f"task={name}", f"bench={bench(name)}")
    assert config.folder.name == f"{name}_seed-0" and not (config.folder / RESPONSES).exists()
    prompts = read_prompts(config.folder / PROMPTS)
    kept, asked = read_likelihoods(config.folder / LIKELIHOODS), config.task.passages(prompts)
    assert list(kept) == [e.id for e in LikelihoodModel.load(policy).score(asked)] and len(prompts) == 6
    assert all(each.logp < 0 and each.tokens > 0 for each in kept.values())
    leading = next(iter(scores.metrics.values()))
    assert leading.n + leading.unscored == 6 and f"{name}/cut" not in scores.metrics
    written = (config.folder / VERDICTS).read_bytes(), (config.folder / SCORES).read_bytes()
    assert rescore(config.folder, config.task) == scores
    assert ((config.folder / VERDICTS).read_bytes(), (config.folder / SCORES).read_bytes()) == written


@pytest.mark.parametrize("name", BENCHES)
def test_the_same_command_asks_only_for_what_is_missing(policy, bench, name, monkeypatch):
    overrides = (f"policy={policy}", f"task={name}", f"bench={bench(name)}")
    config, scores = evaluate(*overrides)
    path = config.folder / LIKELIHOODS
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])  # killed while it wrote
    counted = []
    real = LikelihoodModel.score
    monkeypatch.setattr(LikelihoodModel, "score", lambda self, asked: counted.extend(asked) or real(self, asked))
    assert evaluate(*overrides)[1].metrics.keys() == scores.metrics.keys() and len(counted) == 1
    evaluate(*overrides, "engine.temperature=0.5")
    assert len(counted) == 1, "how text is drawn decides nothing"
    evaluate(*overrides, "overwrite=true")
    assert len(counted) == 1 + len(whole.splitlines())


def test_likelihoods_of_another_policy_or_of_other_texts_are_refused(policy, bench, tmp_path):
    into = f"into={tmp_path}/into"
    overrides = (f"policy={policy}", f"bench={bench('winogender')}", into)
    evaluate(*overrides, "task=winogender")
    with pytest.raises(RecordError, match=r"holds likelihoods .*something else .*prompts"):
        evaluate(*overrides, "task=winogender", "task.by=chat_likelihood")
    with pytest.raises(RecordError, match=r"holds likelihoods .*something else .*engine, prompts"):
        evaluate(*overrides, "task=winogender", "task.by=text")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("multifaceted.evaluation.bias.SOMEONE", "nobody")
        with pytest.raises(RecordError, match=r"something else .*prompts"):
            evaluate(*overrides, "task=winogender")  # the prompts are the same, and what is scored is not
    weights = bytearray((policy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (policy / "model.safetensors").write_bytes(weights)
    with pytest.raises(RecordError, match=r"holds likelihoods .*something else .*policy"):
        evaluate(*overrides, "task=winogender")


def test_the_likeliest_option_is_chosen_with_its_numbers(policy, bench):
    config, _ = evaluate(f"policy={policy}", "task=bbq", f"bench={bench('bbq')}")
    kept = read_likelihoods(config.folder / LIKELIHOODS)
    for row in read_jsonl(config.folder / VERDICTS):
        logps = {str(place): kept[f"{row['id']}#{letter}"].logp for place, letter in enumerate("ABC")}
        assert row["logps"] == logps and row["chosen"] == max(logps, key=logps.get)
        assert set(row["tokens"]) == {"0", "1", "2"}


def test_crows_pairs_compares_the_sentences_alone(policy, bench):
    config, scores = evaluate(f"policy={policy}", "task=crows_pairs", f"bench={bench('crows_pairs')}")
    (first, *_), kept = read_prompts(config.folder / PROMPTS), read_likelihoods(config.folder / LIKELIHOODS)
    more, less = (passage for passage in config.task.passages([first]))
    assert (more.text, less.text) == (first.metadata["sentences"]["more"], first.metadata["sentences"]["less"])
    assert more.context == "" and not more.messages
    preferred = [float(kept[f"{n}#more"].logp > kept[f"{n}#less"].logp) for n in range(6)]
    assert scores.metrics["crows_pairs/stereotype_preferred"].value == pytest.approx(100 * sum(preferred) / 6)
    assert "stereotype_preferred" in score_table(scores)


def test_a_conversation_with_a_system_message_is_another_way(policy, bench):
    overrides = (f"policy={policy}", "task=winogender", f"bench={bench('winogender')}")
    chat = (*overrides, "task.by=chat_likelihood")
    config, scores = evaluate(*chat)
    assert scores.task == "winogender_by_chat_likelihood" and config.folder.name.startswith(scores.task)
    with pytest.raises(RecordError, match=r"something else .*prompts"):
        evaluate(*chat, "task.system=Be fair.")
    config, _ = evaluate(*chat, "task.system=Be fair.", "overwrite=true")
    prompts = read_prompts(config.folder / PROMPTS)
    assert {prompt.system for prompt in prompts} == {"Be fair."}
    (passage, *_) = config.task.passages(prompts)
    assert [m["role"] for m in passage.messages] == ["system", "user"] and passage.text in ("A", "B")
    with pytest.raises(ConfigError, match=r"system is 'Be fair.', and by=likelihood scores raw text"):
        configured(*overrides, "task.system=Be fair.")


def test_a_base_model_needs_a_template_for_a_conversation_and_none_for_raw_text(policy, bench):
    (policy / "chat_template.jinja").unlink()
    overrides = (f"policy={policy}", "task=winogender", f"bench={bench('winogender')}")
    _, raw = evaluate(*overrides)
    assert all(estimate.unscored == 0 for estimate in raw.metrics.values())
    chat = (*overrides, "task.by=chat_likelihood", "task.system=Be fair.")
    with pytest.raises(EngineError, match="no chat template"):
        evaluate(*chat)
    config, _ = evaluate(*chat, "engine.template=plain")
    found = (config.folder / LIKELIHOODS).read_text()
    with pytest.raises(RecordError, match=r"something else .*engine"):
        evaluate(*chat, "engine.template=janus")
    evaluate(*chat, "engine.template=janus", "overwrite=true")
    janus = (config.folder / LIKELIHOODS).read_text()
    assert janus != found
    evaluate(*chat, "engine.template=janus", "engine.system_in_user=true", "overwrite=true")
    assert (config.folder / LIKELIHOODS).read_text() == janus, "Janus's template has it there"


@pytest.mark.parametrize(
    ("name", "remedy"),
    [("crows_pairs", r"policy=\.\.\.$"), ("bbq", r"or set task.by=text$"), ("winogender", r"or set task.by=text$")],
)
@pytest.mark.parametrize("engine", [("engine=server", "engine.model=m"), ("engine=file", "engine.path=a.jsonl")])
def test_a_server_or_a_file_has_no_likelihoods_and_is_refused_at_once(name, remedy, engine):
    with pytest.raises(ConfigError, match=f"compares log-likelihoods .* {remedy}"):
        configured("policy=nowhere", f"task={name}", "bench=nowhere", *engine)


@pytest.mark.parametrize("name", ["winogender", "bbq"])
def test_a_server_that_does_not_choose_is_unscored(policy, bench, name, tmp_path):
    with MockServer() as server:
        asked = ["engine=server", "engine.model=m", f"engine.base_url={server.address}", f"task={name}"]
        ledger = f"engine.ledger={tmp_path}/requests.sqlite"
        _, scores = evaluate(f"policy={policy}", *asked, ledger, f"bench={bench(name)}", "task.by=text")
        assert server.asked.total() == 6
        body = server.bodies[0]
        assert (body["temperature"], body["max_tokens"]) == (0.0, 256)
    assert scores.metrics[f"{name}/unscored"].value == 1.0 and scores.task == f"{name}_by_text"
    assert {e.n for key, e in scores.metrics.items() if "accuracy" in key} == {0}
    assert f"{name}/cut" in scores.metrics and "unscored" in score_table(scores)


@pytest.mark.parametrize("name", ["winogender", "bbq"])
def test_right_answers_in_a_file(policy, bench, name, tmp_path):
    task = {"winogender": WinogenderTask, "bbq": BbqTask}[name](bench=bench(name), by=By.TEXT)
    responses = letters(task, task.prompts(0), right)
    path = tmp_path / "theirs.jsonl"
    path.write_text("".join(json.dumps({"id": r.id, "text": r.text}) + "\n" for r in responses.values()))
    overrides = (f"task={name}", "task.by=text", f"bench={task.bench}", "engine=file", f"engine.path={path}")
    config, scores = evaluate(*overrides, f"into={tmp_path}/into")
    found = values(scores.metrics)
    assert found["unscored"] == (0.0, 6, 0)
    expected = {"bbq": {"accuracy_ambig": 1.0, "bias_ambig": 0.0}, "winogender": {"accuracy": 1.0, "parity": 1.0}}[name]
    assert {key: found[key][0] for key in expected} == expected
    assert read_json(config.folder / RUN)["judge"] is None and {
        row["chosen"] for row in read_jsonl(config.folder / VERDICTS)
    }


def test_right_answers_to_the_real_benches(shared):
    task = WinogenderTask(bench=shared("bias/winogender/all_sentences.tsv").parent, by=By.TEXT)
    prompts = task.prompts(0)
    found = values(task.metrics(prompts, task.verdicts(prompts, letters(task, prompts, right))))
    assert found["accuracy"] == (1.0, 720, 0) and found["parity"] == (1.0, 240, 0) and found["unscored"][0] == 0
    first = [next(iter(task.choice(prompt).options)) for prompt in prompts]
    assert 0.4 < first.count("occupation") / len(first) < 0.6, "either comes first in about half"
    bbq = BbqTask(bench=shared("bias/bbq"), by=By.TEXT)
    prompts = bbq.prompts(0)
    found = values(bbq.metrics(prompts, bbq.verdicts(prompts, letters(bbq, prompts, right))))
    assert found["accuracy_ambig"] == (1.0, 3838, 0) == found["accuracy_disambig"] and found["bias_ambig"][0] == 0
    unsure = letters(bbq, prompts, lambda p: None if p.metadata["context_condition"] == "ambig" else right(p))
    found = values(bbq.metrics(prompts, bbq.verdicts(prompts, unsure)))
    assert found["accuracy_ambig"] == (None, 0, 3838) and found["unscored"][0] == 0.5


def test_every_real_sentence_can_be_put_in_each_way(shared):
    """The versions of a sentence differ in the pronoun only, and in the order of the options not at all."""
    bench = shared("bias/winogender/all_sentences.tsv").parent
    for by in By:
        task = WinogenderTask(bench=bench, by=by)
        prompts = task.prompts(0)
        versions = {}
        for prompt in prompts:
            versions.setdefault(prompt.id.rpartition(".")[0], []).append(list(task.choice(prompt).options.values()))
            assert (
                prompt.metadata["pronoun"] in prompt.instruction and prompt.metadata["sentence"] in prompt.instruction
            )
        assert all(len(each) == 3 and each[0] == each[1] == each[2] for each in versions.values())
        assert not any("the someone" in text for each in versions.values() for text in each[0])
        assert len({passage.id for passage in task.passages(prompts)}) == 1440


def test_real_pairs_by_a_tiny_policy(policy, shared):
    """Random weights know no stereotype: about half, and all of them scored."""
    task = CrowsPairsTask(bench=shared("bias/crows_pairs_anonymized.csv"))
    prompts = task.prompts(0)
    found = {each.id: each for each in LikelihoodModel.load(policy).score(task.passages(prompts))}
    metrics = values(task.metrics(prompts, task.verdicts_of_likelihoods(prompts, found)))
    value, number, unscored = metrics["stereotype_preferred"]
    assert (number, unscored) == (1508, 0) and 40 < value < 60


def test_a_text_that_is_too_long_is_refused_by_id(policy, bench):
    config = json.loads((policy / "config.json").read_text())
    (policy / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 12}))
    with pytest.raises(EngineError, match=r"'Age/\d#[ABC]' has \d+ tokens, .* context is 12"):
        evaluate(f"policy={policy}", "task=bbq", f"bench={bench('bbq')}")
