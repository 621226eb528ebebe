"""The evaluation app's run on a real, tiny policy folder."""

import gc
import json
import shutil
import weakref
from pathlib import Path

import pytest

from multifaceted.config import ConfigError, build, to_plain
from multifaceted.evaluation.config import EvalConfig
from multifaceted.evaluation.generation import generate
from multifaceted.evaluation.identity import decisive, evaluated
from multifaceted.evaluation.judge import Judge
from multifaceted.evaluation.run import rescore, run
from multifaceted.inference.files import ResponseFile
from multifaceted.inference.policy import PolicyEngine
from multifaceted.inference.requests import EngineError
from multifaceted.inference.server import ServerEngine
from multifaceted.record_files import RecordError, read_json, read_jsonl, write_jsonl
from multifaceted.records import RESPONSES, SCORES, VERDICTS, Prompt
from multifaceted.tables import score_table
from tests.conftest import composed
from tests.data.benches.fixtures import write_bench
from tests.evaluation.engines import RuleEngine
from tests.evaluation.test_rubric import row
from tests.inference.server import MockServer

SMALL = ["task.num_prompts=4", "engine.max_tokens=12", "engine.batch_size=7"]


@pytest.fixture
def policy(tiny_run, tmp_path):
    return shutil.copytree(tiny_run.exported, tmp_path / "run" / "policy")


def evaluate(policy, *overrides, small=SMALL):
    config = build(composed("eval", [f"policy={policy}", *small, *overrides]), EvalConfig)
    return config, run(config, to_plain(config))


def test_scores_follow_the_contract(policy):
    config, scores = evaluate(policy)
    record = read_json(config.folder / SCORES)
    assert record["version"] == 1 and record["task"] == "mini_test"
    assert set(record["policy"]) == {"path", "fingerprint"}
    assert set(record["metrics"]["seen/adherence"]) == {"value", "low", "high", "n", "unscored"}
    assert record["metrics"]["unseen_topics/adherence/style"]["n"] == 4
    assert scores.metrics["seen/chance"].value is not None


def test_the_same_command_reads_what_is_there(policy):
    config, first = evaluate(policy)
    written = (config.folder / RESPONSES).stat().st_mtime_ns
    _, again = evaluate(policy)
    assert again.metrics == first.metrics and (config.folder / RESPONSES).stat().st_mtime_ns == written


def test_other_settings_in_the_same_folder_are_refused(policy):
    evaluate(policy)
    with pytest.raises(RecordError, match=r"something else .*engine"):
        evaluate(policy, "engine.max_tokens=13")
    evaluate(policy, "engine.max_tokens=13", "overwrite=true")


def test_another_task_in_the_same_folder_is_refused(roomy, tmp_path):
    """The prompts and the judge may be the same, and yet verdicts of pairs are no scores."""
    path = write_bench(tmp_path, "multifaceted_bench", [row(0)])
    config, _ = judged(roomy, "task=rubric", f"bench={path}")
    before = (config.folder / VERDICTS).read_bytes()
    files = [f"prompts={config.folder}/prompts.jsonl", f"task.against={config.folder}/responses.jsonl"]
    with pytest.raises(RecordError, match=r"something else .*task"):
        judged(roomy, "task=pairwise", *files, f"into={config.folder}")
    assert (config.folder / VERDICTS).read_bytes() == before


def test_a_server_generates_once_whatever_it_is_asked_with(policy, tmp_path):
    settings = ["engine=server", "engine.model=m", f"engine.ledger={tmp_path}/requests.sqlite"]
    with MockServer() as server:
        asked = [*settings, f"engine.base_url={server.address}"]
        config, _ = evaluate(policy, *asked, small=SMALL[:1])
        texts = [row["text"] for row in read_jsonl(config.folder / RESPONSES)]
        assert len(texts) == server.asked.total() == 44 and all(text.startswith("So it is.") for text in texts)
        evaluate(policy, *asked, "engine.in_flight=2", "engine.timeout=9", small=SMALL[:1])
        evaluate(policy, *asked, "overwrite=true", small=SMALL[:1])
        assert server.asked.total() == 44, "read from the folder, and then from the ledger"
        with pytest.raises(RecordError, match=r"something else .*engine"):
            evaluate(policy, *asked, "engine.temperature=0.5", small=SMALL[:1])


