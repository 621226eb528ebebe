"""An exported policy in this process: batched, and seeded per prompt."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from jinja2 import TemplateError
from torch import Tensor
from tqdm import tqdm
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from multifaceted.inference.requests import EngineError
from multifaceted.model.folder import check_model_folder, refuse_reward_model
from multifaceted.model.tokenizer import ends_of_turn, hide_blank, padding_id
from multifaceted.records import Prompt, Response


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


@dataclass(kw_only=True, slots=True)
class PolicyEngine:
    """Generates with an exported policy.

    Attributes:
        temperature: 0 takes the likeliest token; otherwise sampling, seeded by `seed` and the prompt's id.
        max_new_tokens: most tokens of a response.
    """

    temperature: float = 1.0
    top_p: float = 0.9
    repetition_penalty: float = 1.0
    max_new_tokens: int = 160
    batch_size: int = 128
    device: str | None = None

    def __post_init__(self) -> None:
        if self.temperature < 0 or not 0 < self.top_p <= 1 or self.max_new_tokens < 1 or self.batch_size < 1:
            raise ValueError(
                f"temperature={self.temperature} must be at least 0, top_p={self.top_p} in (0, 1], and"
                f" max_new_tokens={self.max_new_tokens} and batch_size={self.batch_size} at least 1"
            )

    def generate(self, policy: Path, prompts: Sequence[Prompt], seed: int) -> list[Response]:
        """Answer every prompt, in the order given.

        Raises:
            ValueError: `policy` is not a policy folder.
            EngineError: a prompt leaves no room for an answer, or the tokenizer has no chat template or one that
                refuses a prompt.
        """
        refuse_reward_model(str(policy), check_model_folder(policy).get("architectures"))
        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        tokenizer = cast(PreTrainedTokenizerBase, AutoTokenizer.from_pretrained(policy))
        if not tokenizer.chat_template:
            raise EngineError(f"{policy} has no chat template, so there is no telling how to put a prompt to it")
        hide_blank(tokenizer)
        model = cast(PreTrainedModel, AutoModelForCausalLM.from_pretrained(policy, use_safetensors=True))
        model = cast(PreTrainedModel, model.to(device).eval())
        encoded = self._encode(tokenizer, model, prompts)
        order = sorted(range(len(prompts)), key=lambda i: len(encoded[i]))
        responses: list[Response | None] = [None] * len(prompts)
        with tqdm(total=len(prompts), desc="generate", unit="prompt", disable=None) as bar:
            for begin in range(0, len(order), self.batch_size):
                members = order[begin : begin + self.batch_size]
                seeds = [prompt_seed(seed, prompts[i].id) for i in members]
                answers = self._answer(model, tokenizer, [encoded[i] for i in members], seeds)
                for index, (text, finished) in zip(members, answers, strict=True):
                    responses[index] = Response(id=prompts[index].id, text=text, finished=finished)
                bar.update(len(members))
        return cast(list[Response], responses)

    def _encode(
        self, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, prompts: Sequence[Prompt]
    ) -> list[list[int]]:
        texts = [_rendered(tokenizer, prompt) for prompt in prompts]
        encoded: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"]
        context = getattr(model.config, "max_position_embeddings", None)
        for prompt, ids in zip(prompts, encoded, strict=True):
            if context is not None and len(ids) >= context:
                raise EngineError(
                    f"prompt {prompt.id!r} has {len(ids)} tokens, and the policy's context is {context}: there is no"
                    " room for an answer; shorten its system message or instruction"
                )
        return encoded

    @torch.no_grad()
    def _answer(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, encoded: list[list[int]], seeds: list[int]
    ) -> list[tuple[str, bool]]:
        width = max(map(len, encoded))
        padding, ends = padding_id(tokenizer), ends_of_turn(model, tokenizer)
        input_ids = torch.tensor([[padding] * (width - len(ids)) + ids for ids in encoded], device=model.device)
        attention_mask = torch.tensor(
            [[0] * (width - len(ids)) + [1] * len(ids) for ids in encoded], device=model.device
        )
        context = getattr(model.config, "max_position_embeddings", None) or width + self.max_new_tokens
        generate: Any = model.generate
        output = generate(
            input_ids=input_ids,
            attention_mask=attention_mask,
            do_sample=False,
            eos_token_id=ends,
            max_new_tokens=min(self.max_new_tokens, context - width),
            pad_token_id=padding,
            logits_processor=self._processors(seeds, model.device),
        )
        answers = []
        for row in output[:, width:].tolist():
            length = next((place for place, token in enumerate(row) if token in ends), None)
            text = cast(str, tokenizer.decode(row[:length], skip_special_tokens=True))
            answers.append((text, length is not None))
        return answers

    def _processors(self, seeds: list[int], device: torch.device) -> LogitsProcessorList:
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


def _rendered(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> str:
    try:
        return cast(str, tokenizer.apply_chat_template(prompt.messages(), tokenize=False, add_generation_prompt=True))
    except TemplateError as error:
        raise EngineError(f"the policy's chat template refuses prompt {prompt.id!r}: {error}") from error


def prompt_seed(seed: int, prompt_id: str) -> int:
    """The seed of one prompt's stream."""
    return int.from_bytes(hashlib.sha256(f"generation:{seed}:{prompt_id}".encode()).digest()[:6], "big")
