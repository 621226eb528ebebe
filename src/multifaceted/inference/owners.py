"""Processes that can see whether the others still live, whatever ended them."""

from __future__ import annotations

import fcntl
import os
import uuid
from pathlib import Path
from typing import IO


class Owners:
    """The processes that share something: each holds a lock on a file of its own in a folder while it lives.

    Attributes:
        me: the name of the one that made this; a process may be several.
    """

    def __init__(self, folder: Path) -> None:
        self.me = f"{os.getpid()}-{uuid.uuid4().hex[:12]}"
        self._folder = folder
        self._lock: IO[str] | None = None

    @property
    def is_known(self) -> bool:
        """Whether the others can see this one."""
        return self._lock is not None

    def join(self) -> None:
        """Be seen by the others, once at least."""
        if self._lock is None:
            self._folder.mkdir(exist_ok=True)
            self._lock = (self._folder / self.me).open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX)

    def leave(self) -> None:
        """Be gone."""
        if self._lock is not None:
            (self._folder / self.me).unlink(missing_ok=True)
            self._lock.close()
            self._lock = None

    def is_gone(self, owner: str) -> bool:
        """Whether nobody holds an owner's lock any more; the system frees it however a process ends."""
        path = self._folder / owner
        try:
            with path.open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
        except FileNotFoundError:
            return True
        except BlockingIOError:
            return False
        return True
