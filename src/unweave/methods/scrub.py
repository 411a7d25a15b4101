"""SCRUB (Kurmanji et al., NeurIPS 2023), https://arxiv.org/abs/2302.09880."""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from unweave.choices import refuse_outside
from unweave.descent.batches import plan_inputs
from unweave.descent.descend import Descent, Phase, descend
from unweave.descent.feed import steps_per_epoch
from unweave.descent.objective import Objective, nll, on, reference, refuse_trainable
from unweave.methods.about import About, refuse_family
from unweave.problem import Problem
from unweave.space import Log, Range, Uniform, up_to
from unweave.split import Part
from unweave.targets.estimators.held_out import logits
from unweave.tasks import Batch
from unweave.weights.step import Step

__all__ = ["SCRUB"]


@dataclass(frozen=True)
class SCRUB:
    r"""Alternates: diverges from the original on the forget set, stays near it on the retain set.

    An epoch maximises :math:`d` over the forget set, then minimises :math:`\gamma \ell + \alpha d` over the
    retain set, with :math:`d` from `softened_divergence`; the last epochs have the second pass alone. Without
    BatchNorm the first pass over the forget set has zero gradient, since the model still equals its teacher:
    a run then needs two of them.

    The defaults are those of the released code for CIFAR-10; its scripts, its notebooks and the paper
    disagree.

    Args:
        retain_weight: The weight gamma of the retain loss.
        distill_weight: The weight alpha of the divergence from the teacher on retain data.
        temperature: The divisor of the logits of both in the divergence.
        alternate: The fraction of the epochs, or of the steps, with passes over the forget set.
        rewind: Return to the epoch whose error on the forget set was nearest to the last model's error on
            held-out data of the same classes (SCRUB+R), so that the model does not forget more than a model
            that never saw the set. Candidates are the models after every epoch, and the original.
        how: The descent.
    """

    about: ClassVar[About] = About(
        "Kurmanji et al., NeurIPS 2023, arXiv 2302.09880",
        "forget, retain; calibration if rewound",
        "1 gradient; 1 forward pass of the original; 1 forward pass over forget an epoch if rewound",
        "rewinding (SCRUB+R) only if `rewind` is set; the learning rate does not fall in steps; an average "
        "of the weights (ema), if set, is the result, which the released code computes and drops",
        families=("classifier",),
    )
    retain_weight: float = 0.99
    distill_weight: float = 0.001
    temperature: float = 4.0
    alternate: float = 2 / 3
    rewind: bool = False
    how: Descent = Descent(lr=5e-4, epochs=3, forget_batch=32, weight_decay=5e-4)

    def __post_init__(self) -> None:
        refuse_outside(self, "[0, inf)", "retain_weight", "distill_weight")
        refuse_outside(self, "(0, inf)", "temperature")
        refuse_outside(self, "(0, 1]", "alternate")
        if self.rewind and self.how.ema is not None:
            raise ValueError(
                "rewinding keeps the weights of every epoch, and how.ema averages them: use one of them"
            )

    @property
    def unsaved_state(self) -> str:
        """What no saved state holds; empty if all is saved."""
        return "the models to rewind to" if self.rewind else ""

    def space(self, budget: int) -> Mapping[str, Range]:
        """The search space; two steps or more, one for each phase."""
        return {
            "how.lr": Log(1e-4, 0.1),
            "how.steps": up_to(budget, least=2),
            "distill_weight": Log(1e-4, 1.0),
            "alternate": Uniform(0.3, 0.7),
        }

    def __call__(self, problem: Problem) -> None:
        """Edits the problem's model in place."""
        refuse_family(self, problem.task)
        teacher = problem.original
        leave = -softened_divergence(teacher, "forget", self.temperature)
        stay = self.distill_weight * softened_divergence(teacher, "retain", self.temperature)
        repair = self.retain_weight * nll("retain") + stay
        joint_phase = Phase([leave, repair], feed="sequential", idle=True, share=self.alternate)
        repair_phase = Phase([repair], share=1 - self.alternate)
        phases = [joint_phase, repair_phase] if self.alternate < 1 else [joint_phase]
        if self.rewind:
            descend_and_rewind(problem, self.how, phases)
        else:
            descend(problem, self.how, *phases)


def descend_and_rewind(problem: Problem, how: Descent, phases: Sequence[Phase]) -> None:
    """Trains, then returns to the epoch whose forget error is nearest to the last held-out error.

    Ties go to the first epoch; the original counts as epoch zero. The errors are traced as "forget error", by
    the number of epochs.
    """
    same_classes = mark_forget_classes(problem)
    states: list[tuple[float, dict[str, object]]] = []

    def keep(of: Problem) -> None:
        error = error_rate(of, "forget")
        of.traces.setdefault("forget error", []).append((len(states), error, math.nan))
        states.append((error, copy.deepcopy(of.model.state_dict())))

    def watch_errors(phase: Phase) -> Phase:
        epoch = steps_per_epoch(phase.feed, *plan_inputs(problem, phase, how))
        return replace(phase, watch=lambda of, index: None if index % epoch else keep(of))

    descend(problem, how, *map(watch_errors, phases))
    keep(problem)
    aim = error_rate(problem, "calibration", same_classes)
    _, nearest = min(states, key=lambda each: abs(each[0] - aim))
    problem.model.load_state_dict(nearest)


def mark_forget_classes(problem: Problem) -> Bool[Tensor, " n"]:
    """Which calibration examples are of a class in the forget set.

    Raises:
        ValueError: If there are none.
    """
    split = problem.split
    classes = split.train.labels[split.forget].unique()
    is_forget_class = torch.isin(split.held_out.labels[split.calibration], classes)
    if not bool(is_forget_class.any()):
        raise ValueError(
            "rewinding needs calibration examples of the classes that are forgotten, found none: give more, "
            "or set rewind to false"
        )
    return is_forget_class


def error_rate(problem: Problem, part: Part, among: Bool[Tensor, " n"] | None = None) -> float:
    """The fraction of a part, or of some of it, that the model misclassifies."""
    source, ids = problem.split.part(part)
    is_wrong = logits(problem, problem.model, part).argmax(1) != source.labels[ids]
    return float((is_wrong if among is None else is_wrong[among]).double().mean())


def softened_divergence(teacher: nn.Module, part: Part, temperature: float) -> Objective:
    r""":math:`T^2 KL(\mathrm{softmax}(t / T) \,\|\, \mathrm{softmax}(s / T))` of teacher and student."""
    refuse_trainable(teacher)

    def value(step: Step, batch: Batch) -> Tensor:
        teacher_output = step.once(("softened", id(teacher), id(batch)), lambda: reference(teacher, batch))
        student = step.predict(batch) / temperature
        return temperature**2 * step.runtime.task.divergence(student, teacher_output / temperature)

    return on(part, "softened", value)
