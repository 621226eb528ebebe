"""The run folder: new, unfinished, finished, or one that now means something else."""

from __future__ import annotations

import shutil
from enum import StrEnum
from pathlib import Path
from typing import Any

import yaml

from multifaceted.record_files import put_in_place
from multifaceted.records import CHECKPOINTS, CONFIG, SUMMARY, WITHOUT_MEANING


class RunFolderError(ValueError):
    """A run folder that cannot be used."""


class State(StrEnum):
    """What a run folder holds."""

    NEW = "new"
    UNFINISHED = "unfinished"
    FINISHED = "finished"


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Dotted keys in which two plain configs differ, each with both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted({*old, *new})
        missing = "(unset)"
        return [
            line
            for key in keys
            for line in differences(old.get(key, missing), new.get(key, missing), f"{path}.{key}" if path else key)
        ]
    return [] if old == new else [f"{path}: {old!r} -> {new!r}"]


def open_run_folder(folder: Path, config: dict[str, Any], *, overwrite: bool) -> State:
    """Create or reopen a run folder, and write `config` into it.

    Raises:
        RunFolderError: the folder belongs to a run with another config, or cannot be written.
    """
    written = folder / CONFIG
    discarded = folder.with_name(f".{folder.name}.deleted")
    shutil.rmtree(discarded, ignore_errors=True)  # what a deletion that was cut off has left
    if overwrite and written.exists():
        folder.rename(discarded)
        shutil.rmtree(discarded)
    if not written.exists() and any((folder / CHECKPOINTS).glob("step-*")):
        raise RunFolderError(
            f"{folder} holds checkpoints but no {CONFIG}, so nothing says which run they belong to; restore that file,"
            f" or delete {folder / CHECKPOINTS} to start anew"
        )
    state = State.NEW
    if written.exists():
        changed = differences(_meaning(_read(written)), _meaning(config))
        if changed:
            raise RunFolderError(
                f"{folder} holds a run of the same name with another config:\n  "
                + "\n  ".join(changed)
                + "\nRestore these values, name the change on the command line, or start anew with overwrite=true"
            )
        if (folder / SUMMARY).exists():
            return State.FINISHED
        state = State.UNFINISHED
    try:
        (folder / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
        partial = folder / f".{CONFIG}.partial"
        partial.write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), encoding="utf-8")
        put_in_place(partial, written)
    except OSError as error:
        raise RunFolderError(
            f"cannot write the run folder {folder}: {error}; choose another with paths.outputs=..."
        ) from error
    return state


def _read(written: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(written.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        config = str(error).splitlines()[0]
    if not isinstance(config, dict):
        raise RunFolderError(f"{written} is broken ({config}); restore it, or start anew with overwrite=true")
    return config


def require_space(folder: Path, num_bytes: int) -> None:
    """Refuse a run whose checkpoints and export would not fit on the disk.

    Raises:
        RunFolderError: names what is needed and what is free.
    """
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        raise RunFolderError(
            f"{folder} has {free / 1e9:.2f} GB free; this run writes about {num_bytes / 1e9:.2f} GB (two checkpoints"
            " and the exported model). Free some space or choose another disk with paths.outputs=..."
        )


def _meaning(config: dict[str, Any]) -> dict[str, Any]:
    """`config` without the keys that have none."""
    meaning = {key: dict(value) if isinstance(value, dict) else value for key, value in config.items()}
    for dotted in WITHOUT_MEANING:
        first, _, second = dotted.partition(".")
        if second:
            meaning.get(first, {}).pop(second, None)
        else:
            meaning.pop(first, None)
    return meaning
