"""Weights & Biases: never prompting, offline where no key is configured, and the facts of a run in `run.json`."""

from __future__ import annotations

import logging
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch

from multifaceted.records import VERSION

if TYPE_CHECKING:
    import wandb

log = logging.getLogger(__name__)


@dataclass(kw_only=True, slots=True)
class Wandb:
    """Tracking with Weights & Biases.

    Attributes:
        mode: "online", "offline" or "disabled"; unset, it is online where a key is configured, else offline. The
            environment's WANDB_MODE wins over both.
    """

    project: str = "multifaceted"
    entity: str | None = None
    group: str | None = None
    mode: str | None = None

    def __post_init__(self) -> None:
        if self.mode not in (None, "online", "offline", "disabled"):
            raise ValueError(f"mode is {self.mode!r}; choose online, offline or disabled")

    def resolved_mode(self) -> Literal["online", "offline", "disabled"]:
        """The mode that this run will have."""
        chosen = os.environ.get("WANDB_MODE") or self.mode
        return cast(Literal["online", "offline", "disabled"], chosen or ("online" if _has_key() else "offline"))

    def start(
        self, folder: Path, name: str, run_id: str, config: dict[str, Any], job: str = "train"
    ) -> wandb.Run | None:
        """The run that has this id, begun or continued; None when disabled.

        Args:
            folder: gets `wandb/`.
            job: what kind of run it is.
        """
        mode = self.resolved_mode()
        if mode == "disabled":
            return None
        import wandb

        run = wandb.init(
            project=self.project,
            entity=self.entity,
            group=self.group,
            name=name,
            job_type=job,
            id=run_id,
            resume="allow",
            dir=folder,
            mode=mode,
            config=config,
            settings=wandb.Settings(silent=True, console="off", x_disable_stats=not torch.cuda.is_available()),
        )
        if mode == "offline":
            log.info("W&B is offline; to upload: wandb sync %s/wandb/offline-run-*", folder)
        return run


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    netrc = Path(os.environ.get("NETRC", Path.home() / ".netrc"))
    return netrc.exists() and "wandb" in netrc.read_text(encoding="utf-8", errors="ignore")


def run_facts(seed: int) -> dict[str, Any]:
    """Versions, commit, hardware and command: what is needed to repeat a run, and no secret."""
    packages = ("torch", "transformers", "lightning", "hydra-core", "tokenizers")
    return {
        "version": VERSION,
        "command": " ".join(["python", *sys.argv]),
        "seed": seed,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
        "git": _git_state(),
        "hardware": {
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        },
    }


def _git_state() -> dict[str, Any] | None:
    root = Path(__file__).resolve().parents[2]
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True)
        status = subprocess.run(["git", "status", "--porcelain"], cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"commit": commit.stdout.strip(), "dirty": bool(status.stdout.strip())}
