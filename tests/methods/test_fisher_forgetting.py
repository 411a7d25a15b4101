"""Fisher forgetting: the information in closed form and example by example, and the noise."""

import copy

import pytest
import torch
from torch import Tensor, nn

from every_family import CLASSES, problem
from unweave.methods.fisher_forgetting import FLOOR, FisherForgetting, information, squares
from unweave.problem import Problem
from unweave.tasks import Batch
from unweave.weights.runtime import Runtime
from unweave.weights.step import Step


def linear() -> Problem:
    """A softmax of a linear model in float64, whose first input is always zero."""
    of = problem("layernorm", dtype=torch.float64)
    of.model = Blind(6)
    return of


class Blind(nn.Linear):
    """A linear model that does not see its first input."""

    def __init__(self, inputs: int) -> None:
        super().__init__(inputs, CLASSES, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * (torch.arange(x.shape[1]) > 0))


def retain_set(of: Problem) -> tuple[Tensor, Tensor]:
    source, ids = of.split.part("retain")
    return source.inputs[0][ids], source.labels[ids]


def by_hand(of: Problem) -> dict[str, Tensor]:
    """Every example and every class by itself, in plain torch."""
    model = copy.deepcopy(of.model).eval()
    weights = dict(model.named_parameters())
    total = {name: torch.zeros_like(p) for name, p in weights.items()}
    x, _ = retain_set(of)
    for one in x:
        log_probabilities = model(one[None]).log_softmax(1)[0]
        for label in range(CLASSES):
            slope = torch.autograd.grad(log_probabilities[label], list(weights.values()), retain_graph=True)
            for name, g in zip(weights, slope, strict=True):
                total[name] += log_probabilities[label].detach().exp() * g.square() / len(x)
    return total


def apart(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).detach().abs().max()) for name in a)


def test_the_information_of_a_softmax_is_known():
    # the gradient of log p(y|x) in row k is (1[y = k] - p_k) x, and its mean square p_k (1 - p_k) x^2
    of = linear()
    x, _ = retain_set(of)
    chance = of.model(x).softmax(1).detach()
    bend, squared_inputs = chance * (1 - chance), x.square() * (torch.arange(6) > 0)
    expected = {"weight": bend.T @ squared_inputs / len(x), "bias": bend.mean(0)}
    assert apart(dict(information(of, batch=10)), expected) < 1e-14


@pytest.mark.parametrize("family", ["layernorm", "batchnorm"])
def test_the_information_is_of_single_examples(family: str):
    of = problem(family, dtype=torch.float64)
    expected = by_hand(of)
    for batch in (1, 16, 100):
        assert apart(dict(information(of, batch=batch)), expected) < 1e-12


def test_inputs_by_name():
    class Named(Blind):
        def forward(self, x: Tensor, scale: Tensor) -> Tensor:
            return super().forward(x * scale)

    of, named_problem = linear(), linear()
    named_problem.model = Named(6)
    named_problem.model.load_state_dict(of.model.state_dict())
    (x, y), results = retain_set(of), []
    for each, inputs in ((of, (x,)), (named_problem, {"x": x / 2, "scale": torch.full((len(x), 1), 2.0)})):
        step = Step(each.params, Runtime(each.model, each.task), {}, {})
        results.append(dict(squares(step, Batch(torch.arange(len(y)), inputs, y, y))))
    assert apart(*results) < 1e-14 and step.runtime.cost.gradients == CLASSES


@pytest.mark.parametrize("family", ["linear", "batchnorm"])
def test_fisher_forgetting(family: str):
    of, plain = [linear() if family == "linear" else problem(family, dtype=torch.float64) for _ in range(2)]
    plain.model = copy.deepcopy(of.model)
    FisherForgetting(alpha=1e-3, largest=50.0)(of)
    importance = information(plain, batch=32)  # takes as much of the generator
    for name, p in plain.params.items():
        variance = 1e-3 * (1 / (importance[name] + FLOOR)).clamp(max=50.0)
        noise = torch.randn(p.shape, generator=plain.generator, dtype=p.dtype)
        assert torch.allclose(of.params[name], p + variance.sqrt() * noise, rtol=0, atol=1e-12)
    assert all(torch.equal(b, plain.model.get_buffer(name)) for name, b in of.model.named_buffers())


def test_a_weight_that_matters_to_nothing_gets_the_largest_noise_and_no_more():
    of, before = linear(), linear()
    before.model = copy.deepcopy(of.model)
    importance = information(before, batch=32)
    assert not importance["weight"][:, 0].any() and bool((importance["weight"][:, 1:] > 1e-3).all())
    FisherForgetting(alpha=1.0, largest=1e4)(of)
    noise = (of.model.weight - before.model.weight).detach().abs()
    assert bool(noise[:, 0].mean() > 5 * noise[:, 1:].mean()) and float(noise.max()) < 5e2


# --- the released code takes random forgetting for that of a class, and zeroes the last row


@pytest.mark.parametrize("whole_class", [False, True])
def test_no_row_of_the_last_layer_is_zeroed(whole_class: bool):
    of = problem("layernorm", dtype=torch.float64, whole_class=whole_class)
    before = copy.deepcopy(of.model)
    FisherForgetting(alpha=1e-9)(of)
    for row, old in zip(of.model[-1].weight.detach(), before[-1].weight.detach(), strict=True):
        assert 0 < float((row - old).norm()) < 0.1 * float(old.norm())


def test_it_reads_retain_data_alone():
    one, other = problem("layernorm"), problem("layernorm")
    inputs = one.split.train.inputs[0].clone()
    inputs[one.split.forget] += 5
    other.split = copy.copy(one.split)
    other.split.train = type(one.split.train)((inputs,), one.split.train.labels)
    for of in (one, other):
        FisherForgetting()(of)
    assert all(torch.equal(p, other.params[name]) for name, p in one.params.items())


@pytest.mark.parametrize("change", [{"alpha": 0.0}, {"largest": 0.0}, {"batch": 0}], ids=str)
def test_what_makes_no_noise_is_refused(change: dict):
    with pytest.raises(ValueError, match=r"(alpha|largest|batch) must be in [\[(][01], inf[\])], found"):
        FisherForgetting(**change)
