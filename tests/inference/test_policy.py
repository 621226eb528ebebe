"""Sampling is exact, seeded per prompt, and bounded by the context."""

import json
import shutil
from array import array
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from multifaceted.inference.policy import PolicyEngine
from multifaceted.inference.rendering import tokens_of
from multifaceted.inference.requests import Engine, EngineError, Request, request_seed
from multifaceted.inference.sampling import GumbelNoise
from multifaceted.records import Sampling


def test_gumbel_noise_samples_the_distribution():
    probabilities = torch.tensor([0.6, 0.3, 0.1])
    num = 20_000
    noise = GumbelNoise([0], torch.device("cpu"))
    scores = probabilities.log().expand(1, 3)
    counts = torch.bincount(torch.tensor([int(noise(None, scores).argmax()) for _ in range(num)]), minlength=3)
    torch.testing.assert_close(counts / num, probabilities, atol=0.015, rtol=0)


def test_excluded_tokens_stay_excluded():
    scores = torch.tensor([[0.0, float("-inf"), 0.0]])
    noise = GumbelNoise([3], torch.device("cpu"))
    assert all(int(noise(None, scores).argmax()) != 1 for _ in range(200))


def request(name, *turns, system="Be kind.", sample=0, sampling=None):
    roles = ("user", "assistant")
    messages = [{"role": roles[place % 2], "content": turn} for place, turn in enumerate(turns or (name,))]
    stated = [{"role": "system", "content": system}, *messages]
    return Request(id=name, messages=stated, sample=sample, sampling=sampling or Sampling())


def answers(engine, policy, *requests, seed=0):
    """In the order of the requests."""
    found = {reply.id: reply for reply in replace(engine, policy=str(policy)).answer(requests, seed)}
    return [found[each.id] for each in requests]


def test_the_order_of_requests_changes_no_answer(tiny_run):
    asked = [request(f"{n}", "What is rain?", sample=n % 2) for n in range(4)]
    engine = PolicyEngine(max_tokens=6)
    replies = answers(engine, tiny_run.exported, *asked)
    assert replies[::-1] == answers(engine, tiny_run.exported, *asked[::-1])
    assert len({reply.text for reply in replies}) > 1


def test_padding_is_nothing_that_a_repetition_penalty_counts(tiny_run, tmp_path):
    """A token that ends an answer is in no prompt of this template, so nothing may make it rarer."""
    policy = shutil.copytree(tiny_run.exported, tmp_path / "policy")
    weights = load_file(policy / "model.safetensors")
    weights["model.norm.weight"] *= 40  # surer of itself than two steps of training make it
    save_file(weights, policy / "model.safetensors", {"format": "pt"})
    asked = [request(f"{n}", "What is rain?") for n in range(24)]
    engine = PolicyEngine(max_tokens=100, repetition_penalty=1.5)
    alone = answers(engine, policy, *asked)
    assert answers(engine, policy, *asked, request("long", "What is rain? " * 8))[:-1] == alone
    assert any(reply.finished for reply in alone)


def test_a_long_prompt_takes_no_room_from_others(tiny_run):
    engine = PolicyEngine(temperature=0.0)
    asked = [request("a", "What is rain?"), request("b", "What is snow, then?")]
    alone = [answers(engine, tiny_run.exported, each)[0] for each in asked]
    assert max(reply.completion_tokens for reply in alone) > 100
    *together, long = answers(engine, tiny_run.exported, *asked, request("long", system="Be kind. " * 59))
    assert 512 - long.prompt_tokens < 100 and together == alone


def test_streams_belong_to_prompts():
    a, b, again = request("a"), request("b"), request("a", sample=1)
    assert request_seed(0, a) == request_seed(0, request("a", system="Be brief."))
    assert len({request_seed(0, a), request_seed(0, b), request_seed(1, b), request_seed(0, again)}) == 4


