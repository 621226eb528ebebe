"""How a process that measures talks to the program that started it. Imports nothing heavy: both sides use it."""

from __future__ import annotations

import json
import sys

PREFIX = "@benchmark "
"""Begins a line of standard output that is meant for the program; libraries print there too."""


def send(event: str, **values: object) -> None:
    """Tell the program what happened."""
    print(PREFIX + json.dumps({"event": event, **values}), flush=True)


def told_to_go_on() -> bool:
    """Wait until the program says whether there is another repeat."""
    return sys.stdin.readline().strip() == "go"
