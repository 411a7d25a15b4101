"""The scripts in `benchmarks`."""

from importlib import import_module
from types import ModuleType

import pytest

from pages import ROOT


@pytest.fixture
def script(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script that a file of tests names in its constant SCRIPT."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return import_module(request.module.SCRIPT)