def test_a_prompt_that_fills_the_context_is_refused_by_id(tiny_run):
    long = request("long-one", system="Be kind. " * 300)
    with pytest.raises(
        EngineError, match=r"'long-one' has .* tokens, and the model's context is 512: .* longer context"
    ):
        answers(PolicyEngine(), tiny_run.exported, long)


def test_a_conversation_of_several_turns_is_answered(tiny_run):
    """The prompt holds all turns, so an earlier answer changes the next one's tokens."""
    engine = PolicyEngine(temperature=0.0, max_tokens=4)
    short, long = answers(
        engine, tiny_run.exported, request("1", "Rain?"), request("2", "Rain?", "Water. It falls.", "And snow?")
    )
    assert long.prompt_tokens > short.prompt_tokens and short.completion_tokens == 4


def test_samples_of_one_request_differ_and_come_again(tiny_run):
    engine = PolicyEngine(max_tokens=12, top_p=1.0)
    texts = [answers(engine, tiny_run.exported, request("Rain?", sample=n))[0].text for n in (0, 1, 0)]
    assert texts[0] == texts[2] != texts[1]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ([request("a"), request("a")], "'a' asked twice"),
        ([request("a", "Rain?", "Water.")], "request 'a': the last message is by assistant"),
        ([Request(id="a", messages=[])], "request 'a': the last message is by nobody"),
    ],
)
def test_requests_that_no_engine_can_answer_are_refused(tiny_run, asked, message):
    with pytest.raises(EngineError, match=message):
        next(PolicyEngine(policy=str(tiny_run.exported)).answer(asked, seed=0))


def test_every_token_that_ends_a_turn_ends_an_answer(tiny_run, tmp_path):
    """Instruct models name several in their generation config; what follows the first is padding."""
    policy = shutil.copytree(tiny_run.exported, tmp_path / "policy")
    tokenizer = AutoTokenizer.from_pretrained(policy)
    engine = PolicyEngine(temperature=0.0, max_tokens=12)
    before = answers(engine, policy, request("Rain?"), request("What is snow?"))
    ids = [tokenizer(response.text, add_special_tokens=False)["input_ids"] for response in before]
    assert not any(response.finished for response in before) and all(ids), "two steps teach no end"
    path = policy / "generation_config.json"
    generation = json.loads(path.read_text())
    assert generation["eos_token_id"] == [tokenizer.eos_token_id]
    path.write_text(json.dumps(generation | {"eos_token_id": [tokenizer.eos_token_id, ids[0][-1]]}))
    after = answers(engine, policy, request("Rain?"), request("What is snow?"))
    assert after[0].finished and len(after[0].text) < len(before[0].text)
    assert before[0].text.startswith(after[0].text)


def with_template(run, folder, template):
    """A copy of the policy with another chat template, or with none."""
    policy = shutil.copytree(run.exported, folder / "policy")
    path = policy / "chat_template.jinja"
    path.unlink() if template is None else path.write_text(template)
    return policy


TURNS = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + eos_token }}{% endfor %}"
IF_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ ACTION }}{% endif %}" + TURNS
REFUSES = IF_SYSTEM.replace("{{ ACTION }}", "{{ raise_exception('no system role') }}")
DROPS = IF_SYSTEM.replace("{{ ACTION }}", "{% set messages = messages[1:] %}")


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        (REFUSES, "refuses request 'Rain\\?': no system role. If that is about the system message"),
        (DROPS, "leaves the system message of request 'Rain\\?' out"),
    ],
)
def test_a_template_without_a_place_for_the_system_message(tiny_run, tmp_path, template, problem):
    policy = with_template(tiny_run, tmp_path, template)
    with pytest.raises(EngineError, match=f"{problem}.*engine.system_in_user=true"):
        answers(PolicyEngine(), policy, request("Rain?"))
    engine = PolicyEngine(system_in_user=True, temperature=0.0, max_tokens=3)
    (reply,) = answers(engine, policy, request("Rain?"))
    assert reply.prompt_tokens == len(tokens(policy, "user: Be kind.\nRain?</s>"))
    (other,) = answers(engine, policy, Request(id="a", messages=[{"role": "user", "content": "Be kind.\nRain?"}]))
    assert (reply.text, reply.prompt_tokens) == (other.text, other.prompt_tokens)


