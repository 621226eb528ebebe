"""Real files, where they are here."""

import pytest

from tests.conftest import ROOT

SHARED = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="module")
def shared():
    def find(name):
        path = SHARED / name
        if not path.exists():
            pytest.skip(f"{path} is not here")
        return path

    return find
