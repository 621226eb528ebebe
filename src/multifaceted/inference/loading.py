"""Models beside the policy, such as a classifier: from a folder or the hub, safetensors only, no code of theirs run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from multifaceted.inference.requests import EngineError, named
from multifaceted.model.policy_files import located
from multifaceted.model.weights import WEIGHTS


def model_folder(name: str, setting: str) -> Path:
    """Where a model's files are; those of the hub are downloaded once. Reads no weights.

    Args:
        name: a folder or a hub id.
        setting: what names it on the command line, for messages.

    Raises:
        EngineError: it cannot be had, is no model, or has weights only as a pickle.
    """
    try:
        folder = located(name).folder
    except ValueError as error:
        raise EngineError(f"{setting}: {error}. Or name a folder you have: {setting}=FOLDER") from error
    if not folder.is_dir():
        raise EngineError(f"{setting}={name} is no folder here, and no name of the hub")
    missing = [pattern for pattern in ("config.json", WEIGHTS) if not any(folder.glob(pattern))]
    if missing:
        raise EngineError(
            f"{setting}={name} is no model that can be read: it lacks {', '.join(missing)}. Weights are read from"
            " safetensors only; a pickle, which can run any code, is converted once by whoever trusts it, with"
            " from_pretrained(folder, use_safetensors=False).save_pretrained(folder)"
        )
    return folder


def model_and_tokenizer(
    kind: Any, folder: Path, device: str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model, ready to be asked, and its tokenizer.

    Args:
        kind: transformers' class for such a model, as `AutoModelForCausalLM`.
        device: by default the GPU where there is one.

    Raises:
        EngineError: see `whole_model`.
    """
    return whole_model(kind, folder, device), AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


def whole_model(kind: Any, folder: Path, device: str | None = None) -> PreTrainedModel:
    """A model all of whose weights are in its folder, ready to be asked; as `model_and_tokenizer`.

    Raises:
        EngineError: some are not there; transformers would draw them at random.
    """
    settings = {"use_safetensors": True, "trust_remote_code": False}
    model, found = kind.from_pretrained(folder, output_loading_info=True, **settings)
    if lacking := sorted(found["missing_keys"]):
        raise EngineError(
            f"{folder} lacks weights of a {type(model).__name__}, which would be random: {named(lacking, most=3)};"
            " export or download it again, or name a model of this kind"
        )
    return cast(PreTrainedModel, model.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval())
