"""Starts: edits of the weights before a method, or before a recovery.

Each is a method like any other, useful as the first stage of a `Pipeline`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from unweave.choices import refuse_no_pattern, refuse_outside
from unweave.descent.edit import restart, shrink_and_perturb
from unweave.descent.importance import match_names
from unweave.descent.redraw import redraw_sensitive
from unweave.methods.about import About
from unweave.problem import Problem
from unweave.space import Log, Range, Uniform

__all__ = ["Fresh", "Redraw", "ShrinkPerturb"]


@dataclass(frozen=True)
class ShrinkPerturb:
    r"""Mixes the weights with fresh ones, :math:`k \theta + (1 - k)\, \theta_\mathrm{fresh}`.

    Args:
        keep: The fraction k of the old weights.
        where: A pattern for the names of the weights to edit; all if None.
    """

    about: ClassVar[About] = About(
        "Ash & Adams, NeurIPS 2020, arXiv 1910.08475",
        "none",
        "no steps",
        "a start, for pipelines",
        edits="shrinks the weights",
    )
    needs_fresh_weights: ClassVar[bool] = True
    keep: float = 0.6
    where: str | None = None

    def __post_init__(self) -> None:
        refuse_outside(self, "[0, 1]", "keep")
        refuse_no_pattern(self, "where")

    def space(self, budget: int) -> Mapping[str, Range]:
        """The search space."""
        return {"keep": Uniform(0.3, 1.0)}

    def __call__(self, problem: Problem) -> None:
        """Edits the problem's model in place."""
        mask = None if self.where is None else match_names(problem.params, self.where)
        shrink_and_perturb(problem, self.keep, mask)


@dataclass(frozen=True)
class Redraw:
    """Redraws the weights most sensitive to the forget set (SNIP), as Scissorhands does first.

    Args:
        fraction: The fraction of the eligible weights.
        eligible: A pattern for their names; by default the last third of the modules with matrices or
            kernels.
    """

    about: ClassVar[About] = About(
        "Wu & Harandi, ECCV 2024, arXiv 2401.06187",
        "forget",
        "no steps; 1 pass over forget",
        "a start, for pipelines",
        edits="redraws weights",
    )
    fraction: float = 0.03
    eligible: str | None = None

    def __post_init__(self) -> None:
        refuse_outside(self, "[0, 1]", "fraction")
        refuse_no_pattern(self, "eligible")

    def space(self, budget: int) -> Mapping[str, Range]:
        """The search space."""
        return {"fraction": Log(0.003, 0.3)}

    def __call__(self, problem: Problem) -> None:
        """Edits the problem's model in place."""
        redraw_sensitive(problem, self.fraction, eligible=self.eligible)


@dataclass(frozen=True)
class Fresh:
    """Gives the model fresh weights and buffers."""

    about: ClassVar[About] = About(
        "ours", "none", "no steps", "a start, for pipelines", edits="redraws all weights"
    )
    needs_fresh_weights: ClassVar[bool] = True

    def __call__(self, problem: Problem) -> None:
        """Edits the problem's model in place."""
        restart(problem)
