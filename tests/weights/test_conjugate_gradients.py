"""Conjugate gradients: they solve, and stop where they can't."""

import torch

from unweave.weights.conjugate_gradients import conjugate_gradients


def test_they_solve_and_stop_where_the_curvature_is_negative(generator: torch.Generator):
    root = torch.randn(6, 6, generator=generator, dtype=torch.double)
    matrix, b = root @ root.T + torch.eye(6), torch.randn(6, generator=generator, dtype=torch.double)
    solution, residuals = conjugate_gradients(lambda v: {"x": matrix @ v["x"]}, {"x": b}, 20)
    torch.testing.assert_close(solution["x"], torch.linalg.solve(matrix, b))
    assert residuals[-1] < 1e-8 and len(residuals) <= 20
    solution, residuals = conjugate_gradients(lambda v: {"x": -v["x"]}, {"x": b}, 20)
    assert not solution["x"].any() and not residuals
