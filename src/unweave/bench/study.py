"""A study: what a search of a method's settings found, what it was made of, and where it is read again."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unweave.bench.cache import file_name
from unweave.bench.ranges import Settings
from unweave.bench.search import Trial
from unweave.bench.stage import Stage
from unweave.descent.descend import Descent
from unweave.descent.feed import steps_per_epoch
from unweave.methods.configure import refuse_unknown_settings
from unweave.record.files import read_object
from unweave.space import Range, Tunable
from unweave.split import Split

REFERENCES = ("original", "retrain")
"""Methods that have nothing to tune: what everything is compared with."""


STEPS = ("steps", "budget")
"""The last names of settings that count steps. Those that count epochs are longer on more data anyway."""

START = "setting to begin with"
LEGIBLE = 160
"""The number of letters up to which an error tells two facts apart by showing them."""


@dataclass(frozen=True)
class Study:
    """What a search found.

    Args:
        best: The best settings, by dotted field path; empty if every trial failed.
        value: Their value; NaN if every trial failed.
        trials: The log: number, settings, value (None if it failed or was pruned) and its parts, seconds,
            gradient evaluations, failed, pruned.
        scale: How many times as long retraining is on all the data as on what trials saw.
    """

    best: Settings
    value: float
    trials: Sequence[Trial]
    scale: float = 1.0

    @property
    def settings(self) -> Settings:
        """The best settings on all the data: `STEPS` are as many times more as retraining is longer."""
        counted = {path: value for path, value in self.best.items() if path.rpartition(".")[2] in STEPS}
        return {**self.best, **{path: self.scale_steps(value) for path, value in counted.items()}}

    def scale_steps(self, steps: int) -> int:
        """So many steps of a trial on all the data: none if there were none."""
        return max(min(steps, 1), round(self.scale * steps))


def study_from(trials: Sequence[Trial], scale: float = 1.0) -> Study:
    """The study that a log tells of."""
    done = [trial for trial in trials if trial["value"] is not None]
    if not done:
        return Study({}, math.nan, trials, scale)
    best = min(done, key=lambda trial: trial["value"])
    return Study(best["settings"], best["value"], trials, scale)


def read_studies(stage: Stage, methods: Sequence[str], folder: Path) -> dict[str, Study]:
    """The searches that an earlier run has left in its folder `tuning`, whatever code has changed since.

    Raises:
        ValueError: If a method has settings to search and the folder no search of them, or one that was made
            of something else.
    """
    name, wanted = stage.name, tunable_methods(stage, methods)
    found = {each: folder / name / f"{file_name(each)}.json" for each in wanted}
    missing = [each for each, path in found.items() if not path.exists()]
    if missing:
        raise ValueError(
            f"{folder} has no searches for the stage {name!r} of {', '.join(missing)}: tune it first, or "
            "leave them out"
        )
    read = {each: read_object(path, ": tune it again") for each, path in found.items()}
    for each, content in read.items():
        refuse_other(content, facts_of(stage, each, space_of(stage, each)), found[each])
    return {each: study_from(content["trials"], scale_of(stage)) for each, content in read.items()}


def refuse_other(study: Mapping[str, Any], wanted: Mapping[str, str], place: Path) -> None:
    """Raises if a search was made of something else than these facts."""
    facts = study.get("facts")
    if facts is None or "trials" not in study:
        raise ValueError(f"{place} doesn't say what was searched: tune it again")
    (made,) = facts if len(facts) == 1 else ({},)
    for name, each in wanted.items():
        if made.get(name) != each:
            both = f": expected {each}, found {made.get(name)}" if len(each) < LEGIBLE else ""
            raise ValueError(f"{place} was searched with a different {name}{both}: tune it again")


def tunable_methods(stage: Stage, methods: Sequence[str]) -> list[str]:
    """Those of the methods that have settings to search."""
    found = {each: stage.recipe.method(each) for each in methods if each not in REFERENCES}
    return [each for each, method in found.items() if isinstance(method, Tunable)]


def space_of(stage: Stage, name: str) -> Mapping[str, Range]:
    """What a method's settings are chosen from, within the recipe's budget.

    Raises:
        ValueError: If it names a field that the method lacks.
    """
    recipe = stage.recipe
    method, split = recipe.method(name), stage.split(recipe.tuning.seeds[0])
    budget = max(1, round(recipe.tuning.largest_budget * evaluations(recipe.train, split)))
    space = recipe.family.space(name, method, budget)
    refuse_unknown_settings(method, space, f"the search space of {name}")
    return space


def evaluations(train: Descent, split: Split) -> int:
    """The gradient evaluations of retraining on what a split retains."""
    if train.epochs is None:
        return train.steps or 0
    return max(
        1, round(train.epochs * steps_per_epoch("paired", {"retain": split.retain}, {"retain": train.batch}))
    )


def scale_of(stage: Stage) -> float:
    """How many times as many gradient evaluations retraining takes on all the data as on what trials see."""
    recipe = stage.recipe
    if recipe.tuning.limit is None:
        return 1.0
    whole, seen = stage.split(), stage.split(recipe.tuning.seeds[0])
    return evaluations(recipe.train, whole) / evaluations(recipe.train, seen)


def facts_of(stage: Stage, name: str, space: Mapping[str, Range]) -> dict[str, str]:
    """What a search is made of, but for the number of trials and the code, in words that an error can say."""
    recipe, tuning = stage.recipe, dataclasses.asdict(stage.recipe.tuning)
    tuning["budget"] = recipe.tuning.largest_budget
    del tuning["trials"], tuning["budgets"]  # a search doesn't hang on those of other stages
    known = {key: str(each) for key, each in stage.facts().items()}
    told = {"tuning": str(tuning), START: repr(recipe.method(name)), "search space": repr(dict(space))}
    return {"data set or forget set": stage.split().digest(), "family": repr(recipe.family), **known, **told}
