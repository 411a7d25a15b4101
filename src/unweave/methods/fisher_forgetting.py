"""Fisher forgetting (Golatkar et al., CVPR 2020), https://arxiv.org/abs/1911.04933."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.utils._pytree import tree_map

from unweave.choices import refuse_outside
from unweave.descent.edit import perturb
from unweave.descent.importance import Importance, steps
from unweave.errors import Failed, UnfitProcesses
from unweave.methods.about import About, refuse_family
from unweave.problem import Problem
from unweave.space import Log, Range
from unweave.tasks import Batch, Inputs, call, evaluating
from unweave.weights.params import Params, add, scale
from unweave.weights.sharded import is_sharded, names_where, not_finite
from unweave.weights.step import Step

__all__ = ["FisherForgetting"]

FLOOR = 1e-8
"""Added to the information, as in the released code, to avoid a division by zero."""


@dataclass(frozen=True)
class FisherForgetting:
    r"""Adds noise to each weight, more if the weight matters less to the retain set; trains nothing.

    .. math:: \theta_j \leftarrow \theta_j + \mathcal N(0, \alpha \min(1 / F_j, c)), \quad
        F_j = \frac{1}{n_r} \sum_x \sum_y p(y \mid x) \left(\partial_j \log p(y \mid x)\right)^2

    with F the diagonal of the Fisher information of the retain set, over single examples and over labels from
    the model's own distribution. All classes are treated alike: no row of the last layer is zeroed.

    Args:
        alpha: The strength of the noise.
        largest: The largest inverse of the information, c: the noise of a weight that does not matter.
        batch: The number of examples differentiated at once, each on its own; memory grows with it.
    """

    about: ClassVar[About] = About(
        "Golatkar et al., CVPR 2020, arXiv 1911.04933",
        "retain",
        "no steps; 1 gradient a class and batch of retain, each example by itself",
        "the variance is that of the released code, not the root of it as in the paper; it is taken weight "
        "by weight, neither averaged over a unit's inputs nor tenfold in the last layer and in vectors",
        families=("classifier",),
        edits="adds noise to the weights",
    )
    alpha: float = 1e-6
    largest: float = 1e3
    batch: int = 32

    def __post_init__(self) -> None:
        refuse_outside(self, "(0, inf)", "alpha")
        refuse_outside(self, "(0, inf]", "largest")
        refuse_outside(self, "[1, inf)", "batch")

    def space(self, budget: int) -> Mapping[str, Range]:
        """The search space; the pass costs the same, whatever the budget."""
        return {"alpha": Log(1e-8, 1e-3), "largest": Log(10.0, 1e5)}

    def __call__(self, problem: Problem) -> None:
        """Edits the problem's model in place.

        Raises:
            Failed: If the information is not finite.
        """
        refuse_family(self, problem.task)
        fisher_information = information(problem, batch=self.batch)
        if names_where(fisher_information, not_finite):
            raise Failed("the Fisher information is no longer finite: the model is not")
        variance = {
            name: self.alpha * (1 / (f + FLOOR)).clamp(max=self.largest)
            for name, f in fisher_information.items()
        }
        perturb(problem, {name: v.sqrt() for name, v in variance.items()})


def information(problem: Problem, *, batch: int) -> Importance:
    """The diagonal of the Fisher information of the retain set, per example, in evaluation mode.

    Raises:
        ValueError: If the weights are sharded.
    """
    if any(map(is_sharded, problem.params.values())):
        raise UnfitProcesses(
            "gradients of single examples need whole weights, found sharded ones: use another method"
        )
    total = {name: torch.zeros_like(p) for name, p in problem.params.items()}
    with evaluating(problem.model):
        for step in steps(problem, "retain", batch=batch):
            for micro_batch in step.batches["retain"]:
                total = add(total, squares(step, micro_batch))
    return scale(problem.processes.total(total), 1 / len(problem.split.retain))


def squares(step: Step, batch: Batch) -> Importance:
    r"""The sum over examples and classes of :math:`p(y \mid x) (\partial_j \log p(y \mid x))^2`."""
    model = step.runtime.model
    weights = {name: p.detach() for name, p in step.params.items()}

    def log_probability(weights: Params, inputs: Inputs, label: int) -> Tensor:
        """The log-probability of a label for one example."""
        example = tree_map(lambda x: x[None], inputs)
        args, kwargs = ((), dict(example)) if isinstance(example, Mapping) else (example, {})
        output = functional_call(model, dict(weights), args, kwargs)
        return (output if isinstance(output, Tensor) else output.logits).log_softmax(-1)[0, label]

    with torch.no_grad():
        chances = call(model, batch.inputs).softmax(-1)
        total = {name: torch.zeros_like(p) for name, p in weights.items()}
        for label in range(chances.shape[1]):
            step.count(len(batch))
            slopes = vmap(grad(log_probability), (None, 0, None))(weights, batch.inputs, label)
            sums = {name: torch.tensordot(chances[:, label], g.square(), 1) for name, g in slopes.items()}
            total = add(total, sums)
    return total