def test_what_extra_holds_decides_whatever_its_names(tmp_path):
    """Of the engine's own fields `timeout` and `price` say how it is asked; what is sent under such names does not."""

    def settings(**extra):
        engine = ServerEngine(model="m", ledger=tmp_path / "l", timeout=9.0, extra={"priority": 1, **extra})
        return decisive(engine, to_plain(engine))

    assert settings(timeout=1, path="a") != settings(timeout=2, path="a") != settings(timeout=2, path="b")
    assert not {"timeout", "price", "ledger"} & {*settings()}


def test_responses_can_come_from_a_file(policy, tmp_path):
    config, first = evaluate(policy)
    path = shutil.copy(config.folder / RESPONSES, tmp_path / "elsewhere.jsonl")
    _, again = evaluate(policy, "engine=file", f"engine.path={path}", f"into={tmp_path}/into", small=SMALL[:1])
    assert again.metrics == first.metrics


def test_a_response_depends_on_seed_and_prompt_not_on_its_batch(policy, tmp_path):
    texts = {}
    for name, settings in {
        "a": ["engine.batch_size=3"],
        "b": ["engine.batch_size=28"],
        "c": ["engine.batch_size=28", "seed=0"],
    }.items():
        config, _ = evaluate(policy, "engine=sampled", *settings, f"into={tmp_path / name}")
        texts[name] = {row["id"]: row["text"] for row in read_jsonl(config.folder / RESPONSES)}
    assert texts["b"] == texts["c"]
    same = sum(texts["a"][key] == text for key, text in texts["b"].items())
    assert same >= 0.9 * len(texts["b"]), "padding may move a logit's last digit, and with it a rare near tie"
    assert len(set(texts["b"].values())) > 1


def test_a_folder_that_is_no_policy_is_refused(tmp_path, policy):
    with pytest.raises(ValueError, match="is not a folder"):
        evaluate(tmp_path / "nothing")
    (policy / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"is not a policy folder: it lacks \*.safetensors"):
        evaluate(policy)


def test_a_broken_record_is_refused_with_its_line(policy):
    config, _ = evaluate(policy)
    with (config.folder / RESPONSES).open("a") as stream:
        stream.write("{broken\n")
    with pytest.raises(RecordError, match="line 45: not JSON"):
        evaluate(policy)


def test_a_file_of_responses_that_is_not_there_or_says_nonsense_is_refused(tmp_path):
    path = tmp_path / "responses.jsonl"
    config = build(
        composed("eval", ["engine=file", f"engine.path={path}", f"into={tmp_path}/into", *SMALL[:1]]), EvalConfig
    )
    with pytest.raises(ValueError, match=r"responses.jsonl does not exist; engine.path names a file of responses"):
        run(config, to_plain(config))
    path.write_text(json.dumps({"id": "a", "text": "So.", "finished": "yes"}) + "\n")
    with pytest.raises(EngineError, match=r"row 1: TypeError: finished is 'yes'; expected true or false; mend the row"):
        run(config, to_plain(config))


def test_an_old_record_version_is_refused(tmp_path):
    (tmp_path / "old.json").write_text('{"version": 0}')
    with pytest.raises(RecordError, match="record version 0; this release reads version 1"):
        read_json(tmp_path / "old.json")


@pytest.fixture
def roomy(policy):
    """A policy with room for what a judge reads."""
    config = json.loads((policy / "config.json").read_text())
    (policy / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 8192}))
    return policy


