"""Where a model and its tokenizer come from: from scratch, or from a folder or hub name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from huggingface_hub import snapshot_download
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from multifaceted.model.adapter_files import Base
from multifaceted.model.attention import TREE_ATTENTION, refuse_unservable
from multifaceted.model.folder import is_reward_model, refuse_reward_model
from multifaceted.model.sharded import fill_from_folder, initialise_head
from multifaceted.model.tokenizer import padding_id, train_tokenizer
from multifaceted.model.weights import WEIGHTS, hash_files


class Dtype(StrEnum):
    """Type of the weights in memory."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"

    @property
    def torch(self) -> torch.dtype:
        """The same as torch spells it."""
        return cast(torch.dtype, getattr(torch, self.value))


class Scale(StrEnum):
    """Which settings suit a model: those of a small one from scratch, or those of a pretrained one."""

    MINI = "mini"
    PRETRAINED = "pretrained"


class ModelSource:
    """A model to start from. Subclasses are dataclasses."""

    scale: ClassVar[Scale]

    def load_tokenizer(self, texts: Iterable[str]) -> PreTrainedTokenizerBase:
        """The tokenizer; `texts` serves sources that train one."""
        raise NotImplementedError

    def load_model(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        reward: bool,
        max_length: int,
        empty: bool = False,
        four_bit: bool = False,
    ) -> PreTrainedModel:
        """The model with tree attention, on CPU; with a scalar head in place of the language-model head if `reward`.

        Args:
            empty: leave weights that must be read on the meta device, for `fill` once they are sharded.
            four_bit: keep the linear layers but the head in 4 bits, on the GPU if there is one.

        Raises:
            ValueError: its attention cannot serve trees.
        """
        raise NotImplementedError

    def fill(self, model: PreTrainedModel) -> None:
        """Read the weights of an `empty` model in place, each rank its shards."""

    def base(self) -> Base:
        """What an adapter of this model is added to: weights that a file holds."""
        raise NotImplementedError


@dataclass(kw_only=True, slots=True)
class ScratchModel(ModelSource):
    """Random weights of a Hugging Face architecture, and a byte-level BPE trained on the collection.

    Attributes:
        architecture: transformers' model type, such as "mistral", "llama" or "qwen2".
        config: arguments of that architecture's config; the vocabulary size comes from the tokenizer.
        vocab_size: most tokens that the BPE may have.
    """

    architecture: str
    config: dict[str, Any] = field(default_factory=dict)
    vocab_size: int = 2048
    dtype: Dtype = Dtype.FLOAT32

    scale = Scale.MINI

    def load_tokenizer(self, texts: Iterable[str]) -> PreTrainedTokenizerBase:
        """Train the BPE on `texts`."""
        return train_tokenizer(texts, self.vocab_size)

    def load_model(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        reward: bool,
        max_length: int,
        empty: bool = False,
        four_bit: bool = False,
    ) -> PreTrainedModel:
        """Initialise the weights from torch's current random state; 4 bits are for weights that are read."""
        known = AutoConfig.for_model(self.architecture)
        for key, value in self.config.items():
            if not hasattr(known, key):
                raise ValueError(
                    f"unknown key model.config.{key} (value {value!r}): {self.architecture} has no such setting"
                )
        config = AutoConfig.for_model(
            self.architecture,
            vocab_size=len(tokenizer),
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=padding_id(tokenizer),
            **self.config,
            **({"num_labels": 1} if reward else {}),
        )
        refuse_unservable(config, max_length)
        kind = AutoModelForSequenceClassification if reward else AutoModelForCausalLM
        return cast(
            PreTrainedModel, kind.from_config(config, dtype=self.dtype.torch, attn_implementation=TREE_ATTENTION)
        )


@dataclass(kw_only=True, slots=True)
class PretrainedModel(ModelSource):
    """Weights and tokenizer from a folder or from the hub.

    Attributes:
        name: a folder, or a hub name such as "mistral-community/Mistral-7B-v0.2".
        trust_remote_code: run code that comes with the model. Leave it off unless you read that code.
    """

    name: str
    revision: str | None = None
    dtype: Dtype = Dtype.BFLOAT16
    trust_remote_code: bool = False

    scale = Scale.PRETRAINED

    def load_tokenizer(self, texts: Iterable[str]) -> PreTrainedTokenizerBase:
        """Load the tokenizer; `texts` is not used."""
        settings = {"revision": self.revision, "trust_remote_code": self.trust_remote_code}
        with self._named():
            return cast(PreTrainedTokenizerBase, AutoTokenizer.from_pretrained(self.name, **settings))

    def load_model(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        reward: bool,
        max_length: int,
        empty: bool = False,
        four_bit: bool = False,
    ) -> PreTrainedModel:
        """Load safetensors weights; anything pickled is refused."""
        shared = {"revision": self.revision, "trust_remote_code": self.trust_remote_code}
        as_reward = {"num_labels": 1, "pad_token_id": padding_id(tokenizer)} if reward else {}
        with self._named():
            config = AutoConfig.from_pretrained(self.name, **shared, **as_reward)
        refuse_unservable(config, max_length)
        if not reward:
            refuse_reward_model(self.name, config.architectures)
        kind = AutoModelForSequenceClassification if reward else AutoModelForCausalLM
        settings = {"dtype": self.dtype.torch, "attn_implementation": TREE_ATTENTION}
        if empty:
            with torch.device("meta"):
                trusted = {"trust_remote_code": self.trust_remote_code}
                return cast(PreTrainedModel, kind.from_config(config, **settings, **trusted))
        if four_bit:
            settings["quantization_config"] = four_bit_weights(self.dtype)
        model = kind.from_pretrained(self.name, config=config, use_safetensors=True, **settings, **shared)
        if reward and not is_reward_model(config.architectures):
            initialise_head(model)
        return cast(PreTrainedModel, model)

    def fill(self, model: PreTrainedModel) -> None:
        """Read the shards of the files that this rank holds."""
        fill_from_folder(model, self._folder())

    def base(self) -> Base:
        """What an adapter of this model is added to. Reads the files once."""
        files = sorted(self._folder().glob(WEIGHTS))
        return Base(name=self.name, revision=self.revision, fingerprint=hash_files(*files))

    def _folder(self) -> Path:
        """Where the files are; the hub's are downloaded once a node."""
        if Path(self.name).is_dir():
            return Path(self.name)
        with self._named():
            return Path(snapshot_download(self.name, revision=self.revision, allow_patterns=[WEIGHTS, "*.json"]))

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Around what may ask the hub."""
        try:
            yield
        except OSError as error:
            reason = str(error).strip().splitlines()[0]
            revision = f" --revision {self.revision}" if self.revision else ""
            raise ValueError(
                f"the model {self.name} cannot be had: {reason} Or name a folder you have: where there is a network,"
                f" hf download {self.name}{revision} --local-dir FOLDER; here, model.name=FOLDER (or start=FOLDER)"
            ) from error


def decoder_layers(model: PreTrainedModel) -> list[nn.Module]:
    """The layers that a model repeats, as transformers names them: each is checkpointed, compiled and sharded alone."""
    kinds = set(model._no_split_modules or ())
    return [module for module in model.modules() if type(module).__name__ in kinds]


def four_bit_weights(dtype: Dtype) -> BitsAndBytesConfig:
    """4-bit NormalFloat with its constants quantised as well (Dettmers et al. 2023, section 3); heads stay whole."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype.torch,
        llm_int8_skip_modules=["lm_head", "score"],
    )
