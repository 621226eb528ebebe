"""The folder of `datasets` below `paths.cache`, which holds examples and tokens."""

from __future__ import annotations

import contextlib
import shutil
import time
from pathlib import Path

ABANDONED = 86_400.0
"""Seconds after which an unfinished file belongs to a job that was killed."""
UNFINISHED = ("examples-*", "tmp*")
"""Names of files and folders that a job removes or renames itself, unless it is killed."""


class CacheError(OSError):
    """A cache that cannot be written; whoever meets it works without one."""


def dataset_cache(cache: Path) -> Path:
    """Return the folder for Arrow files below a cache; it exists, and holds nothing of jobs that were killed.

    Raises:
        CacheError: the folder cannot be made.
    """
    folder = cache / "datasets"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CacheError(str(error)) from error
    for path in (path for pattern in UNFINISHED for path in folder.glob(pattern)):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > ABANDONED:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    return folder