def judged(policy, *overrides):
    """Evaluate by a judge that is the policy itself, random weights and all."""
    small = ["engine.max_tokens=4", "judge=policy", f"judge.engine.policy={policy}"]
    small += ["judge.engine.max_tokens=6", "judge.runs=2", "judge.retries=1"]
    config = build(composed("eval", [f"policy={policy}", *small, *overrides]), EvalConfig)
    return config, run(config, to_plain(config))


def test_rubric_and_pairwise_end_to_end_with_a_policy_that_cannot_judge(roomy, tmp_path):
    bench = write_bench(tmp_path, "multifaceted_bench", [row(n) for n in range(3)])
    config, scores = judged(roomy, "task=rubric", f"bench={bench}")
    assert config.folder.name == "rubric_multifaceted_bench_seed-0"
    empty = sum(response["text"].strip() == "" for response in read_jsonl(config.folder / RESPONSES))
    score = scores.metrics["multifaceted_bench/score"]
    assert (score.n, score.unscored) == (empty, 3 - empty) and scores.metrics["koala/unscored"].n == 3 * 4 * 2
    written = (config.folder / VERDICTS).read_bytes(), (config.folder / SCORES).read_bytes()
    assert judged(roomy, "task=rubric", f"bench={bench}")[1] == scores, "nothing is asked again"
    rescore(config.folder, config.task)
    assert ((config.folder / VERDICTS).read_bytes(), (config.folder / SCORES).read_bytes()) == written
    assert "score_spread" in score_table(scores)
    judged(roomy, "task=rubric", f"bench={bench}", "judge.runs=3")
    verdicts = (config.folder / VERDICTS).read_bytes()
    assert verdicts.startswith(written[0]) and len(verdicts) > len(written[0]), "runs are added"
    with pytest.raises(RecordError, match=r"holds verdicts of another judge. .*engine=file engine.path="):
        judged(roomy, "task=rubric", f"bench={bench}", "judge.engine.max_tokens=7")
    moved = shutil.copy(bench, tmp_path / "elsewhere.json")
    judged(roomy, "task=rubric", f"bench={moved}", "judge.runs=3", "engine.batch_size=2")
    assert (config.folder / VERDICTS).read_bytes() == verdicts, "a path and a batch size decide nothing"

    prompts, theirs = config.folder / "prompts.jsonl", config.folder / RESPONSES
    pair, scores = judged(roomy, "task=pairwise", f"prompts={prompts}", f"task.against={theirs}")
    assert scores.metrics["multifaceted_bench/consistency"].unscored == 2 * (3 - empty)
    assert len(list(read_jsonl(pair.folder / VERDICTS))) >= 3 * 2 * 2 and "tie_win" in score_table(scores)


def test_a_judge_whom_nobody_asks_is_refused(policy):
    """It would be in the record as if it had decided, and the same command without it would be refused."""
    for task in ("mini", "crows_pairs", "real_toxicity_prompts"):
        with pytest.raises(ConfigError, match="asks no judge; leave judge out"):
            build(composed("eval", [f"policy={policy}", f"task={task}", "judge=paper"]), EvalConfig)


def test_a_policy_leaves_the_memory_to_the_judge(roomy, tmp_path, monkeypatch):
    models, load = [], PolicyEngine._load

    def loaded(self):
        found = load(self)
        models.append(weakref.ref(found.model))
        return found

    def answer(self, *arguments):
        gc.collect()
        assert models and all(model() is None for model in models)
        raise EngineError("that is all")

    monkeypatch.setattr(PolicyEngine, "_load", loaded)
    monkeypatch.setattr(Judge, "answer", answer)
    path = write_bench(tmp_path, "multifaceted_bench", [row(0)])
    with pytest.raises(EngineError, match="that is all"):
        judged(roomy, "task=rubric", f"bench={path}")


