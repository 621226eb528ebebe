"""Data sets with splits: in memory, written by `save_to_disk`, or on the hub; all opened by `datasets`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
from datasets.exceptions import DatasetsError

from multifaceted.data.bad_rows import DataError
from multifaceted.data.reading import Table
from multifaceted.hub import NETWORK_ERRORS

SAVED = ("state.json", "dataset_dict.json")
"""Files that `save_to_disk` leaves in the folder of a data set, and of several splits."""
IN_MEMORY = "the data set in memory"
"""Its name in messages."""


def in_memory(rows: Any, key: str, split: str) -> Table:
    """Return the split that is meant of a data set in memory.

    Raises:
        DataError: it has no such split, or is a stream that repeats itself for ever.
    """
    if not hasattr(rows, "with_format"):
        raise DataError(f"{key} is a {type(rows).__name__}; expected a path, or a data set of datasets")
    if isinstance(rows, Mapping) and split not in rows:
        raise DataError(
            f"{key}: the data set in memory has no split {split!r}; its splits are {', '.join(rows)}. Take one of them:"
            f" dataset[{next(iter(rows), '')!r}]"
        )
    is_split = isinstance(rows, Mapping)
    name = f"{IN_MEMORY}, split {split}" if is_split else IN_MEMORY
    table = Table(name=name, rows=rows[split] if is_split else rows, is_file=False)
    source = getattr(table.rows, "_ex_iterable", None)
    while source is not None and type(source).__name__ != "TakeExamplesIterable":
        if type(source).__name__ == "RepeatExamplesIterable" and source.num_times is None:
            raise DataError(f"{key} is a stream that repeats itself for ever; say how often: dataset.repeat(1)")
        source = getattr(source, "ex_iterable", None)
    return table


def saved(path: Path) -> Any:
    """Return what `save_to_disk` wrote into a folder.

    Raises:
        DataError: another version of `datasets` wrote it, or it is damaged.
    """
    try:
        return datasets.load_from_disk(str(path))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException) as error:
        raise DataError(
            f"{path} was written by save_to_disk, and datasets {datasets.__version__} cannot read it:"
            f" {first_line(error)}. It is damaged or of another version: copy it again, or write it as Parquet:"
            " dataset.to_parquet(...)"
        ) from error


def on_hub(name: str, revision: str | None, subset: str | None, key: str) -> Any:
    """Return a data set of the hub, from the network or from the cache of an earlier download.

    Raises:
        DataError: there is none, it has no such revision or subset, or it is made by code of its own.
    """
    try:
        return datasets.load_dataset(name, subset, revision=revision)
    except NETWORK_ERRORS as error:
        reason = f"{first_line(error).rstrip('.')}. No file or folder here is called {name} either"
        raise cannot_be_had(name, key, reason, revision=revision) from error
    except (DatasetsError, ImportError, ValueError, RuntimeError, pa.ArrowException) as error:
        reason = first_line(error.__cause__ or error)
        if "scripts are no longer supported" in reason:
            raise DataError(
                f"{key}={name}: it is made by code of its own, which is not run. The hub's copy in Parquet may"
                f" be read instead: {key}=hf://datasets/{name}@refs/convert/parquet"
            ) from error
        if "Config name is missing" in reason or "BuilderConfig" in reason:
            choices = " ".join(str(error).split())
            raise DataError(f"{key}={name}: {choices} Name a subset: {key}={name}/<subset>") from error
        raise DataError(
            f"{key}={name}: datasets cannot read its files ({reason}). Read them row by row, with file and line:"
            f" {key}=hf://datasets/{name}"
        ) from error


def one_split(rows: Any, name: str, key: str, wanted: str | None, default: str) -> Table:
    """Return the split that is meant of several; a data set without splits is itself meant.

    Args:
        name: what the data set is called in messages.
        wanted: the split that the setting names.
        default: the one that is meant otherwise.

    Raises:
        DataError: there is no such split; names those that there are.
    """
    if not isinstance(rows, Mapping):
        if wanted not in (None, str(rows.split)):
            raise DataError(f"{key}={name}:{wanted}: this data set has no splits; set {key}={name}")
        return Table(name=name, rows=rows)
    split = wanted or default
    if split not in rows:
        raise DataError(
            f"{key}: {name} has no split {split!r}; its splits are {', '.join(rows)}. Name one of them:"
            f" {key}={name}:{next(iter(rows))}"
        )
    return Table(name=f"{name}:{split}", rows=rows[split])


def cannot_be_had(
    name: str, key: str, reason: str, *, revision: str | None = None, within: str | None = None
) -> DataError:
    """Return an error that says how to fetch what the hub does not give here.

    Args:
        within: the files that are meant.
    """
    local = f"FOLDER/{within}" if within else "FOLDER"
    named = within if not within or "*" in within else f"{within}*"
    which = {"--revision": revision, "--include": named and f"'{named}'"}
    part = "".join(f" {flag} {value}" for flag, value in which.items() if value)
    return DataError(
        f"the hub's data set {name} cannot be had: {reason}. Or name files you have: where there is a network,"
        f" hf download {name} --repo-type dataset{part} --local-dir FOLDER; here, {key}={local}"
        + (f", or hold out a share instead: {key}=null" if key.endswith("validation_file") else "")
    )


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its kind where it has none."""
    return (str(error) or type(error).__name__).splitlines()[0]
