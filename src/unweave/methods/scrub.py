"""SCRUB (Kurmanji et al., NeurIPS 2023), https://arxiv.org/abs/2302.09880."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from unweave.descend import Descent, Phase, descend
from unweave.methods.about import About, refuse_family
from unweave.methods.space import Log, Range, Uniform, Whole
from unweave.objective import Objective, frozen, nll, on, reference, refuse_moving
from unweave.problem import Part, Problem
from unweave.step import Step
from unweave.tasks import Batch


@dataclass(frozen=True)
class SCRUB:
    r"""Leaves the original, its teacher, on forget data, and stays with it on retain data, in turns.

    An epoch is a pass over the forget data up :math:`d`, then one over the retain data down
    :math:`\gamma \ell + \alpha d`, with :math:`d` as in `softened`; the last epochs are the second pass
    alone. Where nothing normalises by the batch, the first pass over forget data finds no slope, since the
    model still is its teacher: a run needs two of them there.

    The defaults are what the released code sets for CIFAR-10 at large; its scripts, its notebooks and the
    paper disagree.

    Args:
        retain_weight: The weight gamma of the retain loss.
        distill_weight: The weight alpha of the divergence from the teacher on retain data.
        temperature: What the logits of both are divided by in the divergence.
        alternate: The fraction of the epochs, or of the steps, with passes over the forget data.
        how: The descent.
    """

    about: ClassVar[About] = About(
        "Kurmanji et al., NeurIPS 2023, arXiv 2302.09880",
        "forget, retain",
        "1 gradient; 1 forward pass of the original",
        "no rewinding (SCRUB+R); the learning rate does not fall in steps; an average of the weights (ema), "
        "where asked for, is the result, which the released code computes and drops",
        families=("classifier",),
    )
    retain_weight: float = 0.99
    distill_weight: float = 0.001
    temperature: float = 4.0
    alternate: float = 2 / 3
    how: Descent = Descent(lr=5e-4, epochs=3, forget_batch=32, weight_decay=5e-4)

    def __post_init__(self) -> None:
        if not 0 < self.alternate <= 1:
            raise ValueError(f"alternate must be a fraction in (0, 1], found {self.alternate}")
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, found {self.temperature}")

    def space(self, budget: int) -> Mapping[str, Range]:
        """What a search chooses from; two steps or more, one for each phase."""
        return {
            "how.lr": Log(1e-4, 0.1),
            "how.steps": Whole(max(2, budget // 10), max(2, budget)),
            "distill_weight": Log(1e-4, 1.0),
            "alternate": Uniform(0.3, 0.7),
        }

    def __call__(self, problem: Problem) -> None:
        """Edits the problem's model in place."""
        refuse_family(self, problem.task)
        teacher = frozen(problem.model)
        leave = -softened(teacher, "forget", self.temperature)
        stay = self.distill_weight * softened(teacher, "retain", self.temperature)
        repair = self.retain_weight * nll("retain") + stay
        both = Phase([leave, repair], feed="sequential", idle=True, share=self.alternate)
        alone = Phase([repair], share=1 - self.alternate)
        descend(problem, self.how, *([both, alone] if self.alternate < 1 else [both]))


def softened(teacher: nn.Module, part: Part, temperature: float) -> Objective:
    r""":math:`T^2 KL(\mathrm{softmax}(t / T) \,\|\, \mathrm{softmax}(s / T))` of teacher and student."""
    refuse_moving(teacher)

    def value(step: Step, batch: Batch) -> Tensor:
        says = step.once(("softened", id(teacher), id(batch)), lambda: reference(teacher, batch))
        student = step.predict(batch) / temperature
        return temperature**2 * step.runtime.task.divergence(student, says / temperature)

    return on(part, "softened", value)
