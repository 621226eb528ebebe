"""Find rows by what a setting names: files, folders, patterns, data sets of the hub or in memory."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from huggingface_hub import snapshot_download

from multifaceted.data.bad_rows import DataError
from multifaceted.data.reading import Rows
from multifaceted.data.splits import SAVED, cannot_be_had, first_line, in_memory, on_hub, one_split, saved
from multifaceted.hub import HUB_ERRORS

HUB = "hf:/datasets/"
"""How a `Path` spells hf://datasets/."""
REVISION = r"(@(?P<revision>refs/(?:convert|pr)/[^/:]+|[^/:]+))?"
FILES_ON_HUB = re.compile(HUB + r"(?P<name>[^/@]+/[^/@]+)" + REVISION + r"(/(?P<within>.+))?")
HUB_ID = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)" + REVISION + r"(/(?P<subset>[^/:]+))?")
DATA_FILES = [
    *("*.parquet", "*.arrow"),
    *(f"*.{kind}{packed}" for kind in ("jsonl", "json", "csv", "tsv") for packed in ("", ".gz")),
]
DESCRIPTION = "dataset_info*.json"
"""What older data sets of the hub say about themselves."""


@runtime_checkable
class Tabular(Protocol):
    """A data set of `datasets` in memory: a `Dataset`, an `IterableDataset`, or a dictionary of either by split."""

    def with_format(self, type: str | None = None) -> Any:
        """Return the same rows in another format."""


Location = Path | Tabular
"""A place that a setting names: a path, which also spells what the hub has, or a data set in memory."""


def stem_of(path: Path) -> str:
    """Return the name of a file without what says its format.

    >>> stem_of(Path("data/pairs.jsonl.gz"))
    'pairs'
    """
    return Path(path.name.removesuffix(".gz")).stem


def locate(location: Location, key: str = "data.source.train_file", split: str = "train") -> dict[str, Rows]:
    """Find the rows that a setting names.

    Args:
        location: a file; a folder of files, or one that `save_to_disk` wrote; a pattern such as `data/train-*`, where
            `*` stands for folders too; files of the hub, `hf://datasets/<owner>/<name>[@revision][/files]`; a data set
            of the hub, `<owner>/<name>[@revision][/subset]`; or a data set in memory. A data set may end with `:split`.
        key: the setting, for messages.
        split: which split of a data set is meant where the setting names none.

    Returns:
        Rows by what they are called: the stem of their file, in a folder with the folders below that one, or the name
        of the data set.

    Raises:
        DataError: there is nothing, no data file, no such split or revision, or code would have to be run.
    """
    if isinstance(location, str):
        location = Path(location)
    if not isinstance(location, Path):
        return {"dataset": in_memory(location, key, split)}
    named = location.as_posix()
    if named.startswith(HUB):
        return _files_below(*_downloaded(named, key), key)
    if "*" in named:
        return _files_below(*_folder_and_pattern(location), key)
    base, wanted = _without_split(location)
    if not base.exists():
        found = HUB_ID.fullmatch(base.as_posix())
        if found is None or _fits(Path(base.name), DATA_FILES):
            raise DataError(f"{location} does not exist; name a file or a folder that does: {key}=...")
        rows = on_hub(found["name"], found["revision"], found["subset"], key)
        return {found["name"].partition("/")[2]: one_split(rows, base.as_posix(), key, wanted, split)}
    if any((base / name).exists() for name in SAVED):
        return {base.name: one_split(saved(base), str(base), key, wanted, split)}
    if wanted is not None:
        raise DataError(
            f"{key}={location}: {base} is a {'folder' if base.is_dir() else 'file'}, which has no splits; name the"
            f" files that you mean: {key}={base}" + ("/..." if base.is_dir() else "")
        )
    return _files_below(base, DATA_FILES, key) if base.is_dir() else {stem_of(base): base}


def _without_split(path: Path) -> tuple[Path, str | None]:
    """A path, and the split that is named behind a colon at its end."""
    if path.exists() or ":" not in path.name:
        return path, None
    named, _, split = path.as_posix().rpartition(":")
    return Path(named), split


def is_missing(location: Location) -> bool:
    """Return whether a path names nothing on this machine and nothing that the hub could have."""
    if not isinstance(location, Path) or location.as_posix().startswith(HUB) or "*" in location.as_posix():
        return False
    base, _ = _without_split(location)
    could_be_id = HUB_ID.fullmatch(base.as_posix()) is not None and not _fits(Path(base.name), DATA_FILES)
    return not base.exists() and not could_be_id


def spelled(location: object) -> str:
    """Return a location as it is typed."""
    if isinstance(location, Path | str):
        return str(location).replace(HUB, "hf://datasets/")
    return "a data set in memory"


def _downloaded(url: str, key: str) -> tuple[Path, list[str]]:
    """The folder in the hub's cache that holds a data set, and which of its files are meant."""
    found = FILES_ON_HUB.fullmatch(url)
    if found is None:
        raise DataError(f"{key}={url.replace(HUB, 'hf://datasets/')}: expected hf://datasets/<owner>/<name>[/files]")
    name, within = found["name"], found["within"]
    patterns = [within, f"{within}/*"] if within else DATA_FILES
    try:
        folder = snapshot_download(name, repo_type="dataset", revision=found["revision"], allow_patterns=patterns)
    except HUB_ERRORS as error:
        raise cannot_be_had(name, key, first_line(error), revision=found["revision"], within=within) from error
    return Path(folder), patterns


def _folder_and_pattern(path: Path) -> tuple[Path, list[str]]:
    first = next(place for place, part in enumerate(path.parts) if "*" in part)
    return Path(*path.parts[:first]), ["/".join(path.parts[first:])]


def _files_below(folder: Path, patterns: Iterable[str], key: str) -> dict[str, Rows]:
    """The data files of a folder by their names in it."""
    if not folder.exists():
        raise DataError(f"{folder} does not exist; name a file or a folder that does: {key}=...")
    files = sorted(file for file in folder.rglob("*") if _is_data(file) and _fits(file.relative_to(folder), patterns))
    found: dict[str, Rows] = {(file.relative_to(folder).parent / stem_of(file)).as_posix(): file for file in files}
    if len(found) < len(files):
        raise DataError(f"{folder} holds files that differ in their format only; keep one of each")
    if not found:
        raise DataError(
            f"{folder} holds no data files ({', '.join(patterns)}); name a folder or a file with rows: {key}=..."
        )
    return found


def _fits(file: Path, patterns: Iterable[str]) -> bool:
    return any(fnmatch(file.as_posix(), pattern) for pattern in patterns)


def _is_data(file: Path) -> bool:
    return file.is_file() and _fits(Path(file.name), DATA_FILES) and not file.match(DESCRIPTION)
