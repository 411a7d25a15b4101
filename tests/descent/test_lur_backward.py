"""LUR in a user's own loop: two closures in the place of `loss.backward()`."""

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

import unweave
from smooth import WEIGHT, bits, direction, flat, net, problem, step
from unweave.descent.lookahead import nested
from unweave.descent.lur_backward import lur_backward
from unweave.descent.objective import bounded, nll


class Loop:
    """What a user has: a model, two batches, and how often each loss was asked for."""

    def __init__(self, model: nn.Module | None = None) -> None:
        self.of = problem(model)
        at = step(self.of)
        (self.retain,), (self.forget,) = at.batches["retain"], at.batches["forget"]
        self.model, self.asked = self.of.model, []

    def retain_loss(self) -> Tensor:
        self.asked.append("retain")
        return F.cross_entropy(self.model(*self.retain.inputs), self.retain.target)

    def forget_loss(self) -> Tensor:
        self.asked.append("forget")
        return (
            -F.cross_entropy(self.model(*self.forget.inputs), self.forget.target, reduction="none")
            .log1p()
            .mean()
        )

    def backward(self, **settings: float) -> None:
        lur_backward(self.retain_loss, self.forget_loss, self.model.parameters(), **settings)

    def grads(self) -> Tensor:
        return torch.cat([p.grad.flatten() for p in self.model.parameters() if p.grad is not None])


def test_it_is_one_of_the_names_at_the_top():
    assert unweave.lur_backward is lur_backward


def test_it_is_the_nested_gradient():
    loop = Loop()
    loop.backward(alpha=0.1, weight=WEIGHT)
    terms = nested(nll("retain"), WEIGHT * bounded(), 0.1)
    assert torch.allclose(loop.grads(), direction(step(loop.of), terms), rtol=0, atol=1e-14)
    assert loop.asked == ["retain", "forget", "retain"]


def test_alpha_and_weight_matter():
    gradients = []
    for alpha, weight in ((0.1, 0.3), (0.0, 0.3), (0.1, 0.0)):
        loop = Loop()
        loop.backward(alpha=alpha, weight=weight)
        gradients.append(loop.grads())
    assert not torch.allclose(gradients[0], gradients[1])
    assert not torch.allclose(gradients[0], gradients[2])
    retain = flat(step(Loop().of).gradient(nll("retain")))
    assert torch.allclose(gradients[2], retain, rtol=0, atol=1e-15)


def test_it_adds_to_the_gradient_that_is_there_in_its_place():
    once, twice = Loop(), Loop()
    once.backward()
    twice.backward()
    gradients = [p.grad for p in twice.model.parameters()]
    twice.backward()
    assert all(p.grad is g for p, g in zip(twice.model.parameters(), gradients, strict=True))
    assert torch.allclose(twice.grads(), 2 * once.grads(), rtol=0, atol=1e-15)


def test_weights_stay_and_so_do_gradients_when_a_loss_raises():
    loop = Loop()
    loop.backward()
    before = bits(loop.model.state_dict()), loop.grads().clone()

    def fails() -> Tensor:
        raise RuntimeError("no batch left")

    with pytest.raises(RuntimeError, match="no batch left"):
        lur_backward(loop.retain_loss, fails, loop.model.parameters())
    assert bits(loop.model.state_dict()) == before[0]
    assert torch.equal(loop.grads(), before[1])


def test_frozen_weights_get_no_gradient_and_stay():
    loop = Loop()
    loop.model[0].weight.requires_grad_(False)
    loop.backward()
    assert loop.model[0].weight.grad is None
    assert loop.model[2].weight.grad is not None


def test_it_takes_any_iterable_of_weights():
    by_list, by_generator = Loop(), Loop()
    lur_backward(by_list.retain_loss, by_list.forget_loss, list(by_list.model.parameters()))
    lur_backward(
        by_generator.retain_loss, by_generator.forget_loss, (p for p in by_generator.model.parameters())
    )
    assert torch.equal(by_list.grads(), by_generator.grads())


def test_a_forget_loss_that_has_reached_its_cap_is_no_error():
    loop = Loop()
    capped_loss = lambda: -loop.forget_loss().neg().clamp(max=1e-6)  # noqa: E731
    lur_backward(loop.retain_loss, capped_loss, loop.model.parameters())
    retain = flat(step(Loop().of).gradient(nll("retain")))
    assert torch.allclose(loop.grads(), retain, rtol=0, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_are_refused(dtype: torch.dtype):
    with pytest.raises(ValueError, match=f"float32 weights, found 0 in {dtype}"):
        Loop(net(dtype=dtype)).backward()


def test_a_weight_outside_a_loss_is_refused():
    loop = Loop()
    stray = nn.Parameter(torch.ones(1))
    with pytest.raises(ValueError, match="1 weights take no part in the loss, first '4'"):
        lur_backward(loop.retain_loss, loop.forget_loss, [*loop.model.parameters(), stray])
    with pytest.raises(ValueError, match="no trainable weights"):
        lur_backward(loop.retain_loss, loop.forget_loss, [])


def test_it_looks_ahead_under_a_callers_autocast():
    """The cache of cast weights, which autocast keeps until it ends, must not hide the shift."""
    gradients = []
    for alpha in (0.0, 2.0):
        loop = Loop(net(dtype=torch.float32))
        with torch.autocast("cpu", torch.bfloat16):
            loop.backward(alpha=alpha)
        gradients.append(loop.grads())
    assert float((gradients[0] - gradients[1]).norm() / gradients[0].norm()) > 0.05


@pytest.fixture
def one_process(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore")  # of DistributedDataParallel itself
@pytest.mark.parametrize("as_views", [False, True])
def test_it_works_with_distributed_data_parallel(as_views: bool, one_process):
    """Where gradients are views of the wrapper's buckets, the next backward pass overwrites them."""
    plain, parallel = Loop(), Loop()
    parallel.model = nn.parallel.DistributedDataParallel(parallel.model, gradient_as_bucket_view=as_views)
    for _ in range(4):  # buckets are rebuilt after the first pass
        for loop in (plain, parallel):
            loop.model.zero_grad()
            loop.backward(alpha=0.5)
        assert torch.allclose(plain.grads(), parallel.grads(), rtol=0, atol=1e-14)


def test_a_loop_of_ones_own_forgets():
    loop = Loop()
    optimizer = torch.optim.SGD(loop.model.parameters(), 0.2, 0.9)
    for _ in range(60):  # learn everything first
        optimizer.zero_grad()
        (loop.retain_loss() - loop.forget_loss()).backward()
        optimizer.step()
    before = float(loop.retain_loss().detach()), float(loop.forget_loss().detach())
    for _ in range(60):
        optimizer.zero_grad()
        loop.backward(alpha=0.05, weight=0.5)
        optimizer.step()
    after = float(loop.retain_loss().detach()), float(loop.forget_loss().detach())
    assert after[1] < before[1] - 0.3
    assert after[0] < before[0] + 0.1
