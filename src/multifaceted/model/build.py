"""Where a model and its tokenizer come from: from scratch, or from a folder or hub name."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from multifaceted.model.attention import TREE_ATTENTION, refuse_unservable
from multifaceted.model.sharded import fill_from_folder, initialise_head
from multifaceted.model.tokenizer import padding_id, train_tokenizer
from multifaceted.records import POLICY, REWARD_MODEL


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
        self, tokenizer: PreTrainedTokenizerBase, *, reward: bool, max_length: int, empty: bool = False
    ) -> PreTrainedModel:
        """The model with tree attention, on CPU; with a scalar head in place of the language-model head if `reward`.

        Args:
            empty: leave weights that must be read on the meta device, for `fill` once they are sharded.

        Raises:
            ValueError: its attention cannot serve trees.
        """
        raise NotImplementedError

    def fill(self, model: PreTrainedModel) -> None:
        """Read the weights of an `empty` model in place, each rank its shards."""


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
        self, tokenizer: PreTrainedTokenizerBase, *, reward: bool, max_length: int, empty: bool = False
    ) -> PreTrainedModel:
        """Initialise the weights from torch's current random state."""
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
        return cast(
            PreTrainedTokenizerBase,
            AutoTokenizer.from_pretrained(self.name, revision=self.revision, trust_remote_code=self.trust_remote_code),
        )

    def load_model(
        self, tokenizer: PreTrainedTokenizerBase, *, reward: bool, max_length: int, empty: bool = False
    ) -> PreTrainedModel:
        """Load safetensors weights; anything pickled is refused."""
        shared = {"revision": self.revision, "trust_remote_code": self.trust_remote_code}
        as_reward = {"num_labels": 1, "pad_token_id": padding_id(tokenizer)} if reward else {}
        config = AutoConfig.from_pretrained(self.name, **shared, **as_reward)
        refuse_unservable(config, max_length)
        if not reward:
            refuse_reward_model(self.name, config.architectures)
        kind = AutoModelForSequenceClassification if reward else AutoModelForCausalLM
        settings = {"dtype": self.dtype.torch, "attn_implementation": TREE_ATTENTION}
        if empty:
            with torch.device("meta"):
                return cast(PreTrainedModel, kind.from_config(config, **settings))
        model = kind.from_pretrained(self.name, config=config, use_safetensors=True, **settings, **shared)
        if reward and not is_reward_model(config.architectures):
            initialise_head(model)
        return cast(PreTrainedModel, model)

    def fill(self, model: PreTrainedModel) -> None:
        """Read the shards of the files that this rank holds; the hub's are downloaded once a node."""
        patterns = ["*.safetensors", "*.json"]
        is_folder = Path(self.name).is_dir()
        folder = (
            self.name if is_folder else snapshot_download(self.name, revision=self.revision, allow_patterns=patterns)
        )
        fill_from_folder(model, Path(folder))


def is_reward_model(architectures: Sequence[str] | None) -> bool:
    """Whether a config's `architectures` name a model with a scalar head."""
    return any(kind.endswith("ForSequenceClassification") for kind in architectures or ())


def refuse_reward_model(name: str, architectures: Sequence[str] | None) -> None:
    """Refuse to read a reward model as a policy: its language-model head would be random.

    Raises:
        ValueError: the model has a scalar head.
    """
    if is_reward_model(architectures):
        raise ValueError(f"{name} is a reward model ({architectures}); it scores text and cannot write it")


def resolve_start(start: str) -> str:
    """The folder or hub name that `start=` means: a run's `policy/` or `reward_model/`, a model folder, or a hub name.

    Raises:
        ValueError: a local path that holds no model.
    """
    path = Path(start)
    for folder in (path / POLICY, path / REWARD_MODEL, path):
        if (folder / "config.json").exists():
            check_model_folder(folder)
            return str(folder)
    is_hub_name = (
        start.count("/") == 1 and not path.exists() and not start.startswith((".", "/", "outputs/", "multirun/"))
    )
    if is_hub_name:
        return start
    state = "exists but holds no model" if path.exists() else "does not exist"
    raise ValueError(
        f"start={start!r}: {path} {state}. It must be a run folder with {POLICY}/ or {REWARD_MODEL}/, a folder with"
        " config.json and model.safetensors, or a hub name. Train the earlier stage first, for example:"
        " python train.py +experiment=sft"
    )


def check_model_folder(folder: Path) -> dict[str, Any]:
    """The model config in `folder`, after checking that what `from_pretrained` needs is there.

    Raises:
        ValueError: the folder is not a model; names what is missing.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder; expected one written by train.py, such as outputs/orpo/policy")
    required = ("config.json", "tokenizer.json")
    missing = [name for name in required if not (folder / name).exists()]
    shards = list(folder.glob("*.safetensors"))
    if not shards:
        missing.append("*.safetensors")
    if missing:
        raise ValueError(f"{folder} is not a policy folder: it lacks {', '.join(missing)}{_pickles(folder)}")
    for shard in shards:
        try:
            safe_open(shard, framework="pt")
        except SafetensorError as error:
            raise ValueError(
                f"{shard} is not a safetensors file ({error}); export or download {folder} again"
            ) from None
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return config


def _pickles(folder: Path) -> str:
    names = sorted(path.name for path in folder.glob("pytorch_model*.bin"))
    if not names:
        return ""
    return (
        f"; {names[0]} is a pickle, which can run any code and is not read. If you trust who made it, convert it once:"
        " AutoModelForCausalLM.from_pretrained(folder, use_safetensors=False).save_pretrained(folder)"
    )
