"""Tuning: the same number of trials for every method, on seeds that are never reported."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from unweave.bench.cache import append_suffix, file_name, read_or_make
from unweave.bench.cell import MEASURING_FORMAT, cell_key
from unweave.bench.ranges import Settings, flatten_tables, keep_in_range, nest_paths
from unweave.bench.search import SECOND, Case, Trial, make_case, search
from unweave.bench.stage import Stage
from unweave.bench.study import (
    STEPS,
    Study,
    count_own,
    facts_of,
    scale_of,
    space_of,
    study_from,
    tunable_methods,
)
from unweave.bench.workers import Crew, Job, Listener, run_jobs
from unweave.descent.train import digest
from unweave.methods.configure import configure, settings_of
from unweave.record.files import write_atomically
from unweave.space import Range
from unweave.tables import NOTHING

SEARCHING_FORMAT = 2
"""Format number of searches: it stands for all code that affects trials, their requests and their values.

Raise it in the commit that changes any of these; every search is then made again.
"""

MOST_CASES = 4
"""How many cases a process keeps."""

_cases: dict[tuple[str, int], Case] = {}
"""The last cases by stage and tuning seed: all methods of a stage are searched on the same ones."""


def tune_stage(
    stage: Stage,
    methods: Sequence[str],
    trials: int,
    crew: Crew,
    listener: Listener,
    smaller: Mapping[str, Study] | None = None,
) -> dict[str, Study]:
    """Searches the settings of every tunable method, and writes the best as TOML to `tuning/STAGE.toml`.

    Args:
        stage: The stage.
        methods: The names of the methods.
        trials: The number of trials per method.
        crew: The workers.
        listener: Called after every job.
        smaller: The searches of the same recipe at the next smaller budget; see `study`.
    """
    previous = smaller or {}
    names, seeds = tunable_methods(stage, methods), stage.recipe.tuning.seeds
    for seed in seeds:  # raises for unfit requests and spaces before any training
        stage.split(seed)
    for each in names:
        space_of(stage, each)
    jobs = [Job(f"{stage.name}, models of tuning seed {seed}", prepare, (stage, seed)) for seed in seeds]
    list(run_jobs(crew, jobs, listener))
    jobs = [
        Job(
            f"{stage.name}, {trials} trials of {each}",
            study,
            ((stage,), each, trials, None, previous.get(each)),
        )
        for each in names
    ]
    by_method = {job.arguments[1]: study for job, study in run_jobs(crew, jobs, listener)}
    studies = {each: by_method[each] for each in names}
    folder = stage.folder / "tuning"
    folder.mkdir(parents=True, exist_ok=True)  # without tunable methods no search has created it
    write_atomically(folder / f"{stage.name}.toml", as_toml(studies, seeds))
    return studies


def prepare(stage: Stage, seed: int) -> int:
    """Trains the models of a tuning seed; returns the gradient evaluations of retraining."""
    stage.load_or_train("mixed", seed, seed)
    stage.load_or_train("retain", SECOND + seed, seed)
    return stage.load_or_train("retain", seed, seed).cost.gradients


def study(
    stages: Sequence[Stage],
    name: str,
    trials: int,
    space: Mapping[str, Range] | None = None,
    smaller: Study | None = None,
) -> Study:
    """Searches one method's settings over one or several stages; reads a finished search from disk.

    An interrupted search resumes after its last trial, and several processes can share one search.

    What fits a smaller budget fits a larger one. So the best trial at the next smaller budget opens the log
    and is not run again, and the second trial of a search takes its settings, with steps in proportion. Where
    the method itself depends on the budget, as a training from scratch does, the same settings are another
    run, and the log begins with the search's own trials.

    Args:
        stages: The stages; settings, space and seeds are those of the first.
        name: The method.
        trials: The number of trials.
        space: The search space; that of the family within the recipe's budget if None.
        smaller: The search at the next smaller budget; None if there is none.
    """
    first_stage = stages[0]
    method, tuning = first_stage.recipe.method(name), first_stage.recipe.tuning
    begin = first_stage.recipe.default_method(name) if tuning.begin == "defaults" else method
    space = space_of(first_stage, name) if space is None else space
    facts = [facts_of(stage, name, space) for stage in stages]
    cells = [cell_key(stage, 0, repr(method) + repr(begin)) for stage in stages]
    formats = [SEARCHING_FORMAT, MEASURING_FORMAT]
    trial = None if smaller is None else smaller.best_trial
    inherited_trials = [trial] if trial and smaller and smaller.method == method else []
    extra_facts = {"inherited" if inherited_trials else "second": trial["settings"]} if trial else {}
    key = digest({"facts": facts, "cells": cells, "trials": trials, "format": formats, **extra_facts})
    place = first_stage.folder / "tuning" / "+".join(stage.name for stage in stages) / file_name(name)

    def make() -> Mapping[str, Any]:
        cases = [load_or_make_case(stage, seed) for stage in stages for seed in tuning.seeds]
        trials_at = first_stage.storage or append_suffix(place, "journal")
        second = stretch(trial, tuning.largest_budget, space) if trial else None
        log = search(method, space, trials, cases, begin=begin, second=second, place=trials_at, name=key)
        return {"facts": facts, "trials": [*inherited_trials, *log]}

    all_trials = read_or_make(place, key, make)["trials"]
    return study_from(all_trials, scale_of(first_stage), tuning.largest_budget, method)


def load_or_make_case(stage: Stage, seed: int) -> Case:
    """The case of a tuning seed; made once for the methods that a process searches one after the other."""
    key = repr(stage), seed
    if key not in _cases:
        while len(_cases) >= MOST_CASES:
            _cases.pop(next(iter(_cases)))
        _cases[key] = make_case(stage, seed)
    return _cases[key]


def stretch(trial: Trial, budget: float, space: Mapping[str, Range]) -> Settings:
    """The settings of a trial at a smaller budget, with steps in proportion and within the space."""
    factor = budget / trial["budget"]
    settings = {
        path: round(factor * value) if path.rpartition(".")[2] in STEPS else value
        for path, value in trial["settings"].items()
    }
    return keep_in_range(settings, space)


def as_toml(studies: Mapping[str, Study], seeds: Sequence[int]) -> str:
    """The best settings as tables of a recipe, with their source.

    A table names every setting of its method, also those that were not searched: a later version with other
    defaults then runs what was searched.
    """
    return "\n".join(_table(name, search, seeds) for name, search in studies.items() if search.best)


def _table(name: str, search: Study, seeds: Sequence[int]) -> str:
    on = ", ".join(map(str, seeds))
    source = f"# tuned: best of {count_own(search.trials)} trials on seeds {on}, value {search.value:.2f}"
    if search.scale != 1:
        source += f", with {search.scale:.3g} times the steps"
    lines = [f"{_dotted_key(path)} = {_literal(value)}" for path, value in complete_settings(search).items()]
    return "\n".join([f"[methods.{_key(name)}]  {source}", *lines, ""])


def complete_settings(search: Study) -> Settings:
    """Every setting of the best method, by dotted path; the searched ones alone if the method is unknown."""
    if search.method is None:
        return search.settings
    return flatten_tables(settings_of(configure(search.method, nest_paths(search.settings))))


def _dotted_key(path: str) -> str:
    """A path in TOML syntax."""
    return ".".join(map(_key, path.split(".")))


def _key(name: str) -> str:
    """A name in TOML syntax."""
    return name if re.fullmatch("[A-Za-z0-9_-]+", name) else f'"{name}"'


def _literal(value: object) -> str:
    """A value in TOML syntax, which has no null."""
    if value is None:
        return f'"{NOTHING}"'
    if isinstance(value, bool | str):
        return json.dumps(value, ensure_ascii=False)
    return f"[{', '.join(map(_literal, value))}]" if isinstance(value, list) else repr(value)
