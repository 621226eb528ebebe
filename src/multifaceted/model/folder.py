"""Folders that hold a model: what `start=` means, and what is in one."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from multifaceted.records import POLICY, REWARD_MODEL

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
"""`<owner>/<name>`, where that matters with `@<branch, tag or commit>`."""
LOCAL = (".", "/", "outputs/", "multirun/")
"""How a path begins that is never a hub id."""
INDEX = "model.safetensors.index.json"
"""Says which files hold the weights, where these are several."""


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


def refuse_policy(name: str, architectures: Sequence[str] | None) -> None:
    """Refuse to read a policy as a reward model: its scalar head would be random.

    Raises:
        ValueError: the model has no scalar head.
    """
    if not is_reward_model(architectures):
        raise ValueError(
            f"{name} is no reward model ({architectures}): it writes text and scores none. Name one that"
            " `python train.py +experiment=reward_model` exported, such as outputs/reward_model/reward_model"
        )


def is_hub_id(name: str) -> bool:
    """Whether a name has the form of a hub id and is not a path: nothing of that name is here.

    A path that ends in `policy` or `reward_model` is meant for a folder, also where it does not exist.

    >>> is_hub_id("kaist-ai/janus-7b"), is_hub_id("kaist-ai/janus-7b@main"), is_hub_id("sft/policy")
    (True, True, False)
    """
    local = name.startswith(LOCAL) or name.endswith((f"/{POLICY}", f"/{REWARD_MODEL}")) or Path(name).exists()
    return HUB_ID.fullmatch(name) is not None and not local


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
    if is_hub_id(start):
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
    missing += [] if shards else ["*.safetensors"]
    missing += _unfetched(folder)
    if missing:
        inside = next((name for name in (POLICY, REWARD_MODEL) if (folder / name).is_dir()), None)
        hint = f"; did you mean {folder / inside}?" if inside else _pickles(folder)
        raise ValueError(f"{folder} is not a policy folder: it lacks {', '.join(missing)}{hint}")
    for shard in shards:
        try:
            safe_open(shard, framework="pt")
        except SafetensorError as error:
            raise ValueError(
                f"{shard} is not a safetensors file ({error}); export or download {folder} again"
            ) from None
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return config


def _unfetched(folder: Path) -> list[str]:
    """Weights that an index names and that are not there: a download that was broken off."""
    index = folder / INDEX
    if not index.exists():
        return []
    named = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
    return sorted(name for name in set(named) if not (folder / name).exists())


def _pickles(folder: Path) -> str:
    names = sorted(path.name for path in folder.glob("pytorch_model*.bin"))
    if not names:
        return ""
    return (
        f"; {names[0]} is a pickle, which can run any code and is not read. If you trust who made it, convert it once:"
        " AutoModelForCausalLM.from_pretrained(folder, use_safetensors=False).save_pretrained(folder)"
    )
