"""Push what a run made to the Hugging Face hub; refused early where that cannot work, repeated where it failed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

from huggingface_hub import HfApi, get_token, is_offline_mode
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils._validators import validate_repo_id

NETWORK_ERRORS = cast(tuple[type[Exception], ...], HfHubHTTPError.__bases__)
"""Errors in which a request to the hub may end: the base error of its HTTP client, whichever that is, and `OSError`."""
HUB_ERRORS: tuple[type[Exception], ...] = (ValueError, *NETWORK_ERRORS)
"""Those, and what the client of the hub refuses to ask."""
LATER = "or leave it out: the same command with push_to_hub pushes a finished run later"


class HubError(ValueError):
    """A push that cannot work; the message says why."""


def require_hub(name: str) -> None:
    """Refuse a push before there is something to push.

    Raises:
        HubError: the name is none, this machine is offline, or nobody is logged in.
    """
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise HubError(f"push_to_hub={name}: {error}") from error
    if name.count("/") != 1:
        raise HubError(f"push_to_hub={name}: expected <owner>/<name>")
    if is_offline_mode():
        raise HubError(f"push_to_hub={name}: HF_HUB_OFFLINE is set, so nothing can be pushed; unset it, {LATER}")
    if get_token() is None:
        raise HubError(f"push_to_hub={name}: nobody is logged in; type hf auth login or set HF_TOKEN, {LATER}")
    try:
        HfApi().whoami()
    except NETWORK_ERRORS as error:
        raise HubError(
            f"push_to_hub={name}: the hub does not answer or knows no such token: {error}; {LATER}"
        ) from error


def push(name: str, folders: Mapping[str, Path], *, repo_type: str = "model", only: list[str] | None = None) -> str:
    """Upload folders into one repository, which is made, and private, where there is none.

    Args:
        folders: by their path in the repository; "" is its root.
        only: the files that are meant; by default all.

    Returns:
        The address of the repository.

    Raises:
        HubError: it failed; what is on this machine is kept.
    """
    api = HfApi()
    try:
        address = api.create_repo(name, repo_type=repo_type, private=True, exist_ok=True)
        for path, folder in folders.items():
            api.upload_folder(
                repo_id=name, repo_type=repo_type, folder_path=folder, path_in_repo=path or None, allow_patterns=only
            )
    except HUB_ERRORS as error:
        kept = " and ".join(map(str, folders.values()))
        raise HubError(f"push_to_hub={name} failed: {error}. {kept} are kept; the same command pushes again") from error
    return str(address)
