"""Compares methods over seeds: trains, unlearns, measures and judges each stage, in worker processes."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from os import cpu_count
from pathlib import Path
from typing import Any

from unweave.audits.attack import Attack
from unweave.bench.attacked_cells import refuse_unattackable
from unweave.bench.frontier import frontier
from unweave.bench.ranges import nest_paths
from unweave.bench.recipe import Recipe
from unweave.bench.stage import Stage
from unweave.bench.stage_jobs import forget_set_jobs, run_stages
from unweave.bench.stage_record import stage_record
from unweave.bench.study import REFERENCES, Study, read_studies
from unweave.bench.tune import tune_stage
from unweave.bench.workers import Crew, Listener, run_jobs, workers
from unweave.methods.configure import configure
from unweave.record import record


def bench(
    recipes: Sequence[Recipe],
    folder: str | Path,
    *,
    methods: Sequence[str] | None = None,
    seeds: int | None = None,
    jobs: int | None = None,
    crew: Crew | None = None,
    tune: int = 0,
    tuned: str | Path | None = None,
    studies: Mapping[str, Study] | None = None,
    attacks: Sequence[Attack] = (),
    device: str = "cpu",
    storage: str | None = None,
    listener: Listener = lambda progress: None,
) -> dict[str, Any]:
    """Runs every recipe as one stage of a record, and writes `record.json` after each.

    A recipe with several budgets becomes one stage per budget, and the record then gives the cost of a PASS
    of each method. Valid files in the folder are reused, so an interrupted run resumes where it stopped.

    Args:
        recipes: The stages.
        folder: The folder of models, cells and the record.
        methods: The names of the methods; all if None. The untouched original is always included.
        seeds: The number of the recipe's seeds to report; all if None.
        jobs: The number of worker processes of one thread each; one per core if None. A script then needs the
            usual `if __name__ == "__main__":` around the call. With 1 everything runs in this process, with
            all its threads.
        crew: Workers in place of these, such as `ray_workers` gives.
        tune: The number of tuning trials per method; 0 uses the recipes' settings.
        tuned: The folder `tuning` of an earlier run; uses its searches instead of new ones.
        studies: Searches from elsewhere, by method, for all stages; they take precedence.
        attacks: Attacks on the answers of all models, for the record.
        device: The device of the models.
        storage: The URL of a database for the trials of searches, such as
            "postgresql+psycopg://USER@HOST/NAME"; journals in the folder if None.
        listener: Called after every job.

    Returns:
        The record.

    Raises:
        ValueError: If a method is unknown, a recipe is given twice at a budget, there are too few seeds, or
            without a search a recipe has several budgets, or no settings at its own.
        Failed: If an original or a retrained model can't be trained.
    """
    stages = [Stage(limit_seeds(recipe, seeds), Path(folder), device, storage) for recipe in recipes]
    return compare(
        stages,
        folder,
        methods=methods,
        jobs=jobs,
        crew=crew,
        tune=tune,
        tuned=tuned,
        studies=studies,
        attacks=attacks,
        listener=listener,
    )


def compare(
    stages: Sequence[Stage],
    folder: str | Path,
    *,
    methods: Sequence[str] | None = None,
    jobs: int | None = None,
    crew: Crew | None = None,
    tune: int = 0,
    tuned: str | Path | None = None,
    studies: Mapping[str, Study] | None = None,
    attacks: Sequence[Attack] = (),
    listener: Listener = lambda progress: None,
) -> dict[str, Any]:
    """Runs stages; see `bench`."""
    for stage in stages if attacks else ():
        refuse_unattackable(stage.recipe)
    is_search = bool(tune) or tuned is not None
    if not is_search:
        refuse_budgets(stages)
    stages = [each for stage in stages for each in stage.split_by_budget()]
    refuse_repeated_stages(stages)
    names = {stage.name: select_methods(stage.recipe, methods) for stage in stages}
    if not is_search:
        names = {stage.name: with_settings(stage.recipe, names[stage.name]) for stage in stages}
        refuse_no_settings(names, methods or ())
    stage_records: dict[str, Any] = {}
    content = {"schema": record.SCHEMA, "environment": record.environment(), "stages": stage_records}
    with workers(jobs or cpu_count() or 1) if crew is None else nullcontext(crew) as crew:
        list(run_jobs(crew, forget_set_jobs(stages), listener))
        logs: dict[str, dict[str, Study]] = {}
        # a search begins with what a smaller budget found, in whatever order the budgets were given
        for stage in sorted(stages, key=lambda each: each.recipe.tuning.largest_budget):
            smaller_stage = next_smaller(stage, [each for each in stages if each.name in logs])
            smaller = logs[smaller_stage.name] if smaller_stage else {}
            stage_studies = obtain_studies(stage, names[stage.name], tune, tuned, crew, listener, smaller)
            logs[stage.name] = {**stage_studies, **(studies or {})}
        stages = [
            replace(stage, recipe=with_best_settings(stage.recipe, logs[stage.name])) for stage in stages
        ]
        for stage in run_stages(stages, names, crew, listener):
            search = {name: study.trials for name, study in logs[stage.name].items()}
            stage_records[stage.name] = stage_record(stage, names[stage.name], search, attacks)
            content |= frontiers(stages, stage_records)
            record.write(content, folder)
    return content


def refuse_budgets(stages: Sequence[Stage]) -> None:
    """Raises if a recipe has several budgets, because without a search settings do not keep to a budget."""
    for stage in stages:
        if len(stage.recipe.tuning.budgets) > 1:
            actual = f"{', '.join(map(str, stage.recipe.tuning.budgets))} of {stage.recipe.name!r}"
            raise ValueError(f"budgets limit searches, found {actual} and no search: give --tune")


def refuse_repeated_stages(stages: Sequence[Stage]) -> None:
    """Raises if two stages share a name, or two of one recipe a budget."""
    names = [stage.name for stage in stages]
    budgets = {(stage.recipe.name, stage.recipe.tuning.largest_budget) for stage in stages}
    if min(len(set(names)), len(budgets)) < len(stages):
        raise ValueError(f"each recipe can be run once at a budget, found {', '.join(names)}")


def with_settings(recipe: Recipe, methods: Sequence[str]) -> tuple[str, ...]:
    """Those of the methods that run without a search: at a budget, the references and those with settings.

    Raises:
        ValueError: If none of the methods has settings at the recipe's budget.
    """
    if not recipe.tuning.budgets:
        return tuple(methods)
    configured_names = recipe.configured_methods()
    if not configured_names.intersection(methods):
        place = f"{recipe.name!r} has settings of {', '.join(sorted(configured_names)) or 'no method'}"
        requested_names = ", ".join(name for name in methods if name not in REFERENCES) or "none of them"
        raise ValueError(
            f"at a budget of {recipe.tuning.largest_budget} {place}, found {requested_names}: give --tune"
        )
    return tuple(name for name in methods if name in REFERENCES or name in configured_names)


def refuse_no_settings(names: Mapping[str, Sequence[str]], methods: Sequence[str]) -> None:
    """Raises if a method that is asked for runs at no stage, as it has no settings at their budgets."""
    running_names = {name for each in names.values() for name in each}
    for name in methods:
        if name not in running_names and name not in REFERENCES:
            raise ValueError(f"{name} has no settings at {', '.join(names)}: give --tune, or leave it out")


def frontiers(stages: Sequence[Stage], stage_records: Mapping[str, Any]) -> dict[str, Any]:
    """The frontier of each recipe that runs at budgets, from its finished stages; may be empty."""
    with_budgets = {stage.recipe.name for stage in stages if stage.recipe.tuning.budgets}
    by_recipe: dict[str, dict[float, Any]] = {}
    for stage in stages:
        if stage.recipe.name in with_budgets and stage.name in stage_records:
            by_recipe.setdefault(stage.recipe.name, {})[stage.recipe.tuning.largest_budget] = stage_records[
                stage.name
            ]
    return {"frontier": {name: frontier(each) for name, each in by_recipe.items()}} if by_recipe else {}


def obtain_studies(
    stage: Stage,
    methods: Sequence[str],
    trials: int,
    folder: str | Path | None,
    crew: Crew,
    listener: Listener,
    smaller: Mapping[str, Study],
) -> dict[str, Study]:
    """The searches of a stage: read from an earlier run, made now, or none."""
    if folder is not None:
        return read_studies(stage, methods, Path(folder))
    return tune_stage(stage, methods, trials, crew, listener, smaller) if trials else {}


def next_smaller(stage: Stage, stages: Sequence[Stage]) -> Stage | None:
    """The stage of the same recipe at the next smaller budget."""
    budget = stage.recipe.tuning.largest_budget
    same_recipe = [each for each in stages if each.recipe.name == stage.recipe.name]
    candidates = [each for each in same_recipe if each.recipe.tuning.largest_budget < budget]
    return max(candidates, key=lambda each: each.recipe.tuning.largest_budget, default=None)


def select_methods(recipe: Recipe, methods: Sequence[str] | None) -> tuple[str, ...]:
    """The names of the methods that a recipe runs, in the order of the registry, checked.

    The headline is always included; it may be a pipeline without a table in the recipe.
    """
    if methods is None:
        return tuple(dict.fromkeys([recipe.headline, *recipe.methods]))
    for name in methods:
        recipe.family.method_named(name)
    recipe_methods = [name for name in recipe.methods if name in methods or name == "original"]
    return tuple(dict.fromkeys([*recipe_methods, *methods]))


def limit_seeds(recipe: Recipe, seeds: int | None) -> Recipe:
    """The recipe with its first `seeds` seeds."""
    if seeds is not None and not 1 <= seeds <= len(recipe.seeds):
        raise ValueError(f"seeds must be in 1..{len(recipe.seeds)} for recipe {recipe.name!r}, found {seeds}")
    return replace(recipe, seeds=recipe.seeds[:seeds])


def with_best_settings(recipe: Recipe, studies: Mapping[str, Study]) -> Recipe:
    """The recipe with the best settings found."""
    best = {
        name: configure(recipe.method(name), nest_paths(study.settings)) for name, study in studies.items()
    }
    return replace(recipe, methods={**recipe.methods, **best})
