"""One search: a method's settings tried one after the other on the tuning seeds.

A trial is worth the mean over the seeds of its distance from their retrained models; the exam says how far.
"""

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from unweave.bench.ranges import Settings, default_settings, distribution, nest_paths, round_digits
from unweave.bench.stage import Stage
from unweave.descent.train import digest, run_and_time
from unweave.errors import Failed
from unweave.methods import Method
from unweave.methods.configure import configure
from unweave.space import Range, Rest

if TYPE_CHECKING:
    from optuna import Trial as OptunaTrial
    from optuna.samplers import BaseSampler

SECOND = 1_000_000
"""Added to a tuning seed for the weights of its second retrained model."""

MANY, POPULATION, OBJECTIVES = 100, 50, 4
"""From so many trials on a search has several objectives: the size of its generations, and their number."""

Trial = Mapping[str, Any]


@dataclass(frozen=True)
class Case:
    """One tuning seed.

    Args:
        stage: Where it belongs; a search may be over cases of several stages.
        seed: Of the training, and of what is forgotten.
        original: The model to unlearn.
        retrained: What the retrained model answers.
        wanted: Its metrics.
        floor: The distance on what is forgotten between it and a second one.
    """

    stage: Stage
    seed: int
    original: nn.Module
    retrained: Any
    wanted: Mapping[str, float]
    floor: float


def make_case(stage: Stage, seed: int) -> Case:
    """The models of one tuning seed."""
    exam, model = stage.exam(seed), stage.load_or_train("retain", seed, seed).model
    original, retrained = stage.load_or_train("mixed", seed, seed).model, exam.answers(model)
    second = exam.answers(stage.load_or_train("retain", SECOND + seed, seed).model)
    wanted = {**exam.measure(retrained), **exam.probes(model)}
    return Case(stage, seed, original, retrained, wanted, exam.measure_pair(second, retrained)[exam.distance])


def search(
    method: Method,
    space: Mapping[str, Range],
    trials: int,
    cases: Sequence[Case],
    *,
    begin: Method | None = None,
    journal: Path | None = None,
    name: str = "search",
) -> list[Trial]:
    """The log of a search by Optuna.

    With fewer than `MANY` trials a tree-structured Parzen estimator minimises the exam's value, and hopeless
    trials are given up. From there on NSGA-III minimises the exam's objectives, as Deep Unlearn does, and a
    trial's value is their Euclidean norm; nothing is given up, since no order says what is worse.

    Alone it tries the same whenever it is run, also if it is stopped in between and goes on, and whatever
    settings an earlier search has left in the recipe. Where several processes share a journal, what is tried
    hangs on who is done first.

    Args:
        method: Whose settings.
        space: What is chosen from.
        trials: How many settings are tried, by all processes together.
        cases: What they are tried on.
        begin: The method with the settings that are tried first, its own if None.
        journal: The file that keeps trials as they are made; none if None.
        name: What the journal calls this search.
    """
    from unweave.bench import shared_search  # Optuna takes a second to import

    ranges = {path: distribution(each) for path, each in space.items() if not isinstance(each, Rest)}
    rests = {path: each for path, each in space.items() if isinstance(each, Rest)}
    first, many = int(digest({"method": repr(begin or method)})[:8], 16), trials >= MANY
    study = shared_search.open_study(journal, name, OBJECTIVES if many else 1)

    def ask(before: int) -> "OptunaTrial":
        study.sampler = make_sampler(first + before, trials)
        if before == 0 and not shared_search.has_untried(study):
            study.enqueue_trial(default_settings(begin or method, space))
        return study.ask(ranges)

    def make(asked: "OptunaTrial") -> Trial:
        drawn = {path: round_digits(value) for path, value in asked.params.items()}
        settings = drawn | {path: rest.remaining(drawn) for path, rest in rests.items()}

        def hopeless(value: float, step: int) -> bool:
            asked.report(value, step)
            return bool(asked.should_prune())

        if many:
            return {"settings": settings, **run_trial(method, settings, cases, many=True)}
        return {"settings": settings, **run_trial(method, settings, cases, hopeless)}

    return shared_search.run_trials(study, journal, trials, ask, make)


def make_sampler(seed: int, trials: int) -> "BaseSampler":
    """Who chooses the next settings: a new one each time, whose state no interruption can lose."""
    from optuna.exceptions import ExperimentalWarning
    from optuna.samplers import NSGAIIISampler, TPESampler

    if trials >= MANY:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # its interface may change, says Optuna
            return NSGAIIISampler(seed=seed, population_size=POPULATION)
    return TPESampler(seed=seed, n_startup_trials=max(1, trials // 3))


def run_trial(
    method: Method,
    settings: Settings,
    cases: Sequence[Case],
    hopeless: Callable[[float, int], bool] = lambda value, step: False,
    *,
    many: bool = False,
) -> Trial:
    """The value of some settings and its parts, and what they cost; no value but the reason if they fail.

    Args:
        method: Whose settings.
        settings: What to change of the method.
        cases: What they are tried on, one after the other.
        hopeless: Whether the mean value of the first cases is so bad that the others are left out; gets it
            with their number less one.
        many: Whether the value is the norm of the exam's objectives, which are then in the log as well.
    """
    start, parts, aims, gradients, failed, pruned = time.perf_counter(), [], [], [], None, False
    try:
        configured = configure(method, nest_paths(settings))
        for step, each in enumerate(cases):
            problem = each.stage.problem(each.original, each.seed, {}, each.seed)
            gradients.append(run_and_time(problem, configured).gradients)
            exam = each.stage.exam(each.seed)
            found = exam.answers(problem.model)
            values = {**exam.measure(found, each.retrained), **exam.probes(problem.model)}
            parts.append(exam.score_trial(values, each.wanted, each.floor))
            aims.append(exam.objectives(found, values, each.wanted) if many else {})
            value = float(np.mean([each["value"] for each in parts]))
            if not math.isfinite(value + sum(aims[-1].values())):
                raise Failed("the value of the trial is no finite number")
            if hopeless(value, step) and step + 1 < len(cases):
                pruned = True
                break
    except (ValueError, Failed) as error:
        failed = str(error)
    spent = round(sum(gradients) / max(1, len(gradients)))
    cost = {"seconds": time.perf_counter() - start, "gradient_evaluations": spent}
    if failed is not None or pruned:
        return {"value": None, "parts": {}, **cost, "failed": failed, "pruned": pruned}
    mean, told = mean_values(parts), {**cost, "failed": None, "pruned": False}
    if many:
        objectives = mean_values(aims)
        return {"value": math.hypot(*objectives.values()), "objectives": objectives, "parts": mean, **told}
    return {"value": mean.pop("value"), "parts": mean, **told}


def mean_values(tables: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each number over the seeds."""
    return {name: float(np.mean([each[name] for each in tables])) for name in tables[0]}
