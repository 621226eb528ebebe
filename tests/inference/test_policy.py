"""Sampling is exact, seeded per prompt, and bounded by the context."""

import json
import shutil

import pytest
import torch
from transformers import AutoTokenizer

from multifaceted.inference.policy import GumbelNoise, PolicyEngine, prompt_seed
from multifaceted.inference.requests import EngineError
from multifaceted.records import Prompt


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


def test_streams_belong_to_prompts():
    assert prompt_seed(0, "a") == prompt_seed(0, "a") != prompt_seed(0, "b") != prompt_seed(1, "b")


def test_a_prompt_that_fills_the_context_is_refused_by_id(tiny_run):
    long = Prompt(id="long-one", split="s", system="Be kind. " * 300, instruction="Hello?")
    with pytest.raises(EngineError, match=r"'long-one' has .* tokens, and the policy's context is 512"):
        PolicyEngine().generate(tiny_run.exported, [long], seed=0)


def prompts(*texts):
    return [Prompt(id=text, split="s", system="Be kind.", instruction=text) for text in texts]


def test_every_token_that_ends_a_turn_ends_an_answer(tiny_run, tmp_path):
    """Instruct models name several in their generation config; what follows the first is padding."""
    policy = shutil.copytree(tiny_run.exported, tmp_path / "policy")
    tokenizer = AutoTokenizer.from_pretrained(policy)
    engine = PolicyEngine(temperature=0.0, max_new_tokens=12)
    before = engine.generate(policy, prompts("Rain?", "What is snow?"), seed=0)
    ids = [tokenizer(response.text, add_special_tokens=False)["input_ids"] for response in before]
    assert not any(response.finished for response in before) and all(ids), "two steps teach no end"
    path = policy / "generation_config.json"
    generation = json.loads(path.read_text())
    assert generation["eos_token_id"] == [tokenizer.eos_token_id]
    path.write_text(json.dumps(generation | {"eos_token_id": [tokenizer.eos_token_id, ids[0][-1]]}))
    after = engine.generate(policy, prompts("Rain?", "What is snow?"), seed=0)
    assert after[0].finished and len(after[0].text) < len(before[0].text)
    assert before[0].text.startswith(after[0].text)


def test_a_prompt_that_the_template_refuses_is_named(tiny_run, tmp_path):
    policy = shutil.copytree(tiny_run.exported, tmp_path / "policy")
    (policy / "chat_template.jinja").write_text(
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}{{ messages }}"
    )
    with pytest.raises(EngineError, match="refuses prompt 'Rain\\?': no system role"):
        PolicyEngine().generate(policy, prompts("Rain?"), seed=0)


@pytest.mark.parametrize("bad", [{"temperature": -1}, {"top_p": 0.0}, {"max_new_tokens": 0}, {"batch_size": 0}])
def test_impossible_settings_are_refused(bad):
    with pytest.raises(ValueError, match="must be"):
        PolicyEngine(**bad)
