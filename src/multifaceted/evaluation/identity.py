"""Who is evaluated and who judges: told apart by content, never by a path, so that a folder may be moved."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multifaceted.data.locations import stem_of
from multifaceted.inference.files import ResponseFile
from multifaceted.inference.in_process import InProcess
from multifaceted.inference.policy import PolicyEngine
from multifaceted.inference.requests import Engine
from multifaceted.inference.server import WITHOUT_MEANING, ServerEngine
from multifaceted.model.export import folder_fingerprint
from multifaceted.model.folder import check_model_folder
from multifaceted.model.weights import hash_files
from multifaceted.record_files import RecordError, read_json
from multifaceted.records import RUN

INDECISIVE = {*WITHOUT_MEANING, "batch_size", "device", "path", "policy"}
"""Settings by which no reply changes, or that a fingerprint stands for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluated:
    """What gave the responses.

    Attributes:
        path: its folder, its name on a server, or the file of its responses.
        fingerprint: of a folder its content, of a server's model its name and revision, of a file its bytes.
    """

    path: str
    fingerprint: str

    @property
    def folder_name(self) -> str:
        """Its name as that of a folder."""
        return re.sub(r"[^\w.-]+", "-", self.path).strip("-.")


def evaluated(policy: Path | None, engine: PolicyEngine | ServerEngine | ResponseFile) -> Evaluated:
    """What gives the responses: the policy, whoever serves it, or without one what the engine names.

    Raises:
        ValueError: `policy` is not a policy folder, or there is none to generate with.
    """
    if policy is not None:
        check_model_folder(policy)
        return Evaluated(path=str(policy), fingerprint=folder_fingerprint(policy))
    if isinstance(engine, ServerEngine):
        named = f"{engine.model} {engine.revision or ''}"
        return Evaluated(path=engine.model, fingerprint=hashlib.sha256(named.encode()).hexdigest()[:16])
    if isinstance(engine, ResponseFile):
        return Evaluated(path=stem_of(engine.path), fingerprint=_content(engine.path))
    raise ValueError(
        "policy is missing; name a folder that train.py exported (policy=outputs/orpo/policy), or let a server"
        " (engine=server) or a file (engine=file) give the responses"
    )


def refuse_others(folder: Path, identity: Mapping[str, object], what: str) -> dict[str, Any]:
    """What the `run.json` of a folder says, if it is about the same.

    Args:
        what: the folder holds.

    Raises:
        RecordError: it is not; names what differs.
    """
    before: dict[str, Any] = read_json(folder / RUN)
    changed = [key for key in identity if before.get(key) != identity[key]]
    if changed:
        raise RecordError(
            f"{folder} holds {what} made with another {', '.join(changed)};"
            " evaluate into another folder with into=..., or generate anew with overwrite=true"
        )
    return before


def decisive(engine: Engine | PolicyEngine, settings: Any) -> dict[str, Any]:
    """What of an engine decides what it says.

    Args:
        settings: the engine as plain data.
    """
    kept: dict[str, Any] = _kept(settings)
    if isinstance(engine, ResponseFile):
        kept["content"] = _content(engine.path)
    if isinstance(engine, InProcess):
        check_model_folder(engine.policy)
        kept["weights"] = folder_fingerprint(engine.policy)
    return kept


def _kept(settings: Any) -> Any:
    if not isinstance(settings, dict):
        return settings
    return {name: _kept(value) for name, value in settings.items() if name not in INDECISIVE}


def _content(path: Path) -> str:
    if not path.is_file():
        raise ValueError(f"{path} does not exist; engine.path names a file of responses")
    return hash_files(path)
