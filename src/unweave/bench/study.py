"""Studies: the results of searches of settings, and the facts that they depend on."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unweave.bench.cache import file_name
from unweave.bench.ranges import Settings
from unweave.bench.search import Trial
from unweave.bench.stage import Stage
from unweave.descent.descend import Descent
from unweave.descent.feed import steps_per_epoch
from unweave.methods import Method
from unweave.methods.configure import refuse_unknown_settings
from unweave.methods.pipeline import STEPS
from unweave.record.files import read_object
from unweave.space import Range, Tunable
from unweave.split import Split

REFERENCES = ("original", "retrain")
"""Methods without settings to tune: the references of comparisons."""


START = "setting to begin with"
LEGIBLE = 160
"""The largest length of two facts that an error shows."""


@dataclass(frozen=True)
class Study:
    """The result of a search.

    Args:
        best: The best settings, by dotted field path; empty if every trial failed.
        value: Their value; NaN if every trial failed.
        trials: The log: number, settings, value (None if it failed or was pruned) and its parts, seconds,
            gradient evaluations, failed, pruned; and its budget, if it is of a search at a smaller one.
        scale: The length of retraining on all the data, relative to the data of the trials.
        budget: The budget of the search, relative to a retraining; None if unknown.
        method: The method whose settings were searched; None if unknown.
    """

    best: Settings
    value: float
    trials: Sequence[Trial]
    scale: float = 1.0
    budget: float | None = None
    method: Method | None = None

    @property
    def best_trial(self) -> Trial | None:
        """The best trial with its budget, for a search at a larger one; None if every trial failed."""
        trials = [trial for trial in self.trials if trial["value"] is not None]
        return {"budget": self.budget, **min(trials, key=lambda trial: trial["value"])} if trials else None

    @property
    def settings(self) -> Settings:
        """The best settings for all the data: `STEPS` are multiplied by `scale`."""
        step_counts = {path: value for path, value in self.best.items() if path.rpartition(".")[2] in STEPS}
        return {**self.best, **{path: self.scale_steps(value) for path, value in step_counts.items()}}

    def scale_steps(self, steps: int) -> int:
        """Scales the steps of a trial to all the data; zero stays zero."""
        return max(min(steps, 1), round(self.scale * steps))


def study_from(
    trials: Sequence[Trial], scale: float = 1.0, budget: float | None = None, method: Method | None = None
) -> Study:
    """Makes a study from a log of trials."""
    empty = Study({}, math.nan, trials, scale, budget, method)
    best = empty.best_trial
    return replace(empty, best=best["settings"], value=best["value"]) if best else empty


def count_own(trials: Sequence[Trial]) -> int:
    """The number of trials of a search itself, without the one of a smaller budget."""
    return sum("budget" not in trial for trial in trials)


def read_studies(stage: Stage, methods: Sequence[str], folder: Path) -> dict[str, Study]:
    """Reads the searches in the folder `tuning` of an earlier run, whatever code has changed since.

    Raises:
        ValueError: If a method has settings to search and the folder has no search of them, or a different
            one.
    """
    name, names = stage.name, tunable_methods(stage, methods)
    paths = {each: folder / name / f"{file_name(each)}.json" for each in names}
    missing = [each for each, path in paths.items() if not path.exists()]
    if missing:
        raise ValueError(
            f"{folder} has no searches for the stage {name!r} of {', '.join(missing)}: tune it first, or "
            "leave them out"
        )
    studies = {each: read_object(path, ": tune it again") for each, path in paths.items()}
    for each, content in studies.items():
        refuse_other(content, facts_of(stage, each, space_of(stage, each)), paths[each])
    budget = stage.recipe.tuning.largest_budget
    return {each: study_from(content["trials"], scale_of(stage), budget) for each, content in studies.items()}


def refuse_other(study: Mapping[str, Any], expected: Mapping[str, str], place: Path) -> None:
    """Raises if the facts of a search differ from these."""
    facts = study.get("facts")
    if facts is None or "trials" not in study:
        raise ValueError(f"{place} does not name what was searched: tune it again")
    (facts_stored,) = facts if len(facts) == 1 else ({},)
    for name, each in expected.items():
        if facts_stored.get(name) != each:
            difference = f": expected {each}, found {facts_stored.get(name)}" if len(each) < LEGIBLE else ""
            raise ValueError(f"{place} was searched with a different {name}{difference}: tune it again")


def tunable_methods(stage: Stage, methods: Sequence[str]) -> list[str]:
    """The methods with settings to search."""
    by_name = {each: stage.recipe.method(each) for each in methods if each not in REFERENCES}
    return [each for each, method in by_name.items() if isinstance(method, Tunable)]


def space_of(stage: Stage, name: str) -> Mapping[str, Range]:
    """The search space of a method, within the recipe's budget.

    Raises:
        ValueError: If the space names a field that the method lacks.
    """
    recipe = stage.recipe
    method, split = recipe.method(name), stage.split(recipe.tuning.seeds[0])
    budget = max(1, round(recipe.tuning.largest_budget * evaluations(recipe.train, split)))
    space = recipe.family.space(name, method, budget)
    refuse_unknown_settings(method, space, f"the search space of {name}")
    return space


def evaluations(train: Descent, split: Split) -> int:
    """The gradient evaluations of retraining on the retain set of a split."""
    if train.epochs is None:
        return train.steps or 0
    return max(
        1, round(train.epochs * steps_per_epoch("paired", {"retain": split.retain}, {"retain": train.batch}))
    )


def scale_of(stage: Stage) -> float:
    """The gradient evaluations of retraining on all the data, relative to the data of the trials."""
    recipe = stage.recipe
    if recipe.tuning.limit is None:
        return 1.0
    full_split, part_split = stage.split(), stage.split(recipe.tuning.seeds[0])
    return evaluations(recipe.train, full_split) / evaluations(recipe.train, part_split)


def facts_of(stage: Stage, name: str, space: Mapping[str, Range]) -> dict[str, str]:
    """The facts of a search, without the number of trials and the code, as text for errors."""
    recipe, tuning = stage.recipe, dataclasses.asdict(stage.recipe.tuning)
    tuning["budget"] = recipe.tuning.largest_budget
    del tuning["trials"], tuning["budgets"]  # a search does not depend on those of other stages
    stage_facts = {key: str(each) for key, each in stage.facts().items()}
    search_facts = {
        "tuning": str(tuning),
        START: repr(recipe.method(name)),
        "search space": repr(dict(space)),
    }
    return {
        "data set or forget set": stage.split().digest(),
        "family": recipe.family.key,
        **stage_facts,
        **search_facts,
    }
