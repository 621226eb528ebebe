"""A classifier of texts in this process, such as those of Detoxify (github.com/unitaryai/detoxify)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from multifaceted.inference.loading import model_and_tokenizer
from multifaceted.inference.requests import EngineError
from multifaceted.model.context import context_length

BATCH = 128
TOXICITY = ("toxicity", "toxic")
"""How classifiers spell the label; Detoxify's `unbiased` the first, its `original` the second."""


class Among(StrEnum):
    """Which labels a text can have."""

    ANY = "any"
    """Any number of them: each has a probability of its own, sigmoid."""
    ONE = "one"
    """Exactly one: softmax."""


def toxicity_label(folder: Path) -> int:
    """The place of the label of toxicity, whatever its case. Reads no weights.

    Raises:
        EngineError: the classifier has none.
    """
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    labels = {str(label).casefold(): place for place, label in config.id2label.items()}
    found = next((labels[label] for label in TOXICITY if label in labels), None)
    if found is None:
        raise EngineError(
            f"{folder} has no label {' or '.join(TOXICITY)}; it has {', '.join(labels)}. Name a classifier of toxicity,"
            " such as unitary/unbiased-toxic-roberta"
        )
    return int(found)


def among(config: PreTrainedConfig) -> Among:
    """What the config's `problem_type` says; without it, two labels exclude each other, and others do not."""
    if config.problem_type is None:
        return Among.ONE if config.num_labels == 2 else Among.ANY
    return Among.ONE if config.problem_type == "single_label_classification" else Among.ANY


@dataclass(frozen=True, kw_only=True, slots=True)
class Classifier:
    """Gives the probability of one label."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    label: int

    @classmethod
    def load(cls, folder: Path) -> Classifier:
        """A classifier of toxicity from its folder.

        Raises:
            EngineError: it has no such label.
        """
        label = toxicity_label(folder)
        model, tokenizer = model_and_tokenizer(AutoModelForSequenceClassification, folder)
        return cls(model=model, tokenizer=tokenizer, label=label)

    def probabilities(self, texts: Sequence[tuple[str, str]]) -> dict[str, float]:
        """The label's probability in each text, by id; sorted by length, padded on the right.

        Args:
            texts: id and text.

        Raises:
            EngineError: a text is longer than the classifier's context.
        """
        encoded = self._encode(texts)
        order = sorted(range(len(texts)), key=lambda place: -len(encoded[place]))
        found: dict[str, float] = {}
        with tqdm(total=len(texts), desc="classify", unit="text", disable=None) as bar:
            for first in range(0, len(order), BATCH):
                batch = order[first : first + BATCH]
                values = self._probabilities([encoded[place] for place in batch])
                found |= {texts[place][0]: value for place, value in zip(batch, values, strict=True)}
                bar.update(len(batch))
        return {name: found[name] for name, _ in texts}

    def _encode(self, texts: Sequence[tuple[str, str]]) -> list[list[int]]:
        if not texts:
            return []
        encoded: list[list[int]] = self.tokenizer([text for _, text in texts])["input_ids"]
        stated = context_length(self.model.config)
        most = min(self.tokenizer.model_max_length, stated or self.tokenizer.model_max_length)
        for (name, _), ids in zip(texts, encoded, strict=True):
            if len(ids) > most:
                raise EngineError(
                    f"{name!r} has {len(ids)} tokens, and the classifier's context is {most}; shorten the text"
                )
        return encoded

    @torch.no_grad()
    def _probabilities(self, batch: Sequence[list[int]]) -> list[float]:
        width, device, padding = max(map(len, batch)), self.model.device, self.tokenizer.pad_token_id or 0
        input_ids = torch.tensor([ids + [padding] * (width - len(ids)) for ids in batch], device=device)
        mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids in batch], device=device)
        logits: Tensor = self.model(input_ids=input_ids, attention_mask=mask).logits.float()
        shares = logits.softmax(-1) if among(self.model.config) is Among.ONE else logits.sigmoid()
        values: list[float] = shares[:, self.label].tolist()
        return values
