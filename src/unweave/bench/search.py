"""A search: trials of a method's settings on the tuning seeds.

The value of a trial is the mean over the seeds of its distance from their retrained models, as the exam
defines it.
"""

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from torch import nn

from unweave.audits.exam import Exam
from unweave.bench.ranges import Settings, default_settings, distribution, nest_paths, round_digits
from unweave.bench.stage import Memory, Stage
from unweave.descent.timing import run_and_time
from unweave.descent.train import digest
from unweave.errors import Failed
from unweave.methods import Method
from unweave.methods.configure import configure
from unweave.problem import Problem
from unweave.space import Range, Rest

if TYPE_CHECKING:
    from optuna import Trial as OptunaTrial
    from optuna.samplers import BaseSampler

SECOND = 1_000_000
"""Added to a tuning seed for the weights of its second retrained model."""

MANY, POPULATION, OBJECTIVES = 100, 50, 4
"""From this number of trials on a search has several objectives; the size of its generations."""

Trial = Mapping[str, Any]


@runtime_checkable
class PosesRequests(Protocol):
    """Poses a request to methods, and examines the models that they make; a `Stage` does."""

    def problem(
        self, original: nn.Module, seed: int, memory: Memory, tuning_seed: int | None = None
    ) -> Problem:
        """The request on a copy of the original."""
        ...

    def exam(self, tuning_seed: int | None = None) -> Exam[Any]:
        """The exam of its models."""
        ...


@dataclass(frozen=True)
class Case:
    """One tuning seed with its models.

    Args:
        stage: Its stage, or whatever else poses the request; a search may use cases of several stages.
        seed: The seed of the training and of the proxy request.
        original: The model to unlearn.
        retrained: The answers of the retrained model.
        retrained_metrics: The metrics of the retrained model.
        floor: The distance on the forget set between two retrained models.
    """

    stage: PosesRequests
    seed: int
    original: nn.Module
    retrained: Any
    retrained_metrics: Mapping[str, float]
    floor: float


def make_case(stage: Stage, seed: int) -> Case:
    """Makes the case of one tuning seed."""
    exam, model = stage.exam(seed), stage.load_or_train("retain", seed, seed).model
    original, retrained = stage.load_or_train("mixed", seed, seed).model, exam.answers(model)
    second_answers = exam.answers(stage.load_or_train("retain", SECOND + seed, seed).model)
    retrained_values = {**exam.measure(retrained), **exam.probes(model)}
    return Case(
        stage,
        seed,
        original,
        retrained,
        retrained_values,
        exam.measure_pair(second_answers, retrained)[exam.distance],
    )


def search(
    method: Method,
    space: Mapping[str, Range],
    trials: int,
    cases: Sequence[Case],
    *,
    begin: Method | None = None,
    second: Settings | None = None,
    place: Path | str | None = None,
    name: str = "search",
) -> list[Trial]:
    """Runs a search by Optuna and returns its log.

    With fewer than `MANY` trials, a tree-structured Parzen estimator minimises the exam's value, and hopeless
    trials are pruned. With more, NSGA-III minimises the exam's objectives, as Deep Unlearn does; a trial's
    value is their Euclidean norm, and nothing is pruned, because several objectives have no order.

    A single process always tries the same settings, even after an interruption, and whatever settings an
    earlier search left in the recipe. With several processes in one place, the trials depend on the order
    in which they finish.

    Args:
        method: The method.
        space: The search space.
        trials: The number of trials of all processes together.
        cases: The cases of every trial.
        begin: The method with the settings of the first trial; its own if None.
        second: The settings of the second trial; those that are missing are drawn.
        place: The journal or the URL of the database that stores trials as they are made; none if None.
        name: The name of this search there.
    """
    from unweave.bench import shared_search  # Optuna takes a second to import

    ranges = {path: distribution(each) for path, each in space.items() if not isinstance(each, Rest)}
    rests = {path: each for path, each in space.items() if isinstance(each, Rest)}
    first_seed, many = int(digest({"method": repr(begin or method)})[:8], 16), trials >= MANY
    starts = [default_settings(begin or method, space), *([second] if second else [])]
    storage = shared_search.storage_at(place)
    study = shared_search.open_study(storage, name, OBJECTIVES if many else 1)

    def ask(count: int) -> "OptunaTrial":
        study.sampler = make_sampler(first_seed + count, trials)
        if count < len(starts) and not shared_search.has_untried(study):
            study.enqueue_trial(starts[count])
        return study.ask(ranges)

    def make(trial: "OptunaTrial") -> Trial:
        drawn_settings = {path: round_digits(value) for path, value in trial.params.items()}
        settings = drawn_settings | {path: rest.remaining(drawn_settings) for path, rest in rests.items()}

        def hopeless(value: float, step: int) -> bool:
            trial.report(value, step)
            return bool(trial.should_prune())

        if many:
            return {"settings": settings, **run_trial(method, settings, cases, many=True)}
        return {"settings": settings, **run_trial(method, settings, cases, hopeless)}

    return shared_search.run_trials(study, storage, trials, ask, make)


def make_sampler(seed: int, trials: int) -> "BaseSampler":
    """Makes a new sampler for every trial, so that an interruption loses no state."""
    from optuna.exceptions import ExperimentalWarning
    from optuna.samplers import NSGAIIISampler, TPESampler

    if trials >= MANY:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # Optuna marks it as experimental
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
    """Runs one trial: its value and parts, and its cost; or no value and the reason of a failure.

    Args:
        method: The method.
        settings: The settings to change.
        cases: The cases, one after the other.
        hopeless: Decides from the mean value of the first cases, and their number minus one, whether to skip
            the others.
        many: Whether the value is the norm of the exam's objectives, which are then logged too.
    """
    start, parts, aims, gradients, failure, is_pruned = time.perf_counter(), [], [], [], None, False
    try:
        configured_method = configure(method, nest_paths(settings))
        for step, each in enumerate(cases):
            problem = each.stage.problem(each.original, each.seed, {}, each.seed)
            gradients.append(run_and_time(problem, configured_method).gradients)
            exam = each.stage.exam(each.seed)
            answers = exam.answers(problem.model)
            values = {**exam.measure(answers, each.retrained), **exam.probes(problem.model)}
            parts.append(exam.score_trial(values, each.retrained_metrics, each.floor))
            aims.append(exam.objectives(answers, values, each.retrained_metrics) if many else {})
            value = float(np.mean([each["value"] for each in parts]))
            if not math.isfinite(value + sum(aims[-1].values())):
                raise Failed("the value of the trial is no finite number")
            if hopeless(value, step) and step + 1 < len(cases):
                is_pruned = True
                break
    except (ValueError, Failed) as error:
        failure = str(error)
    evaluations = round(sum(gradients) / max(1, len(gradients)))
    cost = {"seconds": time.perf_counter() - start, "gradient_evaluations": evaluations}
    if failure is not None or is_pruned:
        return {"value": None, "parts": {}, **cost, "failed": failure, "pruned": is_pruned}
    mean, outcome = mean_values(parts), {**cost, "failed": None, "pruned": False}
    if many:
        objectives = mean_values(aims)
        return {"value": math.hypot(*objectives.values()), "objectives": objectives, "parts": mean, **outcome}
    return {"value": mean.pop("value"), "parts": mean, **outcome}


def mean_values(tables: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each number over the seeds."""
    return {name: float(np.mean([each[name] for each in tables])) for name in tables[0]}
