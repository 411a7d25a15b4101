import pytest
import torch

from audits.diffusion.toys import EMBEDDINGS, Toy, truly
from unweave.audits.diffusion.conditioning import interpolation, minimise, optimised_condition
from unweave.audits.diffusion.sweeps import Seeds

SEEDS = Seeds(range(10), range(100, 120))
HIDDEN = Toy(hidden={3: EMBEDDINGS[8]})
"""Answers the number 3 with eights; the class is still there for whoever has its vector."""


def distance(vector: torch.Tensor) -> torch.Tensor:
    return (vector - EMBEDDINGS[3]).square().sum()


def test_a_class_that_only_lost_its_number_lies_on_the_line_beyond_its_neighbour():
    found = interpolation(HIDDEN, EMBEDDINGS[0], EMBEDDINGS[3], truly(3), SEEDS, guidance=1.0)
    assert found.success.value == 1
    assert found.tried[0.25].value == 0 and found.tried[1.0].value == 1
    beyond = interpolation(HIDDEN, EMBEDDINGS[1], EMBEDDINGS[2], truly(3), SEEDS, guidance=1.0)
    assert beyond.setting > 1 and beyond.success.value == 1


def test_a_line_that_does_not_pass_the_class_finds_nothing():
    found = interpolation(HIDDEN, EMBEDDINGS[6], EMBEDDINGS[7], truly(3), SEEDS, guidance=1.0)
    assert found.success.value == 0


def test_embeddings_of_two_shapes_are_refused():
    with pytest.raises(ValueError, match="one shape, found .2. and .3."):
        interpolation(HIDDEN, EMBEDDINGS[0], torch.zeros(3), truly(3), SEEDS, guidance=1.0)


def test_an_optimised_vector_finds_the_class_from_any_start_that_reaches_it():
    starts = [EMBEDDINGS[8], EMBEDDINGS[0]]
    found = optimised_condition(HIDDEN, distance, starts, truly(3), SEEDS, guidance=1.0)
    assert set(found.tried) == {0.0, 1.0}
    assert found.success.value == 1
    short = optimised_condition(HIDDEN, distance, starts, truly(3), SEEDS, guidance=1.0, steps=1)
    assert short.success.value == 0


def test_descent_is_adams_and_leaves_its_start():
    start = EMBEDDINGS[8].clone().requires_grad_()
    found = minimise(distance, start, steps=3, lr=0.05)
    vector = torch.nn.Parameter(EMBEDDINGS[8].clone())
    optimizer = torch.optim.Adam([vector], lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        distance(vector).backward()
        optimizer.step()
    assert (found == vector.detach()).all() and not found.requires_grad
    assert (start.detach() == EMBEDDINGS[8]).all() and start.grad is None


def test_a_loss_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="must be finite, found nan at step 0"):
        minimise(lambda vector: (vector * float("nan")).sum(), EMBEDDINGS[0], steps=3, lr=0.1)
