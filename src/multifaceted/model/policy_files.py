"""Where a policy's files are: what `policy=` means, and which models are none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from multifaceted.model.export import folder_fingerprint
from multifaceted.model.folder import check_model_folder, is_hub_id, refuse_reward_model
from multifaceted.model.weights import WEIGHTS

HUB_FILES = [WEIGHTS, "*.json", "*.jinja", "*.model", "*.txt"]
"""What is read of a model on the hub: weights, configs, tokenizer and template; no code, and no pickles."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicyFiles:
    """A policy's files on this machine.

    Attributes:
        folder: where they are.
        snapshot: `<owner>/<name>@<commit>` of what is on the hub; None for a folder of one's own.
    """

    folder: Path
    snapshot: str | None = None

    def fingerprint(self) -> str:
        """What stands for their content: a hash of a folder; on the hub the commit, for which no 14 GB are read."""
        return self.snapshot or folder_fingerprint(self.folder)


def resolve_policy(name: str) -> PolicyFiles:
    """The files of a folder, or of a model on the hub, which are downloaded once into its cache.

    Raises:
        ValueError: there are none, or they hold no model that writes text; says how to get one.
    """
    found = located(name)
    try:
        config = check_model_folder(found.folder)
    except ValueError as error:
        if found.snapshot is None:
            raise
        raise ValueError(f"{name} is not here as a whole: {error}. {_how_to_fetch(name)}") from error
    refuse_what_cannot_write(name, config)
    return found


def located(name: str) -> PolicyFiles:
    """A folder of one's own, or a model on the hub, which is downloaded once into its cache.

    Raises:
        ValueError: the hub's model cannot be had; says how to get it.
    """
    if not is_hub_id(name):
        return PolicyFiles(folder=Path(name))
    repository, _, revision = name.partition("@")
    try:
        folder = Path(snapshot_download(repository, revision=revision or None, allow_patterns=HUB_FILES))
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"{name} is no folder here, and the hub's model of that name cannot be had: {reason} {_how_to_fetch(name)}"
        ) from error
    return PolicyFiles(folder=folder, snapshot=f"{repository}@{folder.name}")


def refuse_what_cannot_write(name: str, config: Mapping[str, Any]) -> None:
    """Refuse a model that transformers does not load as a decoder: no code that a model brings is run.

    Args:
        config: what is in its `config.json`.

    Raises:
        ValueError: it is a reward model, an encoder, an encoder with a decoder, or of an unknown architecture.
    """
    architectures = config.get("architectures") or ()
    refuse_reward_model(name, architectures)
    model_type, decoders = config.get("model_type"), set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())
    known = model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and (not architectures or decoders & {*architectures})
    if config.get("is_encoder_decoder") or not known:
        raise ValueError(
            f"{name} is a {' or '.join(architectures) or 'model'} (model_type {model_type!r}), which transformers does"
            " not load as a decoder that writes text. If a server can run it, let that answer: engine=server"
        )


def _how_to_fetch(name: str) -> str:
    repository, _, revision = name.partition("@")
    at = f" --revision {revision}" if revision else ""
    return (
        f"Fetch it where there is a network, without HF_HUB_OFFLINE: hf download {repository}{at} (a gated one after"
        " hf auth login). Weights in pickles are not read"
    )