def test_what_a_template_refuses_of_a_conversation_without_a_system_message_is_said_alone(tiny_run, tmp_path):
    policy = with_template(
        tiny_run, tmp_path, "{% if messages|length > 2 %}{{ raise_exception('one turn') }}{% endif %}"
    )
    user = {"role": "user", "content": "Rain?"}
    with pytest.raises(EngineError, match=r"refuses request 'a': one turn$"):
        answers(PolicyEngine(), policy, Request(id="a", messages=[user, {"role": "assistant", "content": "W"}, user]))


def tokens(policy, text):
    return AutoTokenizer.from_pretrained(policy)(text, add_special_tokens=False)["input_ids"]


def test_a_base_model_without_a_template_is_merely_prompted(tiny_run, tmp_path):
    policy = with_template(tiny_run, tmp_path, None)
    asked = [request("Rain?"), request("2", "Rain?", "Water.", "And snow?")]
    with pytest.raises(EngineError, match=r"no chat template.*engine.template=<chatml.*plain is for a base model"):
        PolicyEngine(policy=str(policy)).files()
    plain = PolicyEngine(template="plain", temperature=0.0, max_tokens=3)
    texts = ["<s>Be kind.\nRain?\n", "<s>Be kind.\nRain?\nWater.\nAnd snow?\n"]
    prompts = [tokens(policy, text) for text in texts]
    replies = answers(plain, policy, *asked)
    assert [reply.prompt_tokens for reply in replies] == [len(prompt) for prompt in prompts]
    model = AutoModelForCausalLM.from_pretrained(policy)
    for prompt, reply in zip(prompts, replies, strict=True):
        assert prompt.count(model.config.bos_token_id) == 1
        written = model.generate(torch.tensor([prompt]), max_new_tokens=3, do_sample=False)[0, len(prompt) :]
        assert reply.text == AutoTokenizer.from_pretrained(policy).decode(written, skip_special_tokens=True)


def test_a_template_whose_tokens_the_policy_lacks_is_refused(tiny_run):
    with pytest.raises(EngineError, match=r"engine.template=chatml: the tokenizer has no special token <\|im_start\|>"):
        PolicyEngine(policy=str(tiny_run.exported), template="chatml").files()


def test_a_policy_is_loaded_once_however_often_it_is_asked(tiny_run, monkeypatch):
    loads = []
    load = AutoModelForCausalLM.from_pretrained
    monkeypatch.setattr(
        AutoModelForCausalLM, "from_pretrained", lambda folder, **given: loads.append(given) or load(folder, **given)
    )
    engine = PolicyEngine(policy=str(tiny_run.exported), max_tokens=3)
    assert list(engine.answer([], seed=0)) == [] and engine.files() and not loads, "nothing is asked yet"
    first, again = (list(engine.answer([request("Rain?")], seed=0)) for _ in range(2))
    assert first == again and len(loads) == 1
    assert loads[0]["use_safetensors"] is True and loads[0]["trust_remote_code"] is False
    assert isinstance(engine, Engine) and engine == PolicyEngine(policy=str(tiny_run.exported), max_tokens=3)


def test_weights_that_are_not_there_are_not_drawn_at_random(tiny_run, tmp_path):
    policy = shutil.copytree(tiny_run.exported, tmp_path / "policy")
    weights = load_file(policy / "model.safetensors")
    del weights["model.layers.0.self_attn.q_proj.weight"]
    save_file(weights, policy / "model.safetensors", {"format": "pt"})
    with pytest.raises(EngineError, match=r"lacks weights of a MistralForCausalLM.*'model.layers.0.self_attn.q_proj"):
        answers(PolicyEngine(), policy, request("Rain?"))


