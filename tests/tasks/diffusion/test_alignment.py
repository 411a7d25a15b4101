"""LUR's identities on the denoisers of diffusers, in double precision: attention differentiated twice."""

import copy
from collections.abc import Mapping
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

import every_family

pytest.importorskip("diffusers")
pytest.importorskip("peft")

import smooth
from smooth import MODES, WEIGHT, direction, flat, step
from unweave.descent.hessian import differentiate_twice
from unweave.descent.lookahead import Lookahead
from unweave.descent.objective import mislabel, nll
from unweave.problem import Problem, frozen_copy
from unweave.tasks import Batch
from unweave.tasks.diffusion.scopes import restrict
from unweave.weights.params import add, norm
from unweave.weights.runtime import Runtime

ALPHAS = (2e-4, 1e-4, 5e-5)
"""Toys are so sharply curved that higher orders show at usual ones."""

SETTINGS = [
    (family, *each)
    for family in ("unet", "dit")
    for each in (("all", False), ("all", True), ("lora", False))  # checkpointing does not depend on the scope
]
whole = pytest.mark.parametrize("family", ["unet", "dit"])
every = pytest.mark.parametrize(("family", "scope", "checkpointing"), SETTINGS)


def problem(family: str, scope: str = "all", checkpointing: bool = False) -> Problem:
    """A class to forget; additions of low rank have moved, or only half of them would have a gradient."""
    of = every_family.problem(family, dtype=torch.float64, whole_class=True)
    if scope == "lora":
        restrict(of.model, "lora", rank=2)
        with torch.no_grad():
            for n, (name, p) in enumerate(of.params.items()):
                if "lora_B" in name:
                    p.normal_(std=0.3, generator=torch.Generator().manual_seed(n))
    if checkpointing:
        of.model.enable_gradient_checkpointing()
    of.model.double().train()
    return of


def teacher(of: Problem) -> nn.Module:
    return frozen_copy(every_family.original(family_of(of), torch.float64, True))


def family_of(of: Problem) -> str:
    return {"UNet2DModel": "unet", "DiTTransformer2DModel": "dit"}[type(of.model).__name__]


def objectives(of: Problem):
    return nll("retain"), WEIGHT * mislabel(teacher=teacher(of))


def follow(of: Problem, mode: str, alpha: float) -> Tensor:
    retain, forget = objectives(of)
    return direction(step(of), MODES[mode](retain, forget, alpha))


class ByHand:
    """The two losses as functions of the weights, for automatic differentiation of what the formulas say."""

    def __init__(self, of: Problem) -> None:
        self.of, self.model = of, copy.deepcopy(of.model)
        self.model.disable_gradient_checkpointing()  # functional_call would be over when it recomputes
        (self.retain,), (self.forget,) = smooth.both(of).values()
        teacher_model = teacher(of)
        self.wrong = of.task.mislabel(self.forget, lambda inputs: teacher_model(*inputs)).detach()
        self.weights = {name: p.detach().clone().requires_grad_() for name, p in of.params.items()}

    def retaining(self, weights: Mapping[str, Tensor]) -> Tensor:
        return self.loss(weights, self.retain, self.retain.target)

    def forgetting(self, weights: Mapping[str, Tensor]) -> Tensor:
        return WEIGHT * self.loss(weights, self.forget, self.wrong)

    def loss(self, weights: Mapping[str, Tensor], batch: Batch, target: Tensor) -> Tensor:
        return self.of.task.loss(functional_call(self.model, dict(weights), batch.inputs), target).mean()

    def gradient(self, of: Tensor) -> list[Tensor]:
        return list(torch.autograd.grad(of, list(self.weights.values()), create_graph=True))

    def through(self, alpha: float) -> Tensor:
        """The gradient of J."""
        with sdpa_kernel(SDPBackend.MATH):
            inner = self.retaining(self.weights)
            pairs = zip(self.weights.items(), self.gradient(inner), strict=True)
            shifted_weights = {name: p - alpha * g for (name, p), g in pairs}
            return self.flat(self.gradient(inner + self.forgetting(shifted_weights)))

    def alignment(self) -> Tensor:
        """The gradient of the inner product of the two gradients."""
        with sdpa_kernel(SDPBackend.MATH):
            gradients = (self.gradient(f(self.weights)) for f in (self.retaining, self.forgetting))
            return self.flat(self.gradient(sum((g * h).sum() for g, h in zip(*gradients, strict=True))))

    def flat(self, gradient: list[Tensor]) -> Tensor:
        return flat(dict(zip(self.weights, gradient, strict=True)))


@every
def test_exact_is_the_gradient_through_the_inner_step(family: str, scope: str, checkpointing: bool):
    of, alpha = problem(family, scope, checkpointing), 0.1
    expected = ByHand(of).through(alpha)
    torch.testing.assert_close(follow(of, "exact", alpha), expected, rtol=0, atol=1e-10)
    distance = float((follow(of, "first-order", alpha) - expected).norm() / expected.norm())
    assert distance > 1e-3, "the Hessian matters here"


@whole
def test_checkpointing_runs_layers_again(family: str):
    counts = {}
    for checkpointing in (False, True):
        of = problem(family, "all", checkpointing)
        calls = []
        inner = next(m for n, m in of.model.named_modules() if n.endswith(("resnets.0.conv1", "ff.net.2")))
        inner.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        step(of).gradient(nll("retain"))
        counts[checkpointing] = len(calls)
    assert counts == {False: 1, True: 2}


