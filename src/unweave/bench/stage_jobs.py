"""The jobs of stages for worker processes: forget sets, models, methods, in an order in which none waits."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Literal

from unweave.bench.cell import run_reference, run_seed
from unweave.bench.stage import Stage
from unweave.bench.workers import Crew, Job, Listener, run_jobs


def run_stages(
    stages: Sequence[Stage], methods: Mapping[str, tuple[str, ...]], crew: Crew, listener: Listener
) -> Iterator[Stage]:
    """Runs all seeds of all stages, and yields each finished stage, in order."""
    seeds = {stage.name: seed_jobs(stage, methods[stage.name]) for stage in stages}
    first_names = {stage.recipe.name: stage.name for stage in reversed(stages)}.values()
    rounds = [
        training_jobs(stages),
        [
            job
            for each in stages
            if each.name in first_names
            for job in (*seeds[each.name], *calibration_jobs(each))
        ],
        # further budgets, after everything that they share with the first
        [job for each in stages if each.name not in first_names for job in seeds[each.name]],
    ]
    jobs = list(chain(*rounds))
    counts = Counter(job.arguments[0].name for job in jobs)
    queue = list(stages)
    for job, _ in run_jobs(lambda _: chain.from_iterable(map(crew, rounds)), jobs, listener):
        counts[job.arguments[0].name] -= 1
        while queue and counts[queue[0].name] == 0:
            yield queue.pop(0)


def forget_set_jobs(stages: Sequence[Stage]) -> list[Job]:
    """The jobs that choose the forget sets of stages by trained models, before other jobs need them.

    Stages that may share those models share a job.
    """
    by_problem: dict[str, list[Stage]] = {}
    for stage in stages:
        if stage.has_trained_choice:
            data = replace(stage.recipe.data, forget="random", fraction=0.5)
            by_problem.setdefault(repr((stage.facts(), data)), []).append(stage)
    names = [", ".join(stage.name for stage in each) for each in by_problem.values()]
    return [
        Job(f"{name}, forget set", choose_forget_sets, (each,))
        for name, each in zip(names, by_problem.values(), strict=True)
    ]


def choose_forget_sets(stages: Sequence[Stage]) -> None:
    """Chooses the forget sets of stages, which store them."""
    for stage in stages:
        stage.split()


def training_jobs(stages: Sequence[Stage]) -> list[Job]:
    """The jobs that train both models of stages with one seed; with more seeds every worker is busy anyway.

    Stages with different forget sets of the same data share their original.
    """
    jobs: dict[object, Job] = {}
    for stage in stages:
        name, seeds = stage.recipe.name, stage.recipe.seeds
        identity = (repr(stage.facts()), repr(replace(stage.recipe.data, label=0)), *seeds)
        for part, key, model in (("mixed", identity, "original"), ("retain", name, "retrained model")):
            if len(seeds) == 1:
                job = Job(f"{name}, {model} of seed {seeds[0]}", train_part, (stage, part, seeds[0]))
                jobs.setdefault(key, job)
    return list(jobs.values())


def train_part(stage: Stage, part: Literal["mixed", "retain"], seed: int) -> None:
    """Trains a model, which its stage stores."""
    stage.load_or_train(part, seed)


def seed_jobs(stage: Stage, methods: tuple[str, ...]) -> list[Job]:
    """One job per seed."""
    seeds = stage.recipe.seeds
    return [Job(f"{stage.name}, seed {seed}", run_seed, (stage, seed, methods)) for seed in seeds]


def calibration_jobs(stage: Stage) -> list[Job]:
    """One job per calibration seed."""
    name, seeds = stage.recipe.name, stage.recipe.calibration_seeds
    return [Job(f"{name}, retrain {seed}", run_reference, (stage, seed)) for seed in seeds]
