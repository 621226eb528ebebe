"""An exported policy in this process: batched, and seeded per prompt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

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

from multifaceted.inference.requests import (
    MOST_TOKENS,
    EngineError,
    Reply,
    Request,
    check_requests,
    request_seed,
)
from multifaceted.model.folder import check_model_folder, refuse_reward_model
from multifaceted.model.tokenizer import ends_of_turn, hide_blank, padding_id
from multifaceted.records import Sampling


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


class Settled(NamedTuple):
    """How text is drawn; by default from the model's own distribution."""

    temperature: float = 1.0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    max_tokens: int = MOST_TOKENS

    def processors(self, seeds: list[int], device: torch.device) -> LogitsProcessorList:
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


@dataclass(kw_only=True, slots=True)
class PolicyEngine:
    """How an exported policy generates; `load` gives the engine.

    Attributes:
        temperature, top_p, repetition_penalty, max_tokens: None leaves it to the request, and where that says nothing
            either to `Settled`. At temperature 0 the likeliest token is taken; otherwise each request has a seed.
    """

    temperature: float | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None
    max_tokens: int | None = None
    batch_size: int = 128
    device: str | None = None

    def __post_init__(self) -> None:
        usual = self.settled(Sampling())
        if usual.temperature < 0 or not 0 < usual.top_p <= 1 or usual.max_tokens < 1 or self.batch_size < 1:
            raise ValueError(
                f"temperature={self.temperature} must be at least 0, top_p={self.top_p} in (0, 1], and"
                f" max_tokens={self.max_tokens} and batch_size={self.batch_size} at least 1"
            )

    def load(self, policy: Path) -> Policy:
        """The engine that answers with an exported policy.

        Raises:
            ValueError: `policy` is not a policy folder.
            EngineError: its tokenizer has no chat template.
        """
        refuse_reward_model(str(policy), check_model_folder(policy).get("architectures"))
        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        tokenizer = cast(PreTrainedTokenizerBase, AutoTokenizer.from_pretrained(policy))
        if not tokenizer.chat_template:
            raise EngineError(f"{policy} has no chat template, so there is no telling how to put a prompt to it")
        hide_blank(tokenizer)
        model = cast(PreTrainedModel, AutoModelForCausalLM.from_pretrained(policy, use_safetensors=True))
        return Policy(settings=self, model=cast(PreTrainedModel, model.to(device).eval()), tokenizer=tokenizer)

    def settled(self, wanted: Sampling) -> Settled:
        """How a request that wants this is answered."""
        own = Sampling(
            temperature=self.temperature,
            top_p=self.top_p,
            repetition_penalty=self.repetition_penalty,
            max_tokens=self.max_tokens,
        )
        stated = {name: value for name, value in asdict(own.or_else(wanted)).items() if value is not None}
        return Settled(**stated)


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """A loaded policy: an engine."""

    settings: PolicyEngine
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    def answer(self, requests: Sequence[Request], seed: int) -> Iterator[Reply]:
        """One reply a request, batch by batch, the shortest first.

        Raises:
            EngineError: a conversation that leaves no room for an answer, or that the chat template refuses.
        """
        check_requests(requests)
        encoded = self._encode(requests)
        groups: dict[Settled, list[int]] = {}
        for index in sorted(range(len(requests)), key=lambda i: len(encoded[i])):
            groups.setdefault(self.settings.settled(requests[index].sampling), []).append(index)
        with tqdm(total=len(requests), desc="generate", unit="prompt", disable=None) as bar:
            for settled, members in _batches(groups, self.settings.batch_size):
                seeds = [request_seed(seed, requests[i]) for i in members]
                answers = self._answer([encoded[i] for i in members], seeds, settled)
                bar.update(len(members))
                for index, (tokens, finished) in zip(members, answers, strict=True):
                    yield Reply(
                        id=requests[index].id,
                        text=cast(str, self.tokenizer.decode(tokens, skip_special_tokens=True)),
                        finished=finished,
                        prompt_tokens=len(encoded[index]),
                        completion_tokens=len(tokens) + finished,
                    )

    def _encode(self, requests: Sequence[Request]) -> list[list[int]]:
        if not requests:
            return []
        texts = [self._rendered(request) for request in requests]
        encoded: list[list[int]] = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        context = getattr(self.model.config, "max_position_embeddings", None)
        for request, ids in zip(requests, encoded, strict=True):
            if context is not None and len(ids) >= context:
                raise EngineError(
                    f"prompt {request.id!r} has {len(ids)} tokens, and the policy's context is {context}: there is no"
                    " room for an answer; shorten its system message or instruction"
                )
        return encoded

    def _rendered(self, request: Request) -> str:
        try:
            messages = list(request.messages)
            text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            return cast(str, text)
        except TemplateError as error:
            raise EngineError(f"the policy's chat template refuses prompt {request.id!r}: {error}") from error

    @torch.no_grad()
    def _answer(self, encoded: list[list[int]], seeds: list[int], settled: Settled) -> list[tuple[list[int], bool]]:
        """For each prompt the tokens of its answer, without the one that ends it, and whether there was one."""
        model, most = self.model, settled.max_tokens
        width = max(map(len, encoded))
        padding, ends = padding_id(self.tokenizer), ends_of_turn(model, self.tokenizer)
        input_ids = torch.tensor([[padding] * (width - len(ids)) + ids for ids in encoded], device=model.device)
        attention_mask = torch.tensor(
            [[0] * (width - len(ids)) + [1] * len(ids) for ids in encoded], device=model.device
        )
        context = getattr(model.config, "max_position_embeddings", None) or width + most
        generate: Any = model.generate
        output = generate(
            input_ids=input_ids,
            attention_mask=attention_mask,
            do_sample=False,
            eos_token_id=ends,
            max_new_tokens=min(most, context - width),
            pad_token_id=padding,
            logits_processor=settled.processors(seeds, model.device),
        )
        answers: list[tuple[list[int], bool]] = []
        for row in output[:, width:].tolist():
            length = next((place for place, token in enumerate(row) if token in ends), None)
            answers.append((row[:length], length is not None))
        return answers


def _batches(groups: Mapping[Settled, Sequence[int]], size: int) -> Iterator[tuple[Settled, Sequence[int]]]:
    for settled, members in groups.items():
        for begin in range(0, len(members), size):
            yield settled, members[begin : begin + size]
