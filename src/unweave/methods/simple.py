"""Baselines that are one line each."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from unweave.choices import refuse_outside
from unweave.descent.descend import Descent, Phase, descend
from unweave.descent.edit import restart, shrink
from unweave.descent.objective import l1, nll
from unweave.methods.about import REFERENCE, About
from unweave.problem import Problem
from unweave.space import RATES, SCHEDULES, Log, Range, Uniform, Whole, up_to
from unweave.targets import Ascent, Mislabel, Target, ascents

__all__ = [
    "FineTune",
    "FromScratch",
    "GradientAscent",
    "L1Sparse",
    "NegGradPlus",
    "Original",
    "RandomLabel",
    "Shrink",
]


@dataclass(frozen=True)
class Original:
    """The untouched original, to compare methods with."""

    about: ClassVar[About] = About(REFERENCE, "none", "0")

    def __call__(self, problem: Problem) -> None:
        """Leaves the model unchanged."""


@dataclass(frozen=True)
class FromScratch:
    """Trains fresh weights on the retain set: the exact answer if long, the baseline to beat if short.

    Args:
        how: The training.
    """

    about: ClassVar[About] = About(
        REFERENCE,
        "retain",
        "1 gradient",
        "short-retrain: the whole budget of a recipe",
        edits="redraws all weights",
    )
    needs_fresh_weights: ClassVar[bool] = True
    how: Descent = Descent(lr=0.1, steps=300, schedule="cosine", warmup=0.15, weight_decay=5e-4)

    def space(self, budget: int) -> Mapping[str, Range]:
        """The search space."""
        return {"how.lr": RATES, "how.warmup": Uniform(0.05, 0.4)}

    def __call__(self, problem: Problem) -> None:
        """Edits the problem's model in place."""
        restart(problem)
        descend(problem, self.how, Phase([nll("retain")]))


@dataclass(frozen=True)
class FineTune:
    """Continues to train on the retain set only.

    Args:
        how: The descent.
    """

    about: ClassVar[About] = About("Warnecke et al., 2021, arXiv 2108.11577", "retain", "1 gradient")
    how: Descent = Descent(lr=0.05, epochs=10, weight_decay=5e-4)

    def space(self, budget: int) -> Mapping[str, Range]:
        """The search space."""
        return {
            "how.lr": RATES,
            "how.steps": up_to(budget),
            "how.schedule": SCHEDULES,
        }

    def __call__(self, problem: Problem) -> None:
        """Edits the problem's model in place."""
        descend(problem, self.how, Phase([nll("retain")]))


