r"""One search: a method's settings tried one after the other on the tuning seeds.

A trial's value is what a verdict asks for, in points: the mean over the seeds of
:math:`(|dUA| + |dRA| + |dTA| + |dMIA| + 100\,TV^+ + 100\,|dAUC| + |dprobe| + |drelearn|) / 4`, where d is the
difference from the seed's retrained model and TV^+ what the mean total variation on the forget data has above
that of a second retrained model: nearer than that is no better. The two probes count where classes are
forgotten whole. The calibration part stands for the test part, which no trial sees.
"""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from torch import nn

from unweave.audit.distance import tv
from unweave.audit.evidence import Evidence
from unweave.audit.metrics import GAP, mean_gap, measure
from unweave.audit.probes import probe
from unweave.methods import Method
from unweave.methods.space import Choice, Log, Range, Rest, Uniform, Whole
from unweave.problem import Failed
from unweave.run.reading import configure
from unweave.run.stage import Stage
from unweave.train import digest, spend

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

PARTS = ("forget", "retain", "calibration")
POINTS = {"excess": 100.0, "auc": 100.0, "probe": 1.0, "relearn": 1.0}
"""What one unit of a distance counts in points, beside the four of the mean gap."""

SECOND = 1_000_000
"""Added to a tuning seed for the weights of its second retrained model."""

Settings = Mapping[str, Any]
"""Values by dotted field path, such as `how.lr`."""

Trial = Mapping[str, Any]


@dataclass(frozen=True)
class Case:
    """One tuning seed.

    Args:
        seed: Of the data and of the training.
        original: The model to unlearn.
        retrained: What the retrained model answers.
        wanted: Its metrics.
        floor: The total variation on the forget data between it and a second one.
    """

    seed: int
    original: nn.Module
    retrained: Evidence
    wanted: Mapping[str, float]
    floor: float


def case(stage: Stage, seed: int) -> Case:
    """The models of one tuning seed."""
    retrained = stage.trained("retain", seed, seed).model
    original = stage.trained("mixed", seed, seed).model
    evidence = stage.evidence(retrained, seed, parts=PARTS)
    second = stage.evidence(stage.trained("retain", SECOND + seed, seed).model, seed, parts=PARTS)
    wanted = metrics(stage, seed, retrained, evidence, None)
    return Case(seed, original, evidence, wanted, tv(second, evidence))


def metrics(
    stage: Stage, seed: int, model: nn.Module, evidence: Evidence, retrained: Evidence | None
) -> dict[str, float]:
    """What a trial is judged by, with calibration in the place of test, and the probes of whole classes."""
    split = stage.split(seed)
    cuts = {part: split.part(part) for part in ("forget", "retain")}
    probes = probe(model, cuts, device=stage.device) if split.forgotten_classes else {}
    return {**measure(evidence, retrained, on="calibration"), **probes}


def search(
    stage: Stage, method: Method, space: Mapping[str, Range], trials: int, cases: Sequence[Case]
) -> list[Trial]:
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
        log.append({"number": number, "settings": settings, **attempt(stage, method, settings, cases)})
        value = log[-1]["value"]
        study.tell(asked, value, optuna.trial.TrialState.PRUNED if value is None else None)
    return log


def attempt(stage: Stage, method: Method, settings: Settings, cases: Sequence[Case]) -> Trial:
    """The value of some settings and its parts, and what they cost; no value but the reason if they fail."""
    start, parts, gradients, failed = time.perf_counter(), [], [], None
    try:
        configured = configure(method, nested(settings))
        for each in cases:
            problem = stage.problem(each.original, each.seed, {}, each.seed)
            gradients.append(spend(problem, configured).gradients)
            evidence = stage.evidence(problem.model, each.seed, parts=PARTS)
            values = metrics(stage, each.seed, problem.model, evidence, each.retrained)
            parts.append(distances(values, each.wanted, each.floor))
    except (ValueError, Failed) as error:
        failed = str(error)
    if failed is None and not all(np.isfinite(list(each.values())).all() for each in parts):
        failed = "NaN: the logits contain NaN or infinity"
    spent = round(sum(gradients) / len(cases))
    cost = {"seconds": time.perf_counter() - start, "gradient_evaluations": spent}
    if failed is not None:
        return {"value": None, "parts": {}, **cost, "failed": failed}
    mean = {name: float(np.mean([each[name] for each in parts])) for name in parts[0]}
    more = sum(POINTS[name] * found for name, found in mean.items() if name in POINTS)
    value = mean["gap"] + more / len(GAP)
    return {"value": value, "parts": mean, **cost, "failed": None}


def distances(values: Mapping[str, float], wanted: Mapping[str, float], floor: float) -> dict[str, float]:
    """The mean gap in points, and how far the rest of what a verdict asks for is off, in its own unit."""
    off = {name: abs(values[name] - wanted[name]) for name in POINTS if name in wanted}
    over = {"tv": values["tv"], "excess": max(0.0, values["tv"] - floor)}
    return {"gap": mean_gap(values, wanted), **over, **off}


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