def test_tokens_are_kept_as_arrays_and_do_not_depend_on_what_is_tokenized_together(tiny_run, monkeypatch):
    """Lists would take 136 bytes a token: 3 GB for the questions of a bench to a judge."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_run.exported)
    texts = [f"What is rain, {n}?" for n in range(7)] + [""]
    monkeypatch.setattr("multifaceted.inference.rendering.AT_ONCE", 3)
    found = tokens_of(tokenizer, texts)
    assert all(isinstance(each, array) for each in found)
    assert [list(each) for each in found] == tokenizer(texts, add_special_tokens=False)["input_ids"]


def test_prompts_with_other_settings_are_answered_as_each_alone(tiny_run):
    """In one call, where each settles differently."""
    settings = [Sampling(temperature=0.0, max_tokens=3), Sampling(top_p=0.5, max_tokens=9), Sampling(max_tokens=6)]
    asked = [request(f"{n}", "Rain?", sampling=each) for n, each in enumerate(settings)]
    together = answers(PolicyEngine(), tiny_run.exported, *asked)
    alone = [answers(PolicyEngine(), tiny_run.exported, each)[0] for each in asked]
    assert together == alone and [reply.completion_tokens for reply in together] == [3, 9, 6]
    ignoring = answers(PolicyEngine(temperature=0.0, max_tokens=3), tiny_run.exported, *asked)
    assert len({reply.text for reply in ignoring}) == 1, "the engine's own settings win"


def test_what_a_generation_config_says_of_sampling_does_not_count(tiny_run, tmp_path):
    """Of instruct models it sets a temperature or a repetition penalty, which nobody asked for."""
    policy = shutil.copytree(tiny_run.exported, tmp_path / "policy")
    engine = PolicyEngine(temperature=0.0, max_tokens=12)
    before = answers(engine, policy, request("Rain?"))
    path = policy / "generation_config.json"
    first = tokens(policy, before[0].text)[0]
    suggested = {
        "repetition_penalty": 9.0,
        "suppress_tokens": [first],
        "do_sample": True,
        "temperature": 9.0,
        "top_k": 2,
    }
    path.write_text(json.dumps(json.loads(path.read_text()) | suggested))
    assert answers(engine, policy, request("Rain?")) == before


def test_first_tokens_are_those_of_a_forward_pass_whatever_the_sampling_and_the_batch(tiny_run):
    policy, number = tiny_run.exported, 5
    tokenizer, model = AutoTokenizer.from_pretrained(policy), AutoModelForCausalLM.from_pretrained(policy)
    asked = [request("Rain?"), request("What is snow, and why is it so cold?"), request("3", "Rain?", "W.", "Why?")]
    drawn = {"temperature": 0.3, "top_p": 0.2, "repetition_penalty": 2.0}
    engines = [PolicyEngine(top_logprobs=number, max_tokens=2, **given) for given in ({}, drawn, {"batch_size": 1})]
    found = [answers(engine, policy, *asked) for engine in engines]
    for place, each in enumerate(asked):
        prompt = tokenizer.apply_chat_template(each.messages, add_generation_prompt=True, return_tensors="pt")
        logps, ids = model(prompt["input_ids"]).logits[0, -1].log_softmax(-1).topk(number)
        expected = {tokenizer.decode([id]): logp for id, logp in zip(ids.tolist(), logps.tolist(), strict=True)}
        assert len(expected) == number
        for replies in found:
            assert replies[place].first_token == pytest.approx(expected, abs=1e-5)
            assert list(replies[place].first_token) == list(expected), "the likeliest first"
    assert answers(PolicyEngine(max_tokens=2), policy, asked[0])[0].first_token is None


@pytest.mark.parametrize("bad", [{"temperature": -1}, {"top_p": 0.0}, {"max_tokens": 0}, {"batch_size": 0}])
def test_impossible_settings_are_refused(bad):
    with pytest.raises(ValueError, match="must be"):
        PolicyEngine(**bad)