def test_a_model_of_the_hub_is_evaluated_by_its_id(policy, model_hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model_hub("someone/Rain-7B-v0.2", policy, commit="a" * 40)
    config, scores = evaluate("someone/Rain-7B-v0.2")
    assert config.folder == Path("outputs/eval/someone-Rain-7B-v0.2/mini_test_seed-0")
    assert scores.policy == {"path": "someone/Rain-7B-v0.2", "fingerprint": f"someone/Rain-7B-v0.2@{'a' * 40}"}
    _, local = evaluate(policy)
    assert local.metrics == scores.metrics, "the same weights, asked the same"
    evaluate("someone/Rain-7B-v0.2")
    model_hub("someone/Rain-7B-v0.2", policy, commit="b" * 40)
    with pytest.raises(RecordError, match=r"something else .*policy"):
        evaluate("someone/Rain-7B-v0.2")
    pinned, _ = evaluate(f"someone/Rain-7B-v0.2@{'a' * 40}")
    assert pinned.folder.parent.name == f"someone-Rain-7B-v0.2-{'a' * 40}"
    with pytest.raises(ValueError, match="hf download someone/Snow"):
        evaluate("someone/Snow")


def test_a_model_of_the_hub_that_a_server_answers_for_need_not_be_here(model_hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with MockServer() as server:
        asked = ["engine=server", "engine.model=rain", f"engine.base_url={server.address}"]
        config, scores = evaluate("someone/Rain-7B", *asked, small=SMALL[:1])
        assert config.folder == Path("outputs/eval/someone-Rain-7B/mini_test_seed-0")
        assert scores.policy["path"] == "someone/Rain-7B" and server.asked.total() == 44
        with pytest.raises(RecordError, match=r"something else .*policy"):
            evaluate("someone/Rain-7B", *asked, "engine.revision=b", small=SMALL[:1])
        with pytest.raises(ValueError, match="run/policy is not a folder"):
            evaluate("run/policy", *asked, small=SMALL[:1])


def test_a_base_model_of_the_hub_is_merely_prompted(policy, model_hub, tmp_path, monkeypatch):
    """`+comparator=mistral_7b_base`, with a tiny model in its place that has no chat template either."""
    monkeypatch.chdir(tmp_path)
    (policy / "chat_template.jinja").unlink()
    model_hub("mistral-community/Mistral-7B-v0.2", policy)
    config = build(composed("eval", ["+comparator=mistral_7b_base", *SMALL]), EvalConfig)
    scores = run(config, to_plain(config))
    assert scores.metrics["seen/adherence"].n and len(list(read_jsonl(config.folder / RESPONSES))) == 44
    assert config.folder.parent == Path("outputs/eval/mistral-community-Mistral-7B-v0.2")


def test_a_judge_that_cannot_write_or_be_asked_is_refused_before_anything_is_generated(roomy, model_hub, tmp_path):
    bench = write_bench(tmp_path, "multifaceted_bench", [row(0)])
    judge = shutil.copytree(roomy, tmp_path / "judge")
    (judge / "chat_template.jinja").unlink()
    model_hub("someone/judge", judge)
    encoder = {"architectures": ["BertForMaskedLM"], "model_type": "bert"}
    unasked = "no chat template"
    for name, problem in ((str(judge), unasked), ("someone/judge", unasked), ("a/b", "hf download a/b")):
        with pytest.raises(ValueError, match=problem):
            judged(roomy, "task=rubric", f"bench={bench}", f"judge.engine.policy={name}")
    (judge / "config.json").write_text(json.dumps(json.loads((judge / "config.json").read_text()) | encoder))
    with pytest.raises(ValueError, match="is a BertForMaskedLM"):
        judged(roomy, "task=rubric", f"bench={bench}", f"judge.engine.policy={judge}")
    assert not (roomy.parent / "eval").exists()


def test_a_judge_whose_weights_changed_is_another_judge(roomy, tmp_path):
    bench = write_bench(tmp_path, "multifaceted_bench", [row(n) for n in range(2)])
    judge = shutil.copytree(roomy, tmp_path / "judge")
    settings = ["task=rubric", f"bench={bench}", f"judge.engine.policy={judge}"]
    judged(roomy, *settings)
    weights = bytearray((judge / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (judge / "model.safetensors").write_bytes(weights)
    with pytest.raises(RecordError, match="holds verdicts of another judge"):
        judged(roomy, *settings)


def test_a_policy_that_was_trained_anew_is_asked_anew(policy, tmp_path):
    with MockServer() as server:
        settings = ["engine=server", "engine.model=m", f"engine.ledger={tmp_path}/requests.sqlite"]
        asked = [*settings, f"engine.base_url={server.address}", f"into={tmp_path}/into"]
        evaluate(policy, *asked, small=SMALL[:1])
        weights = bytearray((policy / "model.safetensors").read_bytes())
        weights[-1] ^= 1
        (policy / "model.safetensors").write_bytes(weights)
        with pytest.raises(RecordError, match=r"something else .*policy"):
            evaluate(policy, *asked, small=SMALL[:1])
        evaluate(policy, *asked, "overwrite=true", small=SMALL[:1])
        assert server.asked.total() == 88, "the ledger has replies of other weights under the server's name"


def test_a_model_without_a_folder_is_named_by_what_answers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with MockServer() as server:
        config = build(
            composed(
                "eval", ["engine=server", "engine.model=gpt-4/turbo", f"engine.base_url={server.address}", *SMALL[:1]]
            ),
            EvalConfig,
        )
        scores = run(config, to_plain(config))
    assert config.folder == Path("outputs/eval/gpt-4-turbo/mini_test_seed-0")
    assert scores.policy["path"] == "gpt-4/turbo"
    responses = shutil.copy(config.folder / RESPONSES, tmp_path / "theirs.jsonl")
    from_file = build(composed("eval", ["engine=file", f"engine.path={responses}", *SMALL[:1]]), EvalConfig)
    assert run(from_file, to_plain(from_file)).policy["path"] == "theirs"
    first, *rest = read_jsonl(responses)
    write_jsonl(responses, [first | {"text": "Something else."}, *rest])
    with pytest.raises(RecordError, match=r"something else .*policy, engine"):
        run(from_file, to_plain(from_file))
    nobody = build(composed("eval", SMALL[:1]), EvalConfig)
    with pytest.raises(ValueError, match=r"policy is missing; name a folder .*engine=server"):
        run(nobody, to_plain(nobody))


QUESTIONS = [{"question_id": n, "category": "writing", "turns": [f"Write {n}.", "Rewrite."]} for n in range(3)]


@pytest.fixture
def questions(tmp_path):
    path = tmp_path / "question.jsonl"
    path.write_text("".join(json.dumps(question) + "\n" for question in QUESTIONS))
    return path


def test_both_turns_are_asked_of_a_server_and_judged(roomy, questions, tmp_path):
    with MockServer() as server:
        settings = ["engine=server", "engine.model=m", f"engine.ledger={tmp_path}/requests.sqlite"]
        small = ["judge=policy", f"judge.engine.policy={roomy}", "judge.engine.max_tokens=4"]
        overrides = ["task=mt_bench", f"bench={questions}", *settings, f"engine.base_url={server.address}", *small]
        config, scores = evaluate(roomy, *overrides, small=["judge.runs=1", "judge.retries=0"])
    rows = list(read_jsonl(config.folder / RESPONSES))
    assert server.asked.total() == 6 and all(len(row["follow_ups"]) == 1 for row in rows)
    second = [body["messages"] for body in server.bodies if len(body["messages"]) == 3]
    assert {messages[1]["content"] for messages in second} == {row["text"] for row in rows}
    assert scores.metrics["mt_bench/turn_2"].n + scores.metrics["mt_bench/turn_2"].unscored == 3


def test_a_turn_that_fails_leaves_the_turns_before_it(roomy, questions, tmp_path):
    """The context holds a first turn and not a second one; with more room the same command goes on."""
    small = [
        "engine.max_tokens=30",
        "judge=policy",
        f"judge.engine.policy={roomy}",
        "judge.runs=1",
        "judge.retries=0",
    ]
    overrides = ["task=mt_bench", f"bench={questions}", f"into={tmp_path}/into"]
    config = json.loads((roomy / "config.json").read_text())
    (roomy / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 40}))
    with pytest.raises(EngineError, match="there is no room for an answer"):
        evaluate(roomy, *overrides, small=small)
    rows = list(read_jsonl(tmp_path / "into" / RESPONSES))
    assert len(rows) == 3 and not any(row["follow_ups"] for row in rows)


def test_a_judge_without_a_key_is_noticed_before_anything_is_generated(roomy, questions, tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    overrides = ["task=mt_bench", f"bench={questions}", f"into={tmp_path}/into", "judge=mt_bench"]
    with pytest.raises(EngineError, match="OPENAI_API_KEY holds no key"):
        evaluate(roomy, *overrides, f"judge.engine.ledger={tmp_path}/requests.sqlite", small=[])
    assert not (tmp_path / "into" / RESPONSES).exists()


def test_what_was_answered_before_an_engine_fails_is_written_and_not_asked_again():
    prompts = [Prompt(id=f"{n}", split="s", system=None, instruction="Why?") for n in range(5)]
    prompts[0].follow_ups = ["And then?"]
    written = {}

    def write(responses):
        written.clear()
        written.update({response.id: response for response in responses})

    with pytest.raises(EngineError, match="the cap"):
        generate(RuleEngine(lambda request: "So.", most=3, order=-1), prompts, 0, {}, write)
    assert list(written) == ["2", "3", "4"], "in the order of the prompts"
    rest = RuleEngine(lambda request: f"So {len(request.messages)}.")
    found = generate(rest, prompts, 0, written.copy(), write)
    assert [request.id for request in rest.asked] == ["0", "1", "0"] and list(found) == list(written) == list("01234")
    assert found["0"].turns == ["So 1.", "So 3."]


def test_a_kill_loses_at_most_a_minute(monkeypatch):
    monkeypatch.setattr("multifaceted.evaluation.generation.EVERY", -1.0)
    prompts = [Prompt(id=f"{n}", split="s", system=None, instruction="Why?") for n in range(3)]
    sizes = []
    generate(RuleEngine(lambda request: "So."), prompts, 0, {}, lambda responses: sizes.append(len(responses)))
    assert sizes == [1, 2, 3, 3]


def test_an_interrupted_turn_leaves_the_responses_that_arrived(policy, monkeypatch):
    """What a policy in this process has said is in no ledger, and would have to be generated anew."""
    batches, generated = [], PolicyEngine._answer

    def interrupted(self, encoded, *settings):
        batches.append(len(encoded))
        if len(batches) == 3:
            raise KeyboardInterrupt
        return generated(self, encoded, *settings)

    monkeypatch.setattr(PolicyEngine, "_answer", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate(policy)
    rows = list(read_jsonl(policy.parent / "eval" / "mini_test_seed-0" / RESPONSES))
    assert len(rows) == 14
    config, _ = evaluate(policy)
    assert sum(batches) == 44 + 7, "of the third batch nothing had arrived"
    assert [row for row in read_jsonl(config.folder / RESPONSES) if row in rows] == rows


def test_an_engine_that_leaves_prompts_open_is_said(policy):
    class Silent:
        def answer(self, requests, seed):
            return iter(())

    prompts = [Prompt(id="a", split="s", system=None, instruction="Why?")]
    with pytest.raises(EngineError, match="1 prompts have no reply, first 'a'"):
        generate(Silent(), prompts, 0, {}, lambda responses: None)


def test_a_file_of_responses_is_known_by_its_bytes_whatever_its_name(tmp_path):
    found = []
    for name, text in {"a.jsonl": "one", "b.jsonl": "one", "c.jsonl": "two"}.items():
        (tmp_path / name).write_text(text)
        file = ResponseFile(path=tmp_path / name)
        found.append((evaluated(None, file).fingerprint, decisive(file, {"path": tmp_path / name})))
    assert found[0] == found[1] != found[2] and found[0][0] != found[2][0]
