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
from multifaceted.inference.policy import PolicyEngine
from multifaceted.inference.remote import HOW_ASKED, RemoteEngine
from multifaceted.inference.requests import Engine
from multifaceted.model.export import folder_fingerprint
from multifaceted.model.folder import check_model_folder, is_hub_id
from multifaceted.model.policy_files import resolve_policy

INDECISIVE = {*HOW_ASKED, "batch_size", "device", "path", "policy"}
"""Settings by which no reply changes, or that a fingerprint stands for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluated:
    """What gave the responses.

    Attributes:
        path: its folder or hub id, its name on a server, or the name of the file of its responses.
        fingerprint: of a folder its content; of a hub id that answers in this process its commit; of what a server
            answers for, which need not be here, its name and revision; of a file its bytes.
        folder: where its files are; None where nothing here needs them.
    """

    path: str
    fingerprint: str
    folder: Path | None = None


def name_of(policy: str | None, engine: PolicyEngine | RemoteEngine | ResponseFile) -> str:
    """What is evaluated, by name: the policy, whoever serves it, or without one what the engine names.

    Raises:
        ValueError: there is none.
    """
    if policy is not None:
        return policy
    if isinstance(engine, RemoteEngine):
        return engine.model
    if isinstance(engine, ResponseFile):
        return stem_of(engine.path)
    raise ValueError(
        "policy is missing; name a folder that train.py exported (policy=outputs/orpo/policy) or a model on the hub"
        " (policy=kaist-ai/janus-7b), or let a server (engine=server) or a file (engine=file) give the responses"
    )


def evaluated(policy: str | None, engine: PolicyEngine | RemoteEngine | ResponseFile) -> Evaluated:
    """Who gives the responses.

    Raises:
        ValueError: there is no policy, or none that can answer.
    """
    path = name_of(policy, engine)
    if isinstance(engine, PolicyEngine):
        files = resolve_policy(path)
        return Evaluated(path=path, fingerprint=files.fingerprint(), folder=files.folder)
    if policy is not None and not is_hub_id(policy):
        folder = Path(policy)
        check_model_folder(folder)
        return Evaluated(path=path, fingerprint=folder_fingerprint(folder), folder=folder)
    if isinstance(engine, RemoteEngine):
        named = f"{path} {engine.revision or ''}"
        return Evaluated(path=path, fingerprint=hashlib.sha256(named.encode()).hexdigest()[:16])
    return Evaluated(path=path, fingerprint=_content(engine.path))


def as_folder(name: str) -> str:
    """A name as that of a folder.

    >>> as_folder("mistralai/Mistral-7B-Instruct-v0.2")
    'mistralai-Mistral-7B-Instruct-v0.2'
    """
    return re.sub(r"[^\w.-]+", "-", name).strip("-.")


def decisive(engine: Engine, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What of an engine decides what it says.

    Args:
        settings: the engine as plain data.

    Raises:
        ValueError: it is a policy in this process that cannot answer, or a file that is not there.
    """
    # Of the engine's own fields only: what `extra` holds is sent, whatever its names.
    kept = {name: value for name, value in settings.items() if name not in INDECISIVE}
    if isinstance(engine, ResponseFile):
        kept["content"] = _content(engine.path)
    if isinstance(engine, PolicyEngine) and engine.policy is not None:
        kept["weights"] = engine.files().fingerprint()
    return kept


def _content(path: Path) -> str:
    if not path.is_file():
        raise ValueError(f"{path} does not exist; engine.path names a file of responses")
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]
