"""Compare methods over seeds: each stage trained, forgotten, measured and judged, in few worker processes."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from os import cpu_count
from pathlib import Path
from typing import Any, Literal

from unweave.bench.cell import run_reference, run_seed
from unweave.bench.frontier import frontier
from unweave.bench.ranges import nest_paths
from unweave.bench.recipe import Recipe
from unweave.bench.stage import Stage
from unweave.bench.stage_record import stage_record
from unweave.bench.study import Study, read_studies
from unweave.bench.tune import tune_stage
from unweave.bench.workers import Crew, Job, Listener, run_jobs, workers
from unweave.methods.configure import configure
from unweave.record import record


def bench(
    recipes: Sequence[Recipe],
    folder: str | Path,
    *,
    methods: Sequence[str] | None = None,
    seeds: int | None = None,
    jobs: int | None = None,
    tune: int = 0,
    tuned: str | Path | None = None,
    studies: Mapping[str, Study] | None = None,
    device: str = "cpu",
    listener: Listener = lambda progress: None,
) -> dict[str, Any]:
    """Runs every recipe as one stage of a record, and writes `record.json` after each.

    A recipe with several budgets is a stage for each, and the record then says what a PASS costs a method.
    What a folder already holds and is still valid is used again: a run that was interrupted goes on where it
    stopped.

    Args:
        recipes: The stages.
        folder: Where models, cells and the record are written.
        methods: Names; all if None. The untouched original is always among them.
        seeds: How many of the recipe's seeds to report; all if None.
        jobs: Worker processes of one thread each, as many as there are cores if None; a script then needs the
            usual `if __name__ == "__main__":` around the call. With 1 all runs in this process, with the
            threads that it has.
        tune: Trials of tuning per method; with 0 methods run with the recipes' settings.
        tuned: The folder `tuning` of an earlier run, whose searches are used instead of new ones.
        studies: Searches made elsewhere, by method, that all stages take; they go before others.
        device: Where the models are.
        listener: Hears of every job that ends.

    Returns:
        The record.

    Raises:
        ValueError: If a method is not known, two stages share a name, fewer seeds than asked for exist, or a
            recipe has several budgets and no search is to keep to them.
        Failed: If an original or a retrained model can't be trained.
    """
    stages = [Stage(limit_seeds(recipe, seeds), Path(folder), device) for recipe in recipes]
    return compare(
        stages, folder, methods=methods, jobs=jobs, tune=tune, tuned=tuned, studies=studies, listener=listener
    )


def compare(
    stages: Sequence[Stage],
    folder: str | Path,
    *,
    methods: Sequence[str] | None = None,
    jobs: int | None = None,
    tune: int = 0,
    tuned: str | Path | None = None,
    studies: Mapping[str, Study] | None = None,
    listener: Listener = lambda progress: None,
) -> dict[str, Any]:
    """Runs stages; see `bench`."""
    if not tune and tuned is None:
        refuse_budgets(stages)
    stages = [each for stage in stages for each in stage.split_by_budget()]
    if len({stage.name for stage in stages}) < len(stages):
        found = ", ".join(stage.name for stage in stages)
        raise ValueError(f"each stage needs a name of its own, found {found}")
    names = {stage.name: select_methods(stage.recipe, methods) for stage in stages}
    stages_made: dict[str, Any] = {}
    made = {"schema": record.SCHEMA, "environment": record.environment(), "stages": stages_made}
    with workers(jobs or cpu_count() or 1) as crew:
        list(run_jobs(crew, forget_set_jobs(stages), listener))
        made_here = [obtain_studies(each, names[each.name], tune, tuned, crew, listener) for each in stages]
        found = [{**each, **(studies or {})} for each in made_here]
        logs = {stage.name: study for stage, study in zip(stages, found, strict=True)}
        stages = [
            replace(stage, recipe=with_best_settings(stage.recipe, logs[stage.name])) for stage in stages
        ]
        for stage in run_stages(stages, names, crew, listener):
            search = {name: study.trials for name, study in logs[stage.name].items()}
            stages_made[stage.name] = stage_record(stage, names[stage.name], search)
            made |= frontiers(stages, stages_made)
            record.write(made, folder)
    return made


def refuse_budgets(stages: Sequence[Stage]) -> None:
    """Raises where a recipe has several budgets: settings that were not searched keep to none."""
    for stage in stages:
        if stage.recipe.tuning.budgets:
            found = f"{', '.join(map(str, stage.recipe.tuning.budgets))} of {stage.recipe.name!r}"
            raise ValueError(f"budgets are what searches keep to, found {found} and no search: give --tune")


def frontiers(stages: Sequence[Stage], made: Mapping[str, Any]) -> dict[str, Any]:
    """The frontier of each recipe with several budgets, from its stages that are done; or nothing."""
    found: dict[str, dict[float, Any]] = {}
    for stage in stages:
        if stage.recipe.tuning.budgets and stage.name in made:
            found.setdefault(stage.recipe.name, {})[stage.recipe.tuning.largest_budget] = made[stage.name]
    return {"frontier": {name: frontier(each) for name, each in found.items()}} if found else {}


def obtain_studies(
    stage: Stage,
    methods: Sequence[str],
    trials: int,
    folder: str | Path | None,
    crew: Crew,
    listener: Listener,
) -> dict[str, Study]:
    """The searches of a stage: read, made, or none."""
    if folder is not None:
        return read_studies(stage, methods, Path(folder))
    return tune_stage(stage, methods, trials, crew, listener) if trials else {}


def select_methods(recipe: Recipe, methods: Sequence[str] | None) -> tuple[str, ...]:
    """The names of the methods that a recipe runs, in the order of the registry, checked.

    All of them begin with the headline, which may be a pipeline that the recipe has no table of.
    """
    if methods is None:
        return tuple(dict.fromkeys([recipe.headline, *recipe.methods]))
    for name in methods:
        recipe.family.method_named(name)
    known = [name for name in recipe.methods if name in methods or name == "original"]
    return tuple(dict.fromkeys([*known, *methods]))


def limit_seeds(recipe: Recipe, seeds: int | None) -> Recipe:
    """The recipe with its first so many seeds."""
    if seeds is not None and not 1 <= seeds <= len(recipe.seeds):
        raise ValueError(f"seeds must be in 1..{len(recipe.seeds)} for recipe {recipe.name!r}, found {seeds}")
    return replace(recipe, seeds=recipe.seeds[:seeds])


def with_best_settings(recipe: Recipe, studies: Mapping[str, Study]) -> Recipe:
    """The recipe with the best settings found."""
    found = {
        name: configure(recipe.method(name), nest_paths(study.settings)) for name, study in studies.items()
    }
    return replace(recipe, methods={**recipe.methods, **found})


def run_stages(
    stages: Sequence[Stage], methods: Mapping[str, tuple[str, ...]], crew: Crew, listener: Listener
) -> Iterator[Stage]:
    """Runs all seeds of all stages, and yields each stage once it is done, in their order."""
    seeds = {stage.name: seed_jobs(stage, methods[stage.name]) for stage in stages}
    first = {stage.recipe.name: stage.name for stage in reversed(stages)}.values()
    rounds = [
        training_jobs(stages),
        [
            job
            for each in stages
            if each.name in first
            for job in (*seeds[each.name], *calibration_jobs(each))
        ],
        # further budgets, once there is all that they share with the first
        [job for each in stages if each.name not in first for job in seeds[each.name]],
    ]
    jobs = list(chain(*rounds))
    left = Counter(job.arguments[0].name for job in jobs)
    waiting = list(stages)
    for job, _ in run_jobs(lambda _: chain.from_iterable(map(crew, rounds)), jobs, listener):
        left[job.arguments[0].name] -= 1
        while waiting and left[waiting[0].name] == 0:
            yield waiting.pop(0)


def forget_set_jobs(stages: Sequence[Stage]) -> list[Job]:
    """What stages forget, where trained models choose it, before anyone else asks for it.

    One job for all stages that may share those models.
    """
    alike: dict[str, list[Stage]] = {}
    for stage in stages:
        if stage.has_trained_choice:
            data = replace(stage.recipe.data, forget="random", fraction=0.5)
            alike.setdefault(repr((stage.facts(), data)), []).append(stage)
    names = [", ".join(stage.name for stage in each) for each in alike.values()]
    return [
        Job(f"{name}, what is forgotten", choose_forget_sets, (each,))
        for name, each in zip(names, alike.values(), strict=True)
    ]


def choose_forget_sets(stages: Sequence[Stage]) -> None:
    """Chooses what stages forget, which they keep."""
    for stage in stages:
        stage.split()


def training_jobs(stages: Sequence[Stage]) -> list[Job]:
    """The two models of stages of one seed, side by side; with more seeds every worker is busy anyway.

    Stages that forget different classes of the same data share their original.
    """
    jobs: dict[object, Job] = {}
    for stage in stages:
        name, seeds = stage.recipe.name, stage.recipe.seeds
        alike = (repr(stage.facts()), repr(replace(stage.recipe.data, label=0)), *seeds)
        for part, key, model in (("mixed", alike, "original"), ("retain", name, "retrained model")):
            if len(seeds) == 1:
                job = Job(f"{name}, {model} of seed {seeds[0]}", train_part, (stage, part, seeds[0]))
                jobs.setdefault(key, job)
    return list(jobs.values())


def train_part(stage: Stage, part: Literal["mixed", "retain"], seed: int) -> None:
    """Trains a model, which its stage keeps."""
    stage.load_or_train(part, seed)


def seed_jobs(stage: Stage, methods: tuple[str, ...]) -> list[Job]:
    """One job per seed."""
    seeds = stage.recipe.seeds
    return [Job(f"{stage.name}, seed {seed}", run_seed, (stage, seed, methods)) for seed in seeds]


def calibration_jobs(stage: Stage) -> list[Job]:
    """One job per calibration seed."""
    name, seeds = stage.recipe.name, stage.recipe.calibration_seeds
    return [Job(f"{name}, retrain {seed}", run_reference, (stage, seed)) for seed in seeds]
