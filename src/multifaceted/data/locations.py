"""Where data lies: files, folders, patterns, and data sets of the hub."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError

from multifaceted.data.bad_rows import DataError

HUB = "hf:/datasets/"
"""How a `Path` spells hf://datasets/."""
ON_HUB = re.compile(HUB + r"(?P<name>[^/@]+/[^/@]+)(@(?P<revision>refs/(?:convert|pr)/[^/]+|[^/]+))?(/(?P<within>.+))?")
DATA_FILES = ["*.parquet", *(f"*.{kind}{packed}" for kind in ("jsonl", "json", "csv", "tsv") for packed in ("", ".gz"))]
DESCRIPTION = "dataset_info*.json"
"""What older data sets of the hub say about themselves."""


def stem_of(path: Path) -> str:
    """The name of a file without what says its format.

    >>> stem_of(Path("data/pairs.jsonl.gz"))
    'pairs'
    """
    return Path(path.name.removesuffix(".gz")).stem


def files_of(path: Path, key: str = "data.source.train_file") -> dict[str, Path]:
    """The files that a path names: itself, or the data files in a folder or in a data set of the hub.

    Returns:
        What rows are called by, to their file: its stem, in a folder with the folders below that one.

    Args:
        path: also a pattern such as `data/train-*`, where `*` stands for folders too, or a data set of the hub,
            `hf://datasets/<owner>/<name>[@revision][/files]`, which is downloaded once, into the hub's cache.
        key: the setting that names the path, for messages.

    Raises:
        DataError: a folder without data files, or a data set that cannot be had.
    """
    patterns = DATA_FILES
    if path.as_posix().startswith(HUB):
        path, patterns = _downloaded(path.as_posix(), key)
    elif "*" in path.as_posix():
        path, patterns = _folder_and_pattern(path)
    if not path.exists():
        raise DataError(f"{path} does not exist; name a file or a folder that does: {key}=...")
    if not path.is_dir():
        return {stem_of(path): path}
    files = sorted(file for file in path.rglob("*") if _is_data(file) and _fits(file.relative_to(path), patterns))
    found = {(file.relative_to(path).parent / stem_of(file)).as_posix(): file for file in files}
    if len(found) < len(files):
        raise DataError(f"{path} holds files that differ in their format only; keep one of each")
    if not found:
        raise DataError(
            f"{path} holds no data files ({', '.join(patterns)}); name a folder or a file with rows: {key}=..."
        )
    return found


def _downloaded(url: str, key: str) -> tuple[Path, list[str]]:
    """The folder in the hub's cache that holds a data set, and which of its files are meant."""
    found = ON_HUB.fullmatch(url)
    if found is None:
        raise DataError(f"{key}={url.replace(HUB, 'hf://datasets/')}: expected hf://datasets/<owner>/<name>[/files]")
    name, within = found["name"], found["within"]
    patterns = [within, f"{within}/*"] if within else DATA_FILES
    try:
        folder = snapshot_download(name, repo_type="dataset", revision=found["revision"], allow_patterns=patterns)
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        local = f"FOLDER/{within}" if within else "FOLDER"
        named = within if not within or "*" in within else f"{within}*"
        which = {"--revision": found["revision"], "--include": named and f"'{named}'"}
        part = "".join(f" {flag} {value}" for flag, value in which.items() if value)
        raise DataError(
            f"the hub's data set {name} cannot be had: {reason}. Or name files you have: where there is a network,"
            f" hf download {name} --repo-type dataset{part} --local-dir FOLDER; here, {key}={local}"
            + (f", or hold out a share instead: {key}=null" if key.endswith("validation_file") else "")
        ) from error
    return Path(folder), patterns


def _folder_and_pattern(path: Path) -> tuple[Path, list[str]]:
    first = next(place for place, part in enumerate(path.parts) if "*" in part)
    return Path(*path.parts[:first]), ["/".join(path.parts[first:])]


def _fits(file: Path, patterns: Iterable[str]) -> bool:
    return any(fnmatch(file.as_posix(), pattern) for pattern in patterns)


def _is_data(file: Path) -> bool:
    return file.is_file() and _fits(Path(file.name), DATA_FILES) and not file.match(DESCRIPTION)
