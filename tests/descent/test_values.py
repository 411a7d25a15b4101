"""One pinned number per rule, objective and importance, each from elsewhere than this library."""

import math

import pytest
import torch
from torch import Tensor, nn

from for_each import for_each
from smooth import flat
from unweave.data.in_memory import Resident
from unweave.descent.importance import fisher, ratio, saliency, snip
from unweave.descent.objective import Objective, bounded, clamped, distill, ewc, l1, mislabel, nll, uniform
from unweave.descent.rules import RULES, RuleName
from unweave.problem import Problem, frozen_copy
from unweave.split import Split
from unweave.tasks.classifier import Classifier, margin
from unweave.weights.runtime import Runtime
from unweave.weights.step import Step

# Rows of TorchJD's tests/unit/aggregation/test_values.py. PCGrad's value is pinned there; the others by hand:
# <g_1, g_2> = -22 and |g_2|^2 = 38, so project adds 22/38 of the second, gem 22/38.001.
J = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]], dtype=torch.float64)
DIRECTIONS: dict[RuleName, list[float]] = {
    "total": [2.0, 2.0, 2.0],
    "pcgrad": [0.5848, 3.8012, 3.8012],
    "project": [-10 / 19, 30 / 19, 30 / 19],
    "gem": [-4 + 6 * 22 / 38.001, 1 + 22 / 38.001, 1 + 22 / 38.001],
}


@for_each("rule", DIRECTIONS)
def test_rules(rule: RuleName):
    direction = RULES[rule](J @ J.T, torch.Generator().manual_seed(0)) @ J
    assert direction.tolist() == pytest.approx(DIRECTIONS[rule], abs=1e-4)


def coin() -> Problem:
    """A model of one input and two classes with weights (ln 2, 0): at x = 1 it says 2/3 and 1/3.

    The first example is labelled 0, the second 1, both have x = 1; a third makes up the retain part.
    """
    model = nn.Linear(1, 2, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[math.log(2)], [0.0]], dtype=torch.float64))
    train = Resident(torch.ones(3, 1, dtype=torch.float64), torch.tensor([0, 1, 0]))
    split = Split(train, [0, 1], train)
    return Problem(Classifier(2), model, split, torch.Generator().manual_seed(0))


def first(of: Problem) -> Step:
    """A step over the first example alone."""
    (raw,) = of.split.train.stream([torch.tensor([0])])
    return Step(
        of.params, Runtime(of.model, of.task), {"forget": [of.task.draw(raw, of.generator)]}, {"forget": 1}
    )


def even() -> nn.Module:
    """A teacher that says 1/2 and 1/2 of everything."""
    return frozen_copy(nn.Linear(1, 2, bias=False).double().requires_grad_(False).apply(zero))


def zero(module: nn.Module) -> None:
    with torch.no_grad():
        for p in module.parameters():
            p.zero_()


ANCHOR: dict[str, Tensor] = {"weight": torch.tensor([[0.0], [1.0]], dtype=torch.float64)}
IMPORTANCE: dict[str, Tensor] = {"weight": torch.tensor([[3.0], [2.0]], dtype=torch.float64)}

# p = (2/3, 1/3), label 0, so the loss is ln 3/2; the only wrong class is 1
OBJECTIVES: dict[str, tuple[Objective, float]] = {
    "nll": (nll("forget"), math.log(3 / 2)),
    "ascent": (-nll("forget"), -math.log(3 / 2)),
    "half": (0.5 * nll("forget"), 0.5 * math.log(3 / 2)),
    "bounded": (bounded(), -math.log(1 + math.log(3 / 2))),
    "clamped": (clamped(cap=0.3), -0.3),
    "clamped below": (clamped(cap=0.5), -math.log(3 / 2)),
    "mislabel": (mislabel(), math.log(3)),
    "uniform": (uniform(), (math.log(3 / 2) + math.log(3)) / 2),
    # KL((1/2, 1/2) || (2/3, 1/3)) = (ln 3/4 + ln 3/2) / 2 = ln(9/8) / 2
    "distill": (distill(even(), "forget"), math.log(9 / 8) / 2),
    "l1": (l1(lambda progress: 0.1), 0.1 * math.log(2)),
    # 3 (ln 2 - 0)^2 + 2 (0 - 1)^2
    "ewc": (ewc(ANCHOR, IMPORTANCE), 3 * math.log(2) ** 2 + 2),
}


@for_each("name", OBJECTIVES)
def test_objectives(name: str):
    objective, expected = OBJECTIVES[name]
    (value,) = objective.losses(first(coin()))
    assert float(value.detach()) == pytest.approx(expected, abs=1e-12)


def test_distillation_divides_the_teacher_by_the_temperature():
    """A teacher of (4/5, 1/5) = sigmoid(ln 4) at T = 2 says (2/3, 1/3): no divergence."""
    of = coin()
    teacher = frozen_copy(of.model)
    with torch.no_grad():
        teacher.weight.mul_(2)
    (value,) = distill(teacher, "forget", temperature=2.0).losses(first(of))
    assert float(value.detach()) == pytest.approx(0, abs=1e-15)
    (warmer,) = distill(teacher, "forget").losses(first(of))
    expected = 0.8 * math.log(0.8 * 3 / 2) + 0.2 * math.log(0.2 * 3)
    assert float(warmer.detach()) == pytest.approx(expected, abs=1e-12)


def test_the_margin_is_the_log_odds():
    assert float(margin(torch.tensor([[math.log(2), 0.0]]), torch.tensor([0]))) == pytest.approx(math.log(2))
    assert float(margin(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([2]))) == pytest.approx(
        3 - math.log(math.e + math.e**2)
    )


# The gradients of the two forget examples, one batch each, are (p - onehot) x = (-1/3, 1/3) and (2/3, -2/3).
IMPORTANCES = {
    "saliency": (lambda of: saliency(of, nll("forget"), batch=1), [1 / 3, 1 / 3]),
    "snip": (lambda of: snip(of, nll("forget"), batch=1, batches=None), [math.log(2), 0.0]),
    "fisher": (lambda of: fisher(of, nll("forget"), batch=1), [5 / 18, 5 / 18]),
    # one batch of both: the mean gradient (1/6, -1/6), squared
    "fisher of batches": (lambda of: fisher(of, nll("forget"), batch=2), [1 / 36, 1 / 36]),
    "ratio": (lambda of: ratio(IMPORTANCE, ANCHOR, floor=1.0), [4.0, 1.5]),
}


@for_each("name", IMPORTANCES)
def test_importances(name: str):
    importance, expected = IMPORTANCES[name]
    assert flat(importance(coin())).tolist() == pytest.approx(expected, abs=1e-12)
