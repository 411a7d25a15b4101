"""CF-k and EU-k (Goel et al., 2022), https://arxiv.org/abs/2201.06640: only the last k layers unlearn.

A layer is a module with its own matrix or kernel, in order of registration (`Problem.blocks`), together with
the modules registered before the next one, usually its BatchNorm. That is the order of the forward pass only
if the model registers its modules in that order. A shared weight belongs to the earliest of its layers.

Earlier layers are frozen bit for bit: no weight decay, momentum or BatchNorm statistics change them. A new
head on old features is EU-k with k = 1; some released code calls it retrained.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from unweave.choices import refuse_outside
from unweave.descent.descend import Descent, Phase, descend
from unweave.descent.edit import restart
from unweave.descent.importance import Mask, invert, weights_of_modules
from unweave.descent.objective import nll
from unweave.methods.about import About, refuse_family
from unweave.problem import Problem
from unweave.space import RATES, Range, Whole, up_to
from unweave.weights.sharded import names_where

__all__ = ["CFk", "EUk"]


@dataclass(frozen=True)
class CFk:
    """Fine-tunes the last k layers on the retain set, so that they forget the rest.

    Args:
        k: The number of layers to train. If the model has no more layers, this is fine-tuning; a search draws
            up to ten.
        how: The descent.
    """

    about: ClassVar[About] = About(
        "Goel et al., 2022, arXiv 2201.06640",
        "retain",
        "1 gradient",
        "a layer is a module with a matrix or kernel and what is registered up to the next; BatchNorm of the "
        "frozen layers keeps its statistics and normalises by them; k and the descent are ours",
        families=("classifier",),
        edits="trains the last layers themselves",
    )
    k: int = 2
    how: Descent = Descent(lr=0.05, epochs=10, weight_decay=5e-4)

    def __post_init__(self) -> None:
        refuse_outside(self, "[1, inf)", "k")

    def space(self, budget: int) -> Mapping[str, Range]:
        """The search space."""
        return ranges(budget)

    def __call__(self, problem: Problem) -> None:
        """Edits the problem's model in place."""
        refuse_family(self, problem.task)
        earlier = modules_before(problem, self.k)
        descend(
            problem, self.how, Phase([nll("retain")], where=weights_outside(earlier, problem)), still=earlier
        )


@dataclass(frozen=True)
class EUk:
    """Retrains the last k layers on the retain set: exact if the other layers never saw the forget set.

    Args:
        k: The number of layers to retrain. If the model has no more layers, this is a short retraining; a
            search draws up to ten.
        how: The training.
    """

    about: ClassVar[About] = About(
        "Goel et al., 2022, arXiv 2201.06640",
        "retain",
        "1 gradient",
        "as CF-k; BatchNorm of the last layers starts afresh with its statistics",
        families=("classifier",),
        edits="redraws the last layers",
    )
    needs_fresh_weights: ClassVar[bool] = True
    k: int = 2
    how: Descent = Descent(lr=0.05, epochs=10, weight_decay=5e-4)

    def __post_init__(self) -> None:
        refuse_outside(self, "[1, inf)", "k")

    def space(self, budget: int) -> Mapping[str, Range]:
        """The search space."""
        return ranges(budget)

    def __call__(self, problem: Problem) -> None:
        """Edits the problem's model in place."""
        refuse_family(self, problem.task)
        earlier = modules_before(problem, self.k)
        where = weights_outside(earlier, problem)
        restart(problem, keep=earlier)
        descend(problem, self.how, Phase([nll("retain")], where=where), still=earlier)


def ranges(budget: int) -> Mapping[str, Range]:
    """The search space; k as in Deep Unlearn (Cadet et al., 2024)."""
    return {"how.lr": RATES, "how.steps": up_to(budget), "k": Whole(1, 10)}


def modules_before(problem: Problem, k: int) -> list[nn.Module]:
    """The modules registered before the last k layers."""
    blocks = problem.blocks
    if k >= len(blocks):
        return []
    modules = list(problem.model.modules())
    return modules[: modules.index(blocks[-k][1])]


def weights_outside(earlier: list[nn.Module], problem: Problem) -> Mask:
    """The mask of the weights outside these modules.

    Raises:
        ValueError: If no trainable weight is left.
    """
    where = invert(weights_of_modules(earlier, problem.params))
    if not names_where(where, Tensor.bool):
        raise ValueError(
            "the last k layers have no trainable weight that earlier ones do not share: choose a larger k"
        )
    return where
