"""Log-likelihoods of texts under a causal language model: sums of log-probabilities of tokens, natural logarithm.

What is scored follows either raw text, without a chat template and behind the tokenizer's BOS where it has one, or a
conversation as the model's chat template renders it.

**Where a text begins.** Context and text are tokenized as one, as the model saw texts in training, and the text has
the tokens after those of the context. Where a token would lie across the boundary there is no such division, and each
is tokenized alone: that is what a model meets that generates after the context. How often is logged. A SentencePiece
tokenizer then begins the text with a blank of its own.

**Precision.** Logits are of the weights' type, the softmax and the sum in fp32. With weights in fp32 a value is the
same to 1e-4 in whatever batch, order or padding. With weights in bf16 the model's own products are rounded to 8 bits,
in another way in another batch.
"""

from __future__ import annotations

import json
import logging
import math
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from jinja2 import TemplateError
from torch import Tensor
from tqdm import tqdm
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from multifaceted.inference.loading import model_and_tokenizer
from multifaceted.inference.rendering import rendered, tokens_of
from multifaceted.inference.requests import EngineError, Request, in_user_turn, named
from multifaceted.model.context import context_length
from multifaceted.model.policy_files import refuse_what_cannot_write
from multifaceted.records import Likelihood
from multifaceted.template import render_answered, set_template

log = logging.getLogger(__name__)

LOGITS = {"cpu": 2**22, "cuda": 2**28}
"""Logits of a pass at most: its largest tensor by far bounds the batch. 16 MiB in fp32 stay near a CPU, and 1 GiB fills
a GPU."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Passage:
    """A text whose likelihood is asked for.

    Attributes:
        id: unique among those that are asked for together.
        text: what is scored; an empty one has no tokens and the log-likelihood 0.
        context: raw text before it. Without any, BOS is before it, or EOS where there is no BOS.
        messages: a conversation to which `text` is the answer, instead of `context`. The end of the answer's turn is
            not scored.
    """

    id: str
    text: str
    context: str = ""
    messages: Sequence[dict[str, str]] = ()


class _Encoded(NamedTuple):
    """Tokens of context and text, and how many of them are the context's."""

    ids: array[int]
    begin: int


