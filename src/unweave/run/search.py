"""One search: a method's settings tried one after the other on the tuning seeds.

A trial is worth the mean over the seeds of its distance from their retrained models; the exam says how far.
"""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from torch import nn

from unweave.methods import Method
from unweave.methods.space import Choice, Log, Range, Rest, Uniform, Whole
from unweave.problem import Failed
from unweave.run.reading import configure
from unweave.run.stage import Stage
from unweave.train import digest, spend

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

SECOND = 1_000_000
"""Added to a tuning seed for the weights of its second retrained model."""

Settings = Mapping[str, Any]
"""Values by dotted field path, such as `how.lr`."""

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


def case(stage: Stage, seed: int) -> Case:
    """The models of one tuning seed."""
    exam, model = stage.exam(seed), stage.trained("retain", seed, seed).model
    original, retrained = stage.trained("mixed", seed, seed).model, exam.answers(model)
    second = exam.answers(stage.trained("retain", SECOND + seed, seed).model)
    wanted = {**exam.measure(retrained), **exam.probes(model)}
    return Case(stage, seed, original, retrained, wanted, exam.measure_pair(second, retrained)[exam.distance])


def search(method: Method, space: Mapping[str, Range], trials: int, cases: Sequence[Case]) -> list[Trial]:
    """The log of a search by Optuna's tree-structured Parzen estimator, from the method's own settings on."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    ranges = {path: distribution(each) for path, each in space.items() if not isinstance(each, Rest)}
    rests = {path: each for path, each in space.items() if isinstance(each, Rest)}
    seed = int(digest({"method": repr(method)})[:8], 16)
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=max(1, trials // 3))
    study = optuna.create_study(sampler=sampler)
    study.enqueue_trial(own(method, space))
    log: list[Trial] = []
    for number in range(trials):
        asked = study.ask(ranges)
        drawn = {path: rounded(value) for path, value in asked.params.items()}
        settings = drawn | {path: rest.left(drawn) for path, rest in rests.items()}
        log.append({"number": number, "settings": settings, **attempt(method, settings, cases)})
        value = log[-1]["value"]
        study.tell(asked, value, optuna.trial.TrialState.PRUNED if value is None else None)
    return log


def attempt(method: Method, settings: Settings, cases: Sequence[Case]) -> Trial:
    """The value of some settings and its parts, and what they cost; no value but the reason if they fail."""
    start, parts, gradients, failed = time.perf_counter(), [], [], None
    try:
        configured = configure(method, nested(settings))
        for each in cases:
            problem = each.stage.problem(each.original, each.seed, {}, each.seed)
            gradients.append(spend(problem, configured).gradients)
            exam = each.stage.exam(each.seed)
            found = exam.answers(problem.model)
            values = {**exam.measure(found, each.retrained), **exam.probes(problem.model)}
            parts.append(exam.trial(values, each.wanted, each.floor))
    except (ValueError, Failed) as error:
        failed = str(error)
    spent = round(sum(gradients) / len(cases))
    cost = {"seconds": time.perf_counter() - start, "gradient_evaluations": spent}
    if failed is not None:
        return {"value": None, "parts": {}, **cost, "failed": failed}
    mean = {name: float(np.mean([each[name] for each in parts])) for name in parts[0]}
    return {"value": mean.pop("value"), "parts": mean, **cost, "failed": None}


def distribution(choices: Log | Uniform | Whole | Choice) -> "BaseDistribution":
    """The range in Optuna's words."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    match choices:
        case Log(low, high):
            return FloatDistribution(low, high, log=True)
        case Uniform(low, high):
            return FloatDistribution(low, high)
        case Whole(low, high):
            return IntDistribution(low, high, log=True)
        case Choice(values):
            return CategoricalDistribution(values)


def own(method: Method, space: Mapping[str, Range]) -> dict[str, Any]:
    """The method's own settings, where they lie in their ranges."""
    table = dataclasses.asdict(cast(Any, method))
    values = {path: at(table, path) for path in space}
    drawn = {path: each for path, each in space.items() if not isinstance(each, Rest)}
    return {path: values[path] for path, each in drawn.items() if inside(each, values[path])}


def inside(choices: Log | Uniform | Whole | Choice, value: object) -> bool:
    """Whether a range holds a value."""
    if isinstance(choices, Choice):
        return value in choices.values
    return isinstance(value, int | float) and choices.low <= value <= choices.high


def at(table: Mapping[str, Any], path: str) -> object:
    """The value at a dotted path."""
    first, _, rest = path.partition(".")
    return at(table[first], rest) if rest else table[first]


def nested(settings: Settings) -> dict[str, Any]:
    """Dotted paths as tables in tables."""
    made: dict[str, Any] = {}
    for path, value in settings.items():
        *tables, key = path.split(".")
        inner = made
        for table in tables:
            inner = inner.setdefault(table, {})
        inner[key] = value
    return made


def rounded(value: object) -> object:
    """A number with three digits, as a recipe writes it; anything else as it is."""
    return float(f"{value:.3g}") if isinstance(value, float) else value
