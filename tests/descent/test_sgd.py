"""SGD has the bits of torch's, with its state."""

import pytest
import torch

from unweave.descent.sgd import SGD


def descend(kind, momentum, weight_decay):
    """The weights and the optimizer after steps at two rates; the last weight has no gradient at first."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((7, 5), (7,), (3, 7), (4,))
    weights = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    groups = [{"params": weights[:2]}, {"params": weights[2:], "lr": 0.03}]
    optimizer = kind(groups, 0.1, momentum, weight_decay=weight_decay)
    for index in range(9):
        for p in weights[: 3 if index < 3 else 4]:
            p.grad = torch.randn(p.shape, generator=generator)
        optimizer.param_groups[0]["lr"] = 0.1 / (1 + index)
        optimizer.step()
        optimizer.zero_grad()
    return weights, optimizer


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_the_bits_and_the_state_are_those_of_torch(momentum, weight_decay):
    (ours, mine), (theirs, other) = (descend(kind, momentum, weight_decay) for kind in (SGD, torch.optim.SGD))
    for p, q in zip(ours, theirs, strict=True):
        assert torch.equal(p.view(torch.int32), q.view(torch.int32))
    for p, q in zip(ours, theirs, strict=True):
        buffers = [each.state[w].get("momentum_buffer") for each, w in ((mine, p), (other, q))]
        assert torch.equal(*buffers) if momentum else buffers == [None, None]
    assert mine.state_dict()["param_groups"] == other.state_dict()["param_groups"]


def test_a_gradient_stays_as_it_was():
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer, gradient = SGD([weight], 0.1, 0.9, weight_decay=0.1), torch.arange(3.0)
    for _ in range(3):
        weight.grad = gradient
        optimizer.step()
    assert torch.equal(gradient, torch.arange(3.0))


def test_a_closure_is_refused_before_anything_moves():
    weight = torch.nn.Parameter(torch.ones(3))
    weight.grad = torch.ones(3)
    with pytest.raises(ValueError, match="takes no closure"):
        SGD([weight], 0.1).step(lambda: 0.0)
    assert torch.equal(weight, torch.ones(3))
