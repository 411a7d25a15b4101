"""Methods one after the other: a start, a method, a recovery.

    Pipeline(ShrinkPerturb(keep=0.6), LUR(), Recover(until=Restored(near=1.0)))

A pipeline is itself a method. On the command line and in recipes its name is the names of its stages, joined
by ":", such as "lur:recover", and the path of a setting begins with the name of its stage:
"lur.alpha", "recover.how.lr".
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import ClassVar, Protocol, runtime_checkable

from unweave.methods.about import (
    REFERENCE,
    About,
    HasAbout,
    needs_fresh_weights,
    refuse_family,
    refuse_no_method,
)
from unweave.methods.recover import Recover
from unweave.problem import Problem, refuse_undrawable_weights
from unweave.space import Range, Tunable, prefix_paths
from unweave.tables import as_table

__all__ = ["Pipeline"]

JOINT = ":"
"""Joins the names of stages; no name of a method contains it."""

FORGETTING = 0.6
"""The largest share of a budget that the stages before a recovery may spend."""

STEPS = ("steps", "budget")
"""The last names of settings that count steps or gradients. Epochs grow with the data anyway."""

StageSpace = Callable[[str, "Stage", int], Mapping[str, Range]]
"""Returns the search space of a stage, from its name, the stage and its budget."""


@runtime_checkable
class Stage(Protocol):
    """Edits a problem's model in place."""

    def __call__(self, problem: Problem) -> None:
        """Edits the problem's model in place."""
        ...


@dataclass(frozen=True, init=False, repr=False)
class Pipeline:
    """Runs its stages in order; each starts from the weights of the previous one, with the same original.

    Args:
        stages: Methods, a user's own functions included.
        names: The names of the stages in recipes; by default the names of their types in lower case.

    Raises:
        ValueError: If there is no stage, one is a reference, two have one name, or a name holds ":" or ".".
    """

    about: ClassVar[About]
    stages: tuple[Stage, ...]
    names: tuple[str, ...] = field(compare=False)

    def __init__(self, *stages: Stage, names: Sequence[str] | None = None) -> None:
        stage_names = tuple(type(each).__name__.lower() for each in stages) if names is None else tuple(names)
        refuse_unfit(stages, stage_names)
        object.__setattr__(self, "stages", stages)
        object.__setattr__(self, "names", stage_names)
        object.__setattr__(self, "about", describe(stages))  # depends on the stages

    @property
    def needs_fresh_weights(self) -> bool:
        """Whether a stage needs a model with fresh weights."""
        return any(needs_fresh_weights(each) for each in self.stages)

    def __repr__(self) -> str:
        return f"Pipeline({', '.join(map(repr, self.stages))})"

    def space(self, budget: int) -> Mapping[str, Range]:
        """The search space: the settings of all stages, under one budget."""
        return stage_spaces(self, budget, own_space)

    def __call__(self, problem: Problem) -> None:
        """Edits the problem's model in place.

        Raises:
            ValueError: If a stage is for models of another family, or needs fresh weights that the model's
                modules can't draw.
        """
        for stage in self.stages:
            refuse_family(stage, problem.task)
        if self.needs_fresh_weights and problem.build is None:
            refuse_undrawable_weights(problem.model)
        _ = problem.original  # store the original before the first edit, for later stages
        for stage in self.stages:
            stage(problem)


def describe(stages: Sequence[Stage]) -> About:
    """The facts of all stages, joined in order; a pipeline supports the families that all stages support."""
    abouts = [each.about for each in stages if isinstance(each, HasAbout)]
    texts = ("; then ".join(getattr(each, name) for each in abouts) for name in ("paper", "data", "step"))
    limits = [each.families for each in abouts if each.families]
    serving = [name for name in chain(*limits) if all(name in each for each in limits)]
    edits = ", then ".join(each.edits for each in abouts if each.edits)
    return About(*texts, families=tuple(dict.fromkeys(serving)), edits=edits)


def own_space(name: str, stage: Stage, budget: int) -> Mapping[str, Range]:
    """The search space of a stage, from the stage itself."""
    return stage.space(budget) if isinstance(stage, Tunable) else {}


def stage_spaces(pipeline: Pipeline, budget: int, space: StageSpace) -> Mapping[str, Range]:
    """The search space of a pipeline, whose stages that take steps share a budget.

    If the last of them is a recovery it gets the rest of the budget after the others. Those have equal parts
    of `FORGETTING` of it, or of all without such a recovery.

    Args:
        pipeline: The pipeline.
        budget: The number of gradient evaluations that a run may spend.
        space: Returns the search space of each stage.
    """
    pairs = list(zip(pipeline.names, pipeline.stages, strict=True))
    steps = [(name, stage) for name, stage in pairs if has_steps(space(name, stage, budget))]
    recovers = bool(steps) and isinstance(steps[-1][1], Recover)
    forgetting_names = [name for name, _ in (steps[:-1] if recovers else steps)]
    share = (round(FORGETTING * budget) if recovers else budget) // max(1, len(forgetting_names))
    ranges: dict[str, Range] = {}
    for name, stage in pairs:
        stage_budget = share
        if isinstance(stage, Recover):  # its budget is that of the run up to its end
            stage_budget = share * (forgetting_names.index(name) + 1) if name in forgetting_names else budget
        ranges |= prefix_paths(name, space(name, stage, stage_budget))
    return ranges


def has_steps(space: Mapping[str, Range]) -> bool:
    """Whether a search space has a number of steps or of gradients."""
    return any(path.rpartition(".")[2] in STEPS for path in space)


def refuse_unfit(stages: Sequence[Stage], names: Sequence[str]) -> None:
    """Raises if these stages do not form a pipeline."""
    if not stages:
        raise ValueError("a pipeline needs at least one stage, found none")
    if len(names) != len(stages):
        raise ValueError(f"expected {len(stages)} names of stages, found {len(names)}: {', '.join(names)}")
    for each, name in zip(stages, names, strict=True):
        refuse_no_method(each, "a stage of a pipeline")
        if isinstance(each, HasAbout) and each.about.paper == REFERENCE:
            raise ValueError(f"a stage of a pipeline must not be a reference, found {name!r}: leave it out")
    bad_names = [name for name in names if not name or JOINT in name or "." in name]
    if bad_names:
        raise ValueError(
            f"the name of a stage must not be empty or hold {JOINT!r} or '.', found {bad_names[0]!r}"
        )
    if len(set(names)) < len(names):
        listing = ", ".join(names)
        raise ValueError(
            f"the stages of a pipeline need different names, found {listing}: in Python, give names="
        )
    limits = [each.about.families for each in stages if isinstance(each, HasAbout) and each.about.families]
    if limits and not set(limits[0]).intersection(*limits):
        families = ", and ".join(dict.fromkeys(" or ".join(each) for each in limits))
        raise ValueError(f"the stages of a pipeline must be for one family of models, found {families}")


@as_table.register
def _(pipeline: Pipeline) -> dict[str, object]:
    """One table per stage."""
    return {name: as_table(each) for name, each in zip(pipeline.names, pipeline.stages, strict=True)}
