"""What holds for all tests of inference."""

import pytest


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """No test waits for long."""
    monkeypatch.setattr("multifaceted.inference.faults._backoff", lambda state: 0.01)
