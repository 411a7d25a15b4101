"""What every test runs under: one thread, and a global generator that starts at the same place."""

import multiprocessing

import jaxtyping
import pytest
import torch

from fork_server import fork_server
from typed import check_types

jaxtyping.jaxtyped = check_types  # before the package is imported, whose functions it will wrap
torch.set_num_threads(1)


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