@dataclass(frozen=True, kw_only=True, slots=True)
class LikelihoodModel:
    """A causal language model that is asked how likely texts are.

    Attributes:
        system_in_user: put the system message of a conversation into its first user turn.
        most_logits: of a pass; bounds the rows of a batch. By default what suits the device.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    system_in_user: bool = False
    most_logits: int | None = None

    @classmethod
    def load(
        cls, folder: Path, device: str | None = None, template: str | None = None, *, system_in_user: bool = False
    ) -> LikelihoodModel:
        """A model from its folder.

        Args:
            template: one of ours in place of the chat template that the model brings, or lacks.

        Raises:
            ValueError: it is a reward model, an encoder or the like, or the template is not for its tokenizer.
        """
        refuse_what_cannot_write(str(folder), json.loads((folder / "config.json").read_text(encoding="utf-8")))
        model, tokenizer = model_and_tokenizer(AutoModelForCausalLM, folder, device)
        if template is not None:
            set_template(tokenizer, template, key="engine.template")
        return cls(model=model, tokenizer=tokenizer, system_in_user=system_in_user)

    def score(self, passages: Sequence[Passage]) -> Iterator[Likelihood]:
        """Of every passage the log-likelihood and the number of tokens, batch by batch, the longest first.

        Raises:
            EngineError: before anything is computed, a passage that is longer than the model's context, or that the
                chat template refuses; or a log-likelihood that is no finite number.
        """
        encoded = self._encode(passages)
        # The longest first: if memory does not suffice, that is known at once.
        most = self.most_logits or LOGITS.get(self.model.device.type, LOGITS["cuda"])
        order = sorted(range(len(passages)), key=lambda place: -len(encoded[place].ids))
        with tqdm(total=len(passages), desc="likelihood", unit="text", disable=None) as bar:
            while order:
                width = max(1, len(encoded[order[0]].ids))
                rows = max(1, most // (width * self.model.config.get_text_config().vocab_size))
                batch, order = order[:rows], order[rows:]
                for place, logp in zip(batch, self._logps([encoded[place] for place in batch]), strict=True):
                    passage, (ids, begin) = passages[place], encoded[place]
                    if not math.isfinite(logp):
                        raise EngineError(
                            f"the log-likelihood of {passage.id!r} is {logp}; the weights are damaged, or their type is"
                            " too narrow"
                        )
                    yield Likelihood(id=passage.id, logp=logp, tokens=len(ids) - begin)
                bar.update(len(batch))

    @torch.no_grad()
    def _logps(self, batch: Sequence[_Encoded]) -> list[float]:
        """Sums of the log-probabilities of what follows each context. Nothing sees the padding, on the right."""
        width, device = max(len(ids) for ids, _ in batch), self.model.device
        if width == 0:
            return [0.0] * len(batch)
        input_ids = torch.tensor([[*ids, *[0] * (width - len(ids))] for ids, _ in batch], device=device)
        mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in batch], device=device)
        logits: Tensor = self.model(input_ids=input_ids, attention_mask=mask, use_cache=False).logits
        sums = []
        for row, (ids, begin) in enumerate(batch):
            logps = logits[row, begin - 1 : len(ids) - 1].float().log_softmax(-1)
            sums.append(logps.gather(1, input_ids[row, begin : len(ids), None]).sum())
        values: list[float] = torch.stack(sums).tolist()
        return values

    def _encode(self, passages: Sequence[Passage]) -> list[_Encoded]:
        rendered = [self._rendered(passage) for passage in passages]
        contexts = tokens_of(self.tokenizer, [context for context, _ in rendered])
        wholes = tokens_of(self.tokenizer, [context + text for context, text in rendered])
        divided = [whole[: len(context)] == context for context, whole in zip(contexts, wholes, strict=True)]
        across = [place for place, is_divided in enumerate(divided) if not is_divided]
        alone = dict(zip(across, tokens_of(self.tokenizer, [rendered[place][1] for place in across]), strict=True))
        if across:
            log.warning(
                "%s of %s texts would share a token with their context, which are then tokenized alone: %s",
                *(len(across), len(passages), named([passages[place].id for place in across], most=3)),
            )
        encoded = []
        for place, (passage, context, whole) in enumerate(zip(passages, contexts, wholes, strict=True)):
            ids = context + alone[place] if place in alone else whole
            prefix = array("i", [] if passage.messages else self._prefix(passage))
            encoded.append(_Encoded(prefix + ids, len(prefix) + len(context)))
        self._check(passages, encoded)
        return encoded

    def _prefix(self, passage: Passage) -> list[int]:
        """BOS; where a tokenizer has none, EOS before a text that nothing precedes, which ends whatever was before."""
        bos, eos = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        if bos is not None:
            return [int(bos)]
        if passage.context:
            return []
        if eos is None:
            raise EngineError("the tokenizer has neither BOS nor EOS, so a text's first token has no probability")
        return [int(eos)]

    def _rendered(self, passage: Passage) -> tuple[str, str]:
        """The bytes of the context and of what is scored."""
        if not passage.messages or not passage.text:
            return passage.context, passage.text
        if not self.tokenizer.chat_template:
            raise EngineError(f"the model has no chat template, so there is no telling how to put {passage.id!r} to it")
        messages = in_user_turn(passage.messages) if self.system_in_user else list(passage.messages)
        asked = Request(id=passage.id, messages=messages)
        prompt = rendered(self.tokenizer, asked, system_in_user=False)
        try:
            whole = render_answered(self.tokenizer, [messages], [passage.text])[0]
        except TemplateError as error:
            raise EngineError(f"the model's chat template refuses {passage.id!r}: {error}") from error
        begin = whole.find(passage.text, len(prompt))
        if not whole.startswith(prompt) or begin < 0 or whole[len(prompt) : begin].strip():
            raise EngineError(
                f"the model's chat template does not show the answer of {passage.id!r} as it is behind the prompt"
            )
        return prompt, whole[len(prompt) : begin + len(passage.text)]

    def _check(self, passages: Sequence[Passage], encoded: Sequence[_Encoded]) -> None:
        most = context_length(self.model.config)
        for passage, (ids, begin) in zip(passages, encoded, strict=True):
            if most is not None and len(ids) > most:
                raise EngineError(
                    f"{passage.id!r} has {len(ids)} tokens, {begin} of them before the text, and the model's context is"
                    f" {most}; shorten it, or leave it out"
                )
            if begin == 0 and ids:
                raise EngineError(f"nothing is before {passage.id!r}, so its first token has no probability")
