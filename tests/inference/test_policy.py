"""Sampling is exact, seeded per prompt, and bounded by the context."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from transformers import AutoTokenizer

from multifaceted.inference.policy import PolicyEngine
from multifaceted.inference.requests import EngineError, Request, request_seed
from multifaceted.inference.sampling import GumbelNoise


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


def request(name, *turns, system="Be kind.", sample=0):
    roles = ("user", "assistant")
    messages = [{"role": roles[place % 2], "content": turn} for place, turn in enumerate(turns or (name,))]
    return Request(id=name, messages=[{"role": "system", "content": system}, *messages], sample=sample)


def answers(engine, policy, *requests, seed=0):
    """In the order of the requests."""
    found = {reply.id: reply for reply in replace(engine, policy=str(policy)).answer(requests, seed)}
    return [found[each.id] for each in requests]


def test_streams_belong_to_prompts():
    a, b, again = request("a"), request("b"), request("a", sample=1)
    assert request_seed(0, a) == request_seed(0, request("a", system="Be brief."))
    assert len({request_seed(0, a), request_seed(0, b), request_seed(1, b), request_seed(0, again)}) == 4


def test_a_prompt_that_fills_the_context_is_refused_by_id(tiny_run):
    long = request("long-one", system="Be kind. " * 300)
    with pytest.raises(EngineError, match=r"'long-one' has .* tokens, and the policy's context is 512"):
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


def test_a_prompt_that_the_template_refuses_is_named(tiny_run, tmp_path):
    policy = shutil.copytree(tiny_run.exported, tmp_path / "policy")
    (policy / "chat_template.jinja").write_text(
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}{{ messages }}"
    )
    with pytest.raises(EngineError, match="refuses prompt 'Rain\\?': no system role"):
        answers(PolicyEngine(), policy, request("Rain?"))


@pytest.mark.parametrize("bad", [{"temperature": -1}, {"top_p": 0.0}, {"max_tokens": 0}, {"batch_size": 0}])
def test_impossible_settings_are_refused(bad):
    with pytest.raises(ValueError, match="must be"):
        PolicyEngine(**bad)
