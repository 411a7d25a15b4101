"""What every test runs under: one thread, and a global generator that starts at the same place."""

import jaxtyping
import pytest
import torch

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
