"""A policy in this process: batched, and seeded per prompt."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, TypeVar, cast

import torch
from tqdm import tqdm
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from multifaceted.inference.loading import whole_model
from multifaceted.inference.rendering import chat_tokenizer, rendered, tokens_of
from multifaceted.inference.requests import EngineError, Reply, Request, check_requests, request_seed
from multifaceted.inference.sampling import FirstTokens, Settled
from multifaceted.model.context import context_length
from multifaceted.model.policy_files import PolicyFiles, resolve_policy
from multifaceted.model.tokenizer import ends_of_turn
from multifaceted.records import Sampling
from multifaceted.template import shipped_templates

T = TypeVar("T")


class _Ready(NamedTuple):
    """What is there before weights are read."""

    files: PolicyFiles
    tokenizer: PreTrainedTokenizerBase


class _Loaded(NamedTuple):
    """The model, and the tokens that end an answer."""

    model: PreTrainedModel
    ends: list[int]


class _Answer(NamedTuple):
    """Tokens without the one that ends them, whether there was one, and what could have come first."""

    tokens: list[int]
    finished: bool
    first_token: dict[str, float] | None


@dataclass(kw_only=True, slots=True)
class PolicyEngine:
    """An engine that loads its policy once, when it is first asked, and keeps it as long as it lives itself.

    Attributes:
        policy: a folder that `train.py` exported or any other model folder, or a hub id, `<owner>/<name>` with
            `@<revision>` or without. What `eval.py` evaluates is named by its own `policy=`.
        template: one of ours in place of the chat template that the policy brings, or lacks.
        system_in_user: put the system message into the first user turn, for templates that have no other place for it.
        temperature, top_p, repetition_penalty, max_tokens: None leaves it to the request, and where that says nothing
            either to `Settled`. At temperature 0 the likeliest token is taken; otherwise each request has a seed. What
            the model's own generation config says of sampling does not count.
        top_logprobs: how many of the likeliest first tokens a reply has, with their log-probabilities under the model's
            own distribution, whatever the sampling.
        batch_size: prompts at once.
        device: by default the GPU where there is one.
    """

    policy: str | None = None
    template: str | None = None
    system_in_user: bool = False
    temperature: float | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None
    max_tokens: int | None = None
    top_logprobs: int = 0
    batch_size: int = 128
    device: str | None = None
    _ready: _Ready | None = field(default=None, init=False, repr=False, compare=False)
    _loaded: _Loaded | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        usual = self._settled(Sampling())
        if usual.temperature < 0 or not 0 < usual.top_p <= 1 or usual.max_tokens < 1 or self.batch_size < 1:
            raise ValueError(
                f"temperature={self.temperature} must be at least 0, top_p={self.top_p} in (0, 1], and"
                f" max_tokens={self.max_tokens} and batch_size={self.batch_size} at least 1"
            )
        if self.top_logprobs < 0:
            raise ValueError(f"top_logprobs is {self.top_logprobs}; it must be at least 0, and 0 asks for none")
        if self.template is not None and self.template not in shipped_templates():
            raise ValueError(f"template is {self.template!r}; there are {', '.join(shipped_templates())}")

    def files(self) -> PolicyFiles:
        """Where the policy's files are, once everything is checked that needs no weights in memory.

        Raises:
            ValueError: there is no policy, or none that this engine can put a prompt to.
        """
        return self._prepared().files

    def answer(self, requests: Sequence[Request], seed: int) -> Iterator[Reply]:
        """One reply a request, batch by batch, the shortest first.

        Raises:
            ValueError: see `files`.
            EngineError: a conversation that leaves no room for an answer, or that the chat template cannot show.
        """
        check_requests(requests)
        if not requests:
            return
        tokenizer = self._prepared().tokenizer
        encoded = self._encode(requests)
        with tqdm(total=len(requests), desc="generate", unit="prompt", disable=None) as bar:
            for index, answer in self._answers(requests, encoded, seed):
                bar.update()
                yield Reply(
                    id=requests[index].id,
                    text=cast(str, tokenizer.decode(answer.tokens, skip_special_tokens=True)),
                    finished=answer.finished,
                    prompt_tokens=len(encoded[index]),
                    completion_tokens=len(answer.tokens) + answer.finished,
                    first_token=answer.first_token,
                )

    def _answers(
        self, requests: Sequence[Request], encoded: Sequence[array[int]], seed: int
    ) -> Iterator[tuple[int, _Answer]]:
        """The answer to each request, with its place among them.

        The longest prompt of a batch leaves the others less room than they have alone. Those that it cuts are answered
        again among prompts of their own length.
        """
        context = context_length(self._load().model.config) or sys.maxsize
        pending, apart = sorted(range(len(requests)), key=lambda place: len(encoded[place])), False
        while pending:
            groups: dict[tuple[Settled, int], list[int]] = {}
            for place in pending:
                length = len(encoded[place]) if apart else 0
                groups.setdefault((self._settled(requests[place].sampling), length), []).append(place)
            pending, apart = [], True
            for (settled, _), members in _batches(groups, self.batch_size):
                seeds = [request_seed(seed, requests[place]) for place in members]
                answers = self._answer([encoded[place] for place in members], seeds, settled)
                for place, answer in zip(members, answers, strict=True):
                    room = min(settled.max_tokens, context - len(encoded[place]))
                    if answer.finished or len(answer.tokens) >= room:
                        yield place, answer
                    else:
                        pending.append(place)

    def _prepared(self) -> _Ready:
        if self._ready is None:
            if self.policy is None:
                raise EngineError("an engine in this process needs a policy: a folder or a hub id, policy=...")
            files = resolve_policy(self.policy)
            self._ready = _Ready(files, chat_tokenizer(files.folder, self.template))
        return self._ready

    def _load(self) -> _Loaded:
        if self._loaded is None:
            folder, tokenizer = self._prepared().files.folder, self._prepared().tokenizer
            model = whole_model(AutoModelForCausalLM, folder, self.device)
            ends = ends_of_turn(model, tokenizer)
            model.generation_config = GenerationConfig()  # its sampling settings are not what was asked for
            self._loaded = _Loaded(model, ends)
        return self._loaded

    def _settled(self, wanted: Sampling) -> Settled:
        """How a request that wants this is answered."""
        own = Sampling(
            temperature=self.temperature,
            top_p=self.top_p,
            repetition_penalty=self.repetition_penalty,
            max_tokens=self.max_tokens,
        )
        stated = {name: value for name, value in asdict(own.or_else(wanted)).items() if value is not None}
        return Settled(**stated)

    def _encode(self, requests: Sequence[Request]) -> list[array[int]]:
        tokenizer = self._prepared().tokenizer
        texts = [rendered(tokenizer, request, system_in_user=self.system_in_user) for request in requests]
        encoded = tokens_of(tokenizer, texts)
        context = context_length(self._load().model.config)
        for request, ids in zip(requests, encoded, strict=True):
            if context is not None and len(ids) >= context:
                raise EngineError(
                    f"request {request.shown!r} has {len(ids)} tokens, and the model's context is {context}: there is"
                    " no room for an answer; shorten it, or use a model with a longer context"
                )
        return encoded

    @torch.no_grad()
    def _answer(self, encoded: Sequence[array[int]], seeds: list[int], settled: Settled) -> list[_Answer]:
        """The answer to each prompt."""
        (model, ends), most = self._load(), settled.max_tokens
        width = max(map(len, encoded))
        # Before a prompt its own first token, masked: a repetition penalty sees padding too, as if it had been said.
        input_ids = torch.tensor(
            [[*ids[:1] * (width - len(ids)), *ids] for ids in encoded], dtype=torch.long, device=model.device
        )
        attention_mask = torch.tensor(
            [[0] * (width - len(ids)) + [1] * len(ids) for ids in encoded], device=model.device
        )
        first = FirstTokens(self.top_logprobs)
        generate: Any = model.generate
        output = generate(
            input_ids=input_ids,
            attention_mask=attention_mask,
            do_sample=False,
            eos_token_id=ends or None,
            max_new_tokens=min(most, (context_length(model.config) or width + most) - width),
            pad_token_id=ends[0] if ends else 0,  # after an answer, behind the token that ends it
            logits_processor=LogitsProcessorList([first, *settled.processors(seeds, model.device)]),
        )
        likeliest = self._as_text(first) if self.top_logprobs else [None] * len(encoded)
        answers: list[_Answer] = []
        for row, first_token in zip(output[:, width:].tolist(), likeliest, strict=True):
            length = next((place for place, token in enumerate(row) if token in ends), None)
            answers.append(_Answer(row[:length], length is not None, first_token))
        return answers

    def _as_text(self, first: FirstTokens) -> list[dict[str, float]]:
        """By text, of which several tokens may have the same: the likeliest counts."""
        assert first.tokens is not None and first.logps is not None
        tokenizer, found = self._prepared().tokenizer, []
        for tokens, logps in zip(first.tokens.tolist(), first.logps.tolist(), strict=True):
            texts: dict[str, float] = {}
            for token, logp in zip(tokens, logps, strict=True):
                texts.setdefault(cast(str, tokenizer.decode([token])), logp)
            found.append(texts)
        return found


def _batches(groups: Mapping[T, Sequence[int]], size: int) -> Iterator[tuple[T, Sequence[int]]]:
    for alike, members in groups.items():
        for begin in range(0, len(members), size):
            yield alike, members[begin : begin + size]