@dataclass(frozen=True)
class GradientAscent:
    """Maximises the loss of the forget set. Unbounded: it diverges if it runs for long.

    Args:
        forget: The forget loss; the method's own is ascent.
        how: The descent.
    """

    about: ClassVar[About] = About(
        "Thudi et al., 2022, arXiv 2109.13398",
        "forget",
        "1 gradient",
        "BatchNorm statistics stay frozen and the norm is clipped",
    )
    forget: Target = Ascent()
    how: Descent = Descent(lr=0.005, steps=20, momentum=0.0, max_norm=1.0, norm="frozen")

    def space(self, budget: int) -> Mapping[str, Range]:
        """The search space."""
        return {
            "how.lr": Log(1e-4, 0.3),
            "how.steps": Whole(max(1, budget // 30), max(1, budget // 4)),
            **ascents(self.forget),
        }

    def __call__(self, problem: Problem) -> None:
        """Edits the problem's model in place."""
        forget = self.forget(problem, self.how)
        descend(problem, self.how, Phase([forget], idle=forget.idle, watch=forget.watch))


@dataclass(frozen=True)
class RandomLabel:
    """Trains on wrong targets on the forget set and on true ones on the retain set.

    Args:
        retain_weight: The weight of the retain loss.
        forget: The forget loss.
        how: The descent.
    """

    about: ClassVar[About] = About(
        "Golatkar et al., 2020, arXiv 1911.04933",
        "forget, retain",
        "2 gradients",
        "wrong labels are redrawn at every step and exclude the true one; a batch of each part at every "
        "step, not one shuffled stream",
    )
    retain_weight: float = 1.0
    forget: Target = Mislabel()
    how: Descent = Descent(lr=0.05, steps=100, forget_batch=32)

    def __post_init__(self) -> None:
        refuse_outside(self, "[0, inf)", "retain_weight")

    def space(self, budget: int) -> Mapping[str, Range]:
        """The search space."""
        return {
            "how.lr": RATES,
            "how.steps": up_to(budget // 2, share=6),
            "retain_weight": Log(0.5, 20.0),
            "how.schedule": SCHEDULES,
        }

    def __call__(self, problem: Problem) -> None:
        """Edits the problem's model in place."""
        forget = self.forget(problem, self.how)
        objective = forget + self.retain_weight * nll("retain")
        descend(problem, self.how, Phase([objective], watch=forget.watch))


@dataclass(frozen=True)
class NegGradPlus:
    r"""Minimises :math:`\beta L_r - (1 - \beta) L_f`.

    Args:
        retain_weight: The weight beta.
        forget: The forget loss; the method's own is ascent.
        how: The descent.
    """

    about: ClassVar[About] = About(
        "Kurmanji et al., 2023, arXiv 2302.09880, Equation 6",
        "forget, retain",
        "2 gradients",
        "no pull towards the original weights; the norm is clipped; each pass draws its batches anew",
    )
    retain_weight: float = 0.95
    forget: Target = Ascent()
    how: Descent = Descent(lr=0.05, steps=100, max_norm=1.0)

    def __post_init__(self) -> None:
        refuse_outside(self, "[0, 1]", "retain_weight")

    def space(self, budget: int) -> Mapping[str, Range]:
        """The search space."""
        return {
            "how.lr": RATES,
            "how.steps": up_to(budget // 2, share=6),
            "retain_weight": Uniform(0.6, 0.999),
            **ascents(self.forget),
            "how.schedule": SCHEDULES,
        }

    def __call__(self, problem: Problem) -> None:
        """Edits the problem's model in place."""
        beta, forget = self.retain_weight, self.forget(problem, self.how)
        objective = beta * nll("retain") + (1 - beta) * forget
        descend(problem, self.how, Phase([objective], watch=forget.watch))


@dataclass(frozen=True)
class L1Sparse:
    r"""Fine-tunes with the penalty :math:`\gamma (1 - t) \|\theta\|_1`, which fades over the run.

    Args:
        penalty: The strength gamma at the start.
        how: The descent.
    """

    about: ClassVar[About] = About(
        "Jia et al., 2023, arXiv 2304.04934",
        "retain",
        "1 gradient",
        "the penalty fades at every step, not every epoch",
        edits="penalises the size of the weights",
    )
    penalty: float = 1e-4
    how: Descent = Descent(lr=0.05, epochs=10, weight_decay=5e-4)

    def __post_init__(self) -> None:
        refuse_outside(self, "[0, inf)", "penalty")

    def space(self, budget: int) -> Mapping[str, Range]:
        """The search space."""
        return {
            "how.lr": RATES,
            "how.steps": up_to(budget),
            "penalty": Log(1e-6, 3e-3),
            "how.schedule": SCHEDULES,
        }

    def __call__(self, problem: Problem) -> None:
        """Edits the problem's model in place."""
        descend(
            problem, self.how, Phase([nll("retain") + l1(lambda progress: self.penalty * (1 - progress))])
        )


@dataclass(frozen=True)
class Shrink:
    """Scales all weights down and continues to train on the retain set.

    Args:
        factor: The factor of the weights.
        how: The descent.
    """

    about: ClassVar[About] = About(
        "ours, after Ash & Adams, 2020, arXiv 1910.08475",
        "retain",
        "1 gradient",
        "shrinks without perturbing",
        edits="shrinks the weights",
    )
    factor: float = 0.5
    how: Descent = Descent(lr=0.1, epochs=5, schedule="cosine", weight_decay=5e-4)

    def __post_init__(self) -> None:
        refuse_outside(self, "[0, 1]", "factor")

    def space(self, budget: int) -> Mapping[str, Range]:
        """The search space."""
        return {
            "how.lr": RATES,
            "how.steps": up_to(budget),
            "factor": Uniform(0.02, 0.9),
        }

    def __call__(self, problem: Problem) -> None:
        """Edits the problem's model in place."""
        shrink(problem, self.factor)
        descend(problem, self.how, Phase([nll("retain")]))
