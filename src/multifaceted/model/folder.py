"""Folders that hold a model: what `start=` means, and what is in one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from multifaceted.records import POLICY, REWARD_MODEL


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


def _pickles(folder: Path) -> str:
    names = sorted(path.name for path in folder.glob("pytorch_model*.bin"))
    if not names:
        return ""
    return (
        f"; {names[0]} is a pickle, which can run any code and is not read. If you trust who made it, convert it once:"
        " AutoModelForCausalLM.from_pretrained(folder, use_safetensors=False).save_pretrained(folder)"
    )
