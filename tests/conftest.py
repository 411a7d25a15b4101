"""What every test runs under: one thread, and a global generator that starts at the same place."""

import gc
import multiprocessing
import os

import jaxtyping
import pytest
import torch

from fork_server import fork_server
from trained_once import FOLDER
from typed import check_again, check_types

jaxtyping.jaxtyped = check_types  # before the package is imported, whose functions it will wrap
torch.set_num_threads(1)
gc.disable()  # until all is collected: what is imported lives as long as the tests, and is not garbage


def pytest_collection_finish() -> None:
    """From here on the garbage collector looks at what tests make, and not at all packages each time."""
    gc.freeze()
    gc.enable()


def pytest_runtest_setup() -> None:
    """Every test checks the types of its own calls."""
    check_again()


@pytest.fixture(autouse=True, scope="session")
def shared_models(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The folder of trained toy models that all processes of this run share."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "trained-once"
    folder.mkdir(exist_ok=True)
    os.environ[FOLDER] = str(folder)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The global generator, at the same place for every test whatever ran before."""
    torch.manual_seed(0)


@pytest.fixture
def generator() -> torch.Generator:
    """A generator of the test's own."""
    return torch.Generator().manual_seed(0)


@pytest.fixture
def forked_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers of a benchmark that are forked from the server; `bench/test_workers.py` spawns them."""
    context = fork_server()
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: context)