@pytest.mark.parametrize("mode", ["nested", "lagged"])
@pytest.mark.parametrize("scope", ["all", "lora"])
@whole
def test_modes_agree_with_exact_to_second_order(family: str, scope: str, mode: str):
    errors = []
    of = problem(family, scope)
    for alpha in ALPHAS:
        retain, forget = objectives(of)
        terms, before, runtime = MODES[mode](retain, forget, alpha), {}, None
        for index in range(2 if mode == "lagged" else 1):
            at = step(of, index=index, before=before, runtime=runtime)
            runtime, answer = at.runtime, direction(at, terms)
            before = {key: at.memory[key][1] for key in at.runtime.lagged_terms}
        errors.append(float((answer - follow(of, "exact", alpha)).norm()))
    for large, small in pairwise(errors):
        assert 3.9 < large / small < 4.1


@pytest.mark.parametrize("scope", ["all", "lora"])
@whole
def test_the_slope_in_alpha_is_the_gradient_of_the_alignment(family: str, scope: str):
    of = problem(family, scope)
    start, slope = follow(of, "joint", 0.0), -ByHand(of).alignment()
    errors = [float(((follow(of, "exact", alpha) - start) / alpha - slope).norm()) for alpha in ALPHAS]
    for large, small in pairwise(errors):
        assert 1.98 < large / small < 2.02


@pytest.mark.parametrize("scope", ["all", "lora"])
@whole
def test_a_finite_difference_oracle_agrees_with_exact(family: str, scope: str):
    of = problem(family, scope)
    at, retain, generator = step(of), nll("retain"), torch.Generator().manual_seed(6)
    v = {n: torch.randn(p.shape, generator=generator, dtype=p.dtype) for n, p in of.params.items()}
    with sdpa_kernel(SDPBackend.MATH):
        product = flat(differentiate_twice(at, retain)(v))
    h = 1e-5 * float(flat(of.params).norm() / norm(v))
    ends = []
    for sign in (1, -1):
        with at.at(v, sign * h) as shifted_step:
            ends.append(flat(shifted_step.gradient(retain)))
    difference = (ends[0] - ends[1]) / (2 * h)
    assert float((product - difference).norm() / difference.norm()) < 1e-3


@pytest.mark.parametrize(("mode", "evaluations"), [("nested", 3), ("lagged", 3), ("exact", 2), ("joint", 2)])
@whole
def test_gradient_evaluations_are_counted(family: str, mode: str, evaluations: int):
    of = problem(family)
    at = step(of)
    direction(at, MODES[mode](*objectives(of), 1e-4))
    assert of.cost.gradients == evaluations


@whole
def test_no_lookahead_is_the_joint_gradient(family: str):
    of = problem(family)
    for mode in ("exact", "nested"):
        torch.testing.assert_close(follow(of, mode, 0.0), follow(of, "joint", 0.0), rtol=1e-9, atol=1e-12)


@whole
def test_everything_is_restored_bit_for_bit(family: str):
    of = problem(family, checkpointing=True)
    before = smooth.bits(of.model.state_dict())
    for mode in ("exact", "nested", "lagged"):
        follow(of, mode, 0.1)
    assert smooth.bits(of.model.state_dict()) == before


@whole
def test_a_shift_is_real_where_forward_passes_are_cast(family: str):
    of = every_family.problem(family, whole_class=True)
    at = step(of, runtime=Runtime(of.model, of.task, "bf16"))
    gradient = at.gradient(nll("retain"))
    with at.at(gradient, -0.5) as shifted_step:
        shifted_gradient = shifted_step.gradient(nll("retain"))
    assert float(norm(add(gradient, shifted_gradient, scale=-1)) / norm(gradient)) > 0.05


@whole
def test_weights_that_would_swallow_the_shift_are_refused(family: str):
    of = problem(family)
    of.model.to(torch.bfloat16)
    with pytest.raises(ValueError, match="a lookahead needs float32 weights, found .*bfloat16"):
        step(of).at({name: torch.ones_like(p) for name, p in of.params.items()}, 0.01).__enter__()


@whole
def test_the_attention_that_is_fast_has_no_second_derivative(family: str):
    of = problem(family)
    (batch,) = smooth.both(of)["retain"]
    weights = list(of.params.values())
    loss = of.task.loss(of.model(*batch.inputs), batch.target).mean()
    gradient = torch.autograd.grad(loss, weights, create_graph=True)
    with pytest.raises(RuntimeError, match="derivative for .* is not implemented"):
        torch.autograd.grad(sum(g.square().sum() for g in gradient), weights)


@whole
def test_a_teacher_that_moves_is_refused(family: str):
    of = problem(family)
    with pytest.raises(ValueError, match="a teacher must not move"):
        mislabel(teacher=of.model)
    lookahead = Lookahead(mislabel(), through=nll("retain"), lr=0.1)
    with pytest.raises(ValueError, match="pass teacher=frozen"):
        step(of).gradient(lookahead)


@whole
def test_the_teacher_is_asked_once_and_stands_where_the_student_stood(family: str):
    of, calls = problem(family), []
    teacher_model = teacher(of)
    teacher_model.register_forward_hook(lambda *_: calls.append(1))
    retain, forget = nll("retain"), mislabel(teacher=teacher_model)
    at = step(of)
    direction(at, MODES["nested"](retain, forget, 0.1))
    assert len(calls) == 1 and not teacher_model.training
    assert float(norm(at.gradient(forget))) > 0
