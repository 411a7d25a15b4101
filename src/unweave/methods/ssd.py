"""Selective Synaptic Dampening, SSD (Foster et al., AAAI 2024), https://arxiv.org/abs/2308.07707.

Without labels: Loss-Free Machine Unlearning (Foster et al., 2024), https://arxiv.org/abs/2402.19308.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import ClassVar, Literal

import torch

from unweave.choices import refuse_outside, refuse_unknown_choices
from unweave.descent.edit import dampen
from unweave.descent.importance import Importance, accumulate, fisher, gradients
from unweave.descent.objective import nll, on
from unweave.errors import Failed
from unweave.methods.about import About, refuse_family
from unweave.problem import Problem
from unweave.space import Log, Range
from unweave.split import Part
from unweave.weights.params import scale
from unweave.weights.sharded import names_where, not_finite

__all__ = ["SelectiveSynapticDampening"]


@dataclass(frozen=True)
class SelectiveSynapticDampening:
    r"""Dampens weights that matter far more to the forget set than to all training data; trains nothing.

    With the importances :math:`F` over the forget set and :math:`D` over all training data, it sets
    :math:`\theta_j \leftarrow \min(1, \lambda D_j / F_j)\, \theta_j` wherever :math:`F_j > \alpha D_j`. All
    trainable weights are candidates, including normalisations, as in the released code. An importance is
    :math:`\frac{1}{B} \sum_b g_b^2` over gradients of batches, not of examples, in evaluation mode and
    without augmentation: it depends on the size of the batches.

    Args:
        alpha: The factor by which a weight must matter more to be dampened. The published value, 10, is for
            few forget examples or a class; for a random tenth it may select almost no weights.
        dampening: The constant lambda.
        batch: The largest batch.
        importance: "fisher": from the training loss. "label-free": the mean over batches of the absolute
            gradient of the squared norm of the logits, which needs no labels.
    """

    about: ClassVar[About] = About(
        "Foster et al., AAAI 2024, arXiv 2308.07707",
        "forget, retain",
        "no steps; 1 pass over forget and 1 over forget and retain, in batches no larger than forget",
        "both importances are taken in batches of one size, at which those of forget are equal",
        families=("classifier",),
        edits="dampens the weights",
    )
    alpha: float = 10.0
    dampening: float = 1.0
    batch: int = 64
    importance: Literal["fisher", "label-free"] = "fisher"

    def __post_init__(self) -> None:
        refuse_unknown_choices(self)
        refuse_outside(self, "[0, inf)", "alpha", "dampening")
        refuse_outside(self, "[1, inf)", "batch")

    def space(self, budget: int) -> Mapping[str, Range]:
        """The search space; the two passes cost the same, whatever the budget."""
        return {"alpha": Log(0.5, 100.0), "dampening": Log(0.03, 3.0)}

    def __call__(self, problem: Problem) -> None:
        """Edits the problem's model in place.

        Raises:
            Failed: If an importance is not finite.
        """
        refuse_family(self, problem.task)
        forget, mixed = (self.scores(problem, part) for part in ("forget", "mixed"))
        dampen(
            problem,
            {
                name: torch.where(f > self.alpha * mixed[name], self.dampening * mixed[name] / f, 1.0)
                for name, f in forget.items()
            },
        )

    def scores(self, problem: Problem, part: Part) -> Importance:
        """The importance of each weight to a part, with batches of the same size for every part."""
        examples = len(problem.split.forget)
        # a last batch of one example would count as much as the others, and its gradient is large
        size = ceil(examples / ceil(examples / self.batch))
        if self.importance == "fisher":
            importance = fisher(problem, nll(part), batch=size)
        else:
            importance = sensitivity(problem, part, batch=size)
        if names_where(importance, not_finite):
            raise Failed("an importance is no longer finite: the model or its loss is not")
        return importance


def sensitivity(problem: Problem, part: Part, *, batch: int) -> Importance:
    r""":math:`\frac{1}{B} \sum_b |g_b|` of the mean over examples of :math:`\|z\|^2`, with the logits z."""
    objective = on(part, "squared norm", lambda step, batch: step.predict(batch).square().sum(-1))
    total, count = accumulate(gradients(problem, objective, batch=batch), torch.abs)
    return scale(total, 1 / count)
