"""How the next token is chosen: what turns logits into a choice, and what is kept of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from multifaceted.inference.requests import MOST_TOKENS


class GumbelNoise(LogitsProcessor):
    """Turns the likeliest token into a sample: argmax(logits + Gumbel noise) is distributed as softmax(logits).

    Every prompt draws from a stream of its own, so its answer does not depend on the batch it sits in.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device) -> None:
        self.generators = [torch.Generator(device=device).manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """[prompts, vocabulary] logits, with noise added."""
        noise = torch.stack(
            [torch.empty(scores.shape[1], device=scores.device).exponential_(generator=g) for g in self.generators]
        )
        return scores.float() - noise.log()


class FirstTokens(LogitsProcessor):
    """Keeps what could have come first. It must stand before all that changes logits.

    Attributes:
        tokens, logps: [prompts, number], the likeliest first; None before the first token.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.tokens: Tensor | None = None
        self.logps: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """[prompts, vocabulary] logits, as they are."""
        if self.number and self.tokens is None:
            number = min(self.number, scores.shape[1])
            self.logps, self.tokens = scores.float().log_softmax(-1).topk(number)
        return scores


class Settled(NamedTuple):
    """How text is drawn; by default from the model's own distribution."""

    temperature: float = 1.0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    max_tokens: int = MOST_TOKENS

    def processors(self, seeds: Sequence[int], device: torch.device) -> LogitsProcessorList:
        """What turns logits into a choice of tokens, for prompts with these seeds."""
        processors = LogitsProcessorList()
        if self.repetition_penalty != 1.0:
            processors.append(RepetitionPenaltyLogitsProcessor(self.repetition_penalty))
        if self.temperature > 0:
            if self.temperature != 1.0:
                processors.append(TemperatureLogitsWarper(self.temperature))
            if self.top_p < 1.0:
                processors.append(TopPLogitsWarper(self.top_p))
            processors.append(GumbelNoise(seeds, device))
        return processors
