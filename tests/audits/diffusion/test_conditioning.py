import pytest
import torch

from audits.diffusion.toys import EMBEDDINGS
from unweave.audits.diffusion.conditioning import minimise


def distance(vector: torch.Tensor) -> torch.Tensor:
    return (vector - EMBEDDINGS[3]).square().sum()


def test_descent_is_adams_and_leaves_its_start():
    start = EMBEDDINGS[8].clone().requires_grad_()
    minimum = minimise(distance, start, steps=3, lr=0.05)
    vector = torch.nn.Parameter(EMBEDDINGS[8].clone())
    optimizer = torch.optim.Adam([vector], lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        distance(vector).backward()
        optimizer.step()
    assert (minimum == vector.detach()).all() and not minimum.requires_grad
    assert (start.detach() == EMBEDDINGS[8]).all() and start.grad is None


def test_a_loss_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="must be finite, found nan at step 0"):
        minimise(lambda vector: (vector * float("nan")).sum(), EMBEDDINGS[0], steps=3, lr=0.1)
