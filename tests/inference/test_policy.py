"""Sampling is exact, seeded per prompt, and bounded by the context."""

import pytest
import torch

from multifaceted.inference.policy import EngineError, GumbelNoise, PolicyEngine, prompt_seed
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


@pytest.mark.parametrize("bad", [{"temperature": -1}, {"top_p": 0.0}, {"max_new_tokens": 0}, {"batch_size": 0}])
def test_impossible_settings_are_refused(bad):
    with pytest.raises(ValueError, match="must be"):
        PolicyEngine(**bad)
