"""One-shot edits of the weights, in place."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unweave.descent.importance import Importance, Mask, weights_of_modules
from unweave.errors import Failed, UnfitProcesses
from unweave.problem import Problem
from unweave.weights.params import Params, multiply
from unweave.weights.sharded import cut, names_where, not_finite
from unweave.weights.sharded_model import is_model_sharded

__all__ = [
    "dampen",
    "grow_head",
    "perturb",
    "quantize",
    "reinitialize",
    "restart",
    "shift",
    "shrink",
    "shrink_and_perturb",
]


@torch.no_grad()
def reinitialize(problem: Problem, where: Mask) -> None:
    """Redraws the masked weights as PyTorch's layers do, U(-1, 1) / sqrt(fan_in); vectors become zero."""
    for name in names_where(where, Tensor.bool):
        p = problem.params[name]
        p.copy_(torch.where(where[name].bool(), redraw(p, problem.generator), p))


def redraw(p: Tensor, generator: torch.Generator) -> Tensor:
    """Fresh values for a weight: Kaiming uniform, a = sqrt(5), as PyTorch's layers use; zero for vectors."""
    if p.ndim < 2:
        return torch.zeros_like(p)
    bound = 1 / math.sqrt(p.shape[1:].numel())
    return cut(torch.rand(p.shape, generator=generator, dtype=p.dtype) * 2 * bound - bound, p)


@torch.no_grad()
def dampen(problem: Problem, scale: Importance) -> None:
    """Multiplies each weight by its scale, at most one."""
    for name, p in problem.params.items():
        p.mul_(scale[name].clamp(max=1))


@torch.no_grad()
def perturb(problem: Problem, std: Importance) -> None:
    """Adds Gaussian noise with one standard deviation per weight."""
    for name, p in problem.params.items():
        p.add_(std[name] * cut(torch.randn(p.shape, generator=problem.generator, dtype=p.dtype), p))


@torch.no_grad()
def quantize(problem: Problem, to: torch.dtype) -> None:
    """Rounds the weights to the values of another type; they keep their own type.

    Raises:
        Failed: If a weight is beyond the range of that type.
    """
    rounded_weights = {name: p.to(to) for name, p in problem.params.items()}
    for name in names_where(rounded_weights, not_finite):
        raise Failed(f"the weights {name} are beyond the range of {to}")
    for name, p in problem.params.items():
        p.copy_(rounded_weights[name])


@dataclass(frozen=True)
class PerturbFirst:
    """A `watch` of a phase that calls `perturb` before its first step.

    Args:
        std: The standard deviation of the noise, per weight.
    """

    std: Importance

    def __call__(self, problem: Problem, index: int) -> None:
        """Adds the noise before step 0."""
        if index == 0:
            perturb(problem, self.std)

    def memory(self) -> None:
        """Nothing."""

    def recall(self, memory: None) -> None:
        """Nothing."""


@torch.no_grad()
def shift(problem: Problem, by: Params) -> None:
    """Adds a vector to the weights."""
    for name, p in problem.params.items():
        p.add_(by[name])


@torch.no_grad()
def shrink(problem: Problem, factor: float) -> None:
    """Multiplies the weights and biases of `problem.blocks` by the factor; leaves normalisation layers."""
    tied_once = {id(p): p for _, module in problem.blocks for p in module.parameters(recurse=False)}
    for p in tied_once.values():
        if p.requires_grad:
            p.mul_(factor)


@torch.no_grad()
def restart(problem: Problem, keep: Sequence[nn.Module] = ()) -> None:
    """Gives the model fresh weights and buffers; frozen weights stay.

    Args:
        problem: Whose model is edited.
        keep: Modules whose own weights and buffers stay.
    """
    fresh = build_fresh(problem)
    excluded_ids = {id(x) for m in keep for x in [*m.parameters(recurse=False), *m.buffers(recurse=False)]}
    for target, source in zip(problem.model.parameters(), fresh.parameters(), strict=True):
        if target.requires_grad and id(target) not in excluded_ids:
            target.copy_(cut(source, target))
    for target, source in zip(problem.model.buffers(), fresh.buffers(), strict=True):
        if id(target) not in excluded_ids:
            target.copy_(source)


def build_fresh(problem: Problem) -> nn.Module:
    """A model with fresh weights of the same names.

    Raises:
        ValueError: If the model has weights that a fresh one lacks.
    """
    fresh = problem.fresh_model()
    if dict(problem.model.named_parameters()).keys() != dict(fresh.named_parameters()).keys():
        raise ValueError(
            "fresh weights need a model as it was built, found other weights, such as low-rank additions: "
            "give the model without them"
        )
    return fresh


def renew(problem: Problem, modules: Sequence[nn.Module]) -> None:
    """Gives these modules fresh weights and buffers, as `restart` gives them to all.

    Raises:
        ValueError: If one has no trainable weight, or shares one with another module, which keeps its own.
    """
    if any(not any(p.requires_grad for p in m.parameters(recurse=False)) for m in modules):
        raise ValueError("a module to be redrawn has no trainable weights: set requires_grad on them")
    ids = {id(m) for m in modules}
    other_modules = [m for m in problem.model.modules() if id(m) not in ids]
    mask, other_mask = (
        weights_of_modules(modules, problem.params),
        weights_of_modules(other_modules, problem.params),
    )
    names = names_where(multiply(mask, other_mask), Tensor.bool)
    if names:
        raise ValueError(
            f"the weights {names[0]} are to be redrawn, and other modules share them: use another method"
        )
    restart(problem, keep=other_modules)


@torch.no_grad()
def shrink_and_perturb(problem: Problem, keep: float, within: Mask | None = None) -> None:
    r"""Mixes the weights with fresh ones: :math:`k \theta + (1 - k)\, \theta_\mathrm{fresh}`.

    After Ash & Adams (2020), https://arxiv.org/abs/1910.08475: what was learnt fades, and the weights train
    again like fresh ones. Frozen weights and buffers stay.

    Args:
        problem: Whose model is edited.
        keep: The fraction k that stays.
        within: Weights at zero stay as they are.

    Raises:
        ValueError: If the model has weights that a fresh one lacks.
    """
    fresh = dict(build_fresh(problem).named_parameters())
    for name, p in problem.params.items():
        mixture = p.lerp(cut(fresh[name], p), 1 - keep)
        p.copy_(mixture if within is None else torch.where(within[name] > 0, mixture, p))


@torch.no_grad()
def grow_head(problem: Problem) -> None:
    """Adds one output to a linear head, with its layer's own initialisation (boundary expanding).

    Raises:
        ValueError: If the head is not linear.
    """
    name, head = problem.head
    if is_model_sharded(problem.model):
        raise UnfitProcesses("the head of a sharded model can't grow: use another method")
    if not isinstance(head, nn.Linear):
        raise ValueError(f"only a linear head can grow, found {type(head).__name__} at {name!r}")
    row = redraw(head.weight[:1], problem.generator)
    head.weight = nn.Parameter(torch.cat([head.weight, row]))
    if head.bias is not None:
        head.bias = nn.Parameter(torch.cat([head.bias, head.bias.new_zeros(1)]))
    head.out_features += 1
