"""Rewards of a model with a scalar head, in this process: of conversations, or of tokens that others made."""

from __future__ import annotations

import math
import re
import sys
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, cast

import torch
from jinja2 import TemplateError
from torch import Tensor, nn
from torch.nn.functional import linear
from tqdm import tqdm
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from multifaceted.inference.rendering import AT_ONCE, tokens_of
from multifaceted.inference.requests import EngineError
from multifaceted.model.context import context_length
from multifaceted.model.folder import check_model_folder, refuse_policy
from multifaceted.template import special_tokens

BATCH_TOKENS = 16_384


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """A conversation with the answer that is to be rewarded.

    Attributes:
        id: of whatever it belongs to, for messages.
        messages: `{"role", "content"}`, the system message included, the last one the user's.
    """

    id: str
    messages: Sequence[dict[str, str]]
    response: str


class Reward(NamedTuple):
    """What a response is worth.

    `value` is None where there is none: the response spells a special token, by which it could end its turn and begin
    another. `cut` says that the response is longer than the model's context, and only its beginning was read.
    """

    value: float | None
    cut: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class RewardModel:
    """A loaded reward model.

    Attributes:
        max_length: most tokens that it can read.
        batch_tokens: most tokens of a forward pass, padding included; a longer path is one of its own.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    batch_tokens: int = BATCH_TOKENS

    @classmethod
    def load(cls, folder: Path, device: str | None = None) -> RewardModel:
        """Read a reward model as `train.py` exports it; safetensors only.

        Args:
            device: by default the GPU, where there is one.

        Raises:
            ValueError: `folder` holds none.
            EngineError: its tokenizer has no chat template.
        """
        refuse_policy(str(folder), check_model_folder(folder).get("architectures"))
        tokenizer = cast(PreTrainedTokenizerBase, AutoTokenizer.from_pretrained(folder, trust_remote_code=False))
        if not tokenizer.chat_template:
            raise EngineError(f"{folder} has no chat template, so there is no telling how to put a conversation to it")
        model, found = AutoModelForSequenceClassification.from_pretrained(
            folder, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
        if found["missing_keys"] or not hasattr(model, "score") or model.config.num_labels != 1:
            lacking = ", ".join(sorted(found["missing_keys"])) or "a head called score with one label"
            raise ValueError(f"{folder} is no reward model that gives one number: it lacks {lacking}; export it again")
        on = device or ("cuda" if torch.cuda.is_available() else "cpu")
        return cls(
            model=cast(PreTrainedModel, model.to(on).eval()),
            tokenizer=tokenizer,
            max_length=context_length(model.config) or sys.maxsize,
        )

    def of(self, conversations: Sequence[Answered]) -> Iterator[tuple[int, Reward]]:
        """A reward each, under the chat template that the model was trained with: its place among them, and the reward.

        They come in any order, each as soon as it is there. A response that leaves the context is cut from the right,
        as `data.overlong=cut` does in training.

        Raises:
            EngineError: the template refuses a conversation, a prompt leaves no room for a response, or the model
                gives no finite number.
        """
        special = self._special()
        readable = [place for place, each in enumerate(conversations) if not special.search(each.response)]
        yield from ((place, Reward(None)) for place in {*range(len(conversations))} - {*readable})
        paths = self._encode([conversations[place] for place in readable])
        for index, value in self.of_tokens([path[: self.max_length] for path in paths]):
            yield readable[index], Reward(value, cut=len(paths[index]) > self.max_length)

    def of_tokens(self, paths: Sequence[Sequence[int]]) -> Iterator[tuple[int, float]]:
        """The reward of each path of prompt and response, read at its last token, the head in fp32; as `of`.

        Raises:
            EngineError: a path is longer than the context, or its reward is not finite.
        """
        longest = max(map(len, paths), default=0)
        if longest > self.max_length:
            raise EngineError(
                f"a conversation has {longest} tokens, and the reward model reads {self.max_length}; lower the limit on"
                f" its length (task.data.max_length={self.max_length}), or use a model with more positions"
            )
        with tqdm(total=len(paths), desc="reward", unit="response", disable=None) as bar:
            for members in _batches([len(path) for path in paths], self.batch_tokens):
                values = self._forward([paths[place] for place in members]).tolist()
                if not all(map(math.isfinite, values)):
                    raise EngineError("the reward model gives no finite number; export its weights again")
                bar.update(len(members))
                yield from zip(members, values, strict=True)

    @torch.no_grad()
    def _forward(self, paths: Sequence[Sequence[int]]) -> Tensor:
        """[paths], in fp32. Padding stands behind what is read, and is masked."""
        width, device = max(map(len, paths)), self.model.device
        input_ids = torch.tensor([[*path, *[0] * (width - len(path))] for path in paths], device=device)
        lengths = torch.tensor([len(path) for path in paths], device=device)
        attention_mask = (torch.arange(width, device=device) < lengths[:, None]).long()
        backbone = cast(nn.Module, self.model.base_model)
        hidden = backbone(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).last_hidden_state
        last = hidden[torch.arange(len(paths), device=device), lengths - 1]
        # In bf16 the head would give many responses of a prompt the same reward.
        return linear(last.float(), cast(nn.Linear, self.model.score).weight.float())[:, 0]

    def _encode(self, conversations: Sequence[Answered]) -> list[array[int]]:
        """The tokens of each conversation with its answer."""
        paths: list[array[int]] = []
        for begin in range(0, len(conversations), AT_ONCE):
            part = conversations[begin : begin + AT_ONCE]
            paths += tokens_of(self.tokenizer, [self._rendered(each, answered=True) for each in part])
        for each, path in zip(conversations, paths, strict=True):
            if len(path) <= self.max_length:
                continue
            (prompt,) = tokens_of(self.tokenizer, [self._rendered(each, answered=False)])
            if len(prompt) >= self.max_length:
                raise EngineError(
                    f"prompt {each.id!r} has {len(prompt)} tokens, and the reward model reads {self.max_length}: there"
                    " is no room for a response; shorten its system message or instruction"
                )
        return paths

    def _rendered(self, each: Answered, *, answered: bool) -> str:
        """The bytes of a prompt, or of the prompt with its answer."""
        messages = [*each.messages, *([{"role": "assistant", "content": each.response}] if answered else [])]
        try:
            text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=not answered)
        except TemplateError as error:
            raise EngineError(f"the reward model's chat template refuses prompt {each.id!r}: {error}") from error
        return cast(str, text)

    def _special(self) -> re.Pattern[str]:
        """Whatever begins or ends a turn."""
        return re.compile("|".join(map(re.escape, special_tokens(self.tokenizer))) or r"(?!)")  # without any, nothing


def _batches(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Places of paths of similar length, the shortest first; of at most so many tokens once they are padded."""
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda place: lengths[place]):
        if batch and lengths[place] * (len(batch) + 1) > most:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch
