"""CFW, a winner of the NeurIPS 2023 unlearning competition: noise on the stem, and a weighted fine-tuning.

The definition is that of Deep Unlearn (Cadet et al., 2024), https://arxiv.org/abs/2410.01276, and of its
released code; the entry itself has no paper.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from unweave.choices import refuse_outside
from unweave.descent.descend import Descent, Phase, descend
from unweave.descent.edit import PerturbFirst, perturb
from unweave.descent.importance import Mask, weights_of_modules
from unweave.descent.objective import Objective, on
from unweave.methods.about import About, refuse_family
from unweave.problem import Problem
from unweave.space import RATES, Log, Range, up_to
from unweave.tasks import Batch
from unweave.weights.params import scale
from unweave.weights.step import Step

__all__ = ["CFW"]


@dataclass(frozen=True)
class CFW:
    """Adds strong noise to the first kernel, fine-tunes with equal weight per class; adds noise once more.

    Args:
        noise: The standard deviation of the noise before the fine-tuning, in the unit of the weights.
        last_noise: The standard deviation of the noise before its last part.
        last: The length of that last part, as a fraction of the fine-tuning.
        how: The fine-tuning.
    """

    about: ClassVar[About] = About(
        "Cadet et al., 2024, arXiv 2410.01276 (competition entry)",
        "retain",
        "1 gradient",
        "noise on the kernel or matrix of the first weight-bearing module with a trainable one, whatever its "
        "name and kind, not on the outermost modules called conv, of which many models have none; a class "
        "weighs on its own examples, where the released code multiplies the mean loss of the batch; the "
        "learning rate falls at every step",
        families=("classifier",),
        edits="adds noise to the weights",
    )
    noise: float = 0.6
    last_noise: float = 0.005
    last: float = 0.25
    how: Descent = Descent(lr=7e-4, epochs=4, batch=64, schedule="cosine", weight_decay=5e-4)

    def __post_init__(self) -> None:
        refuse_outside(self, "[0, inf)", "noise", "last_noise")
        refuse_outside(self, "(0, 1)", "last")

    def space(self, budget: int) -> Mapping[str, Range]:
        """The search space; four steps or more, so that the last part has one."""
        return {
            "how.lr": RATES,
            "how.steps": up_to(budget, least=4),
            "noise": Log(0.01, 1.0),
            "last_noise": Log(1e-4, 0.1),
        }

    def __call__(self, problem: Problem) -> None:
        """Edits the problem's model in place.

        Raises:
            ValueError: If no kernel or matrix is trainable.
        """
        refuse_family(self, problem.task)
        stem, fit = first_kernel(problem), balanced_loss(problem, power=1.0)
        perturb(problem, scale(stem, self.noise))
        perturbation = PerturbFirst(scale(stem, self.last_noise))
        descend(
            problem,
            self.how,
            Phase([fit], share=1 - self.last),
            Phase([fit], share=self.last, watch=perturbation),
        )


def first_kernel(problem: Problem) -> Mask:
    """The mask of the first trainable kernel or matrix of `problem.blocks`."""
    params = problem.params
    for _, module in problem.blocks:
        masks = weights_of_modules([module], params)
        kernels = {name for name, mask in masks.items() if params[name].ndim > 1 and bool(mask.any())}
        if kernels:
            return {name: mask * (name in kernels) for name, mask in masks.items()}
    raise ValueError(
        "cfw puts noise on the first kernel or matrix, and none of this model's is trainable: "
        "use another method"
    )


def balanced_loss(problem: Problem, *, power: float) -> Objective:
    r"""The retain loss, each example times :math:`w_y \propto n_y^{-\mathrm{power}}`; their mean is one.

    :math:`n_y` is the number of retain examples of the class. At a power of one all classes have equal
    weight.
    """
    labels = problem.split.train.labels[problem.split.retain]
    counts = labels.bincount(minlength=problem.split.n_classes).clamp(min=1)  # no examples: unused
    raw = counts.double() ** -power
    weights = raw / raw[labels].mean()

    def value(step: Step, batch: Batch) -> Tensor:
        loss = step.runtime.task.loss(step.predict(batch), batch.target)
        return weights.to(loss)[batch.target] * loss

    return on("retain", "balanced", value)
