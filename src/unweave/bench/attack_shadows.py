"""The attacks on shadow models: U-LiRA, RMIA, Gaussian KLoM; of many also forgetting quality and KLoM."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from unweave.audits.attack_result import AttackResult, halvings, spread_band, two_way_bootstrap
from unweave.audits.attacks import forgetting_quality, klom, klom_gauss, rmia, ulira
from unweave.audits.attacks.rmia import Confidences
from unweave.audits.attacks.ulira import Shadows
from unweave.audits.rates import placements, tpr_at_fpr
from unweave.bench.shadows import Listener, Margins, Population, ShadowStudy
from unweave.errors import Failed

REFERENCES = 8
"""The retrained models that RMIA takes as references."""

FPR = 0.1

Halves = Bool[np.ndarray, "model target"]
Scores = Float64[np.ndarray, "model target"]
Positions = Int64[np.ndarray, "_"]
Figure = Callable[[Float64[np.ndarray, " target"], Bool[np.ndarray, " target"]], float]
"""A figure of one model: from the scores of the targets, and which of them are of its half."""


def run_study(study: ShadowStudy, methods: Sequence[str], listener: Listener) -> dict[str, Any]:
    """Attacks the retrained models, the originals and every method; a failed method keeps its row.

    Args:
        study: The shadow models.
        methods: The names of methods or pipelines.
        listener: Hears of every model.
    """
    floor, ceiling = (study.population(name, listener) for name in ("retrain", "original"))
    rows: dict[str, Any] = {}
    for name in ("retrain", "original", *methods):
        try:
            reference = {"retrain": floor, "original": ceiling}.get(name)
            population = reference or study.population(name, listener)
        except Failed as error:
            rows[name] = {"failed": str(error)}
            continue
        results = attack_population(study, population, floor, ceiling)
        rows[name] = {
            "failed": None,
            "seconds": population.cost.seconds,
            "gradient_evaluations": population.cost.gradients,
            "attacks": {attack: asdict(result) for attack, result in results.items()},
        }
    return {
        "recipe": study.recipe.name,
        "models": study.models,
        "targets": len(study.split.forget),
        "data": study.split.digest(),
        "rows": rows,
    }


def attack_population(
    study: ShadowStudy, population: Population, floor: Population, ceiling: Population
) -> dict[str, AttackResult]:
    """Every attack that T models allow, by "attack: figure"."""
    halves = study.halves.numpy()
    shadows = [Shadows(each.margins, halves) for each in (population, floor, ceiling)]
    results = {f"u-lira: {name}": each for name, each in ulira.ulira(*shadows).items()}
    results |= {f"rmia: {name}": each for name, each in rmia_of(halves, population, floor, ceiling).items()}
    if population is floor:  # the attacks below would compare these models with themselves
        return results
    per_target = unlearned_rows(population.margins, halves), unlearned_rows(floor.margins, halves)
    results["klom-gauss: mean"] = klom_gauss.klom_gauss(*per_target)
    if len(per_target[0]) >= forgetting_quality.FEWEST:
        results["forgetting-quality: F / F_null"] = forgetting_quality.forgetting_quality(*per_target)
    if len(per_target[0]) >= klom.FEWEST:
        results["klom: mean"] = klom.klom(*per_target)
    return results


def unlearned_rows(
    margins: Margins, halves: Bool[np.ndarray, "model target"]
) -> Float64[np.ndarray, "half target"]:
    """The margins of each target by the T / 2 models that had it in their half."""
    columns = [margins[halves[:, target], target] for target in range(margins.shape[1])]
    return np.stack(columns, axis=1)


def rmia_of(
    halves: Halves, population: Population, floor: Population, ceiling: Population
) -> dict[str, AttackResult]:
    """Offline RMIA of each model's half against the other half, which it never saw, as means over models.

    The references are retrained models; a retrained model that is a target itself is never among its own.
    Intervals are over models and targets, for these references.
    """
    scores, null_scores, original_scores = (
        np.stack([scores_of(index, halves[index], each, floor) for index in range(len(halves))])
        for each in (population, floor, ceiling)
    )
    results = {}
    for name, figure in RMIA_FIGURES.items():
        rng = np.random.default_rng(0)
        null = [figure(*sides) for sides in zip(null_scores, halves, strict=True)]
        if np.isnan(null).any():  # too few targets for this figure
            continue
        bands = [float(np.mean(np.take(null, half))) for half, _ in halvings(len(null), rng)]
        mean = mean_over_models(figure, scores, halves)
        low, high = two_way_bootstrap(halves.shape, partial(resampled_mean, figure, scores, halves), rng)
        results[name] = AttackResult(
            mean,
            low,
            high,
            float(np.mean(null)),
            spread_band(bands),
            rmia.CANNOT,
            mean_over_models(figure, original_scores, halves),
        )
    return results


def mean_over_models(figure: Figure, scores: Scores, halves: Halves) -> float:
    """The mean of a figure over the models that have it; NaN if none has."""
    values = [figure(*each) for each in zip(scores, halves, strict=True)]
    return float(np.nanmean(values)) if not np.isnan(values).all() else math.nan


def resampled_mean(
    figure: Figure, scores: Scores, halves: Halves, models: Positions, targets: Positions
) -> float:
    """The same of some models and targets."""
    rows = np.ix_(models, targets)
    return mean_over_models(figure, scores[rows], halves[rows])


def area(scores: Float64[np.ndarray, " target"], half: Bool[np.ndarray, " target"]) -> float:
    """The AUC of a model's half against the other half; NaN if one of them is empty."""
    if half.all() or not half.any():
        return math.nan
    return float(placements(scores[half], scores[~half]).mean())


def rate(scores: Float64[np.ndarray, " target"], half: Bool[np.ndarray, " target"]) -> float:
    """The true-positive rate at a false-positive rate of 10 %; NaN if one example is more than that."""
    if half.all() or not half.any() or (~half).sum() * FPR < 1:
        return math.nan
    return tpr_at_fpr(scores[half], scores[~half], FPR)[1].value


RMIA_FIGURES: Mapping[str, Figure] = {"auc": area, "tpr": rate}


def scores_of(
    index: int, half: Bool[np.ndarray, " target"], population: Population, floor: Population
) -> Float64[np.ndarray, " target"]:
    """RMIA's score of each target by one model."""
    indices = [i for i in range(len(floor.margins)) if i != index][:REFERENCES]
    target, *references = (
        confidences(kind, row, half)
        for kind, row in ((population, index), *((floor, row) for row in indices))
    )
    scores = np.empty(len(half))
    for part, rows in (("forget", half), ("unseen", ~half)):
        scores[rows] = rmia.scores(target, references, part, a=rmia.A, gamma=rmia.GAMMA)
    return scores


def confidences(kind: Population, row: int, half: Bool[np.ndarray, " target"]) -> Confidences:
    """The confidences of one model on its half, on the other half, and on the calibration set."""
    from scipy.special import expit

    probabilities = expit(kind.margins[row])
    return Confidences(probabilities[half], probabilities[~half], kind.held_out[row])


def summarize(result: Mapping[str, Any]) -> list[str]:
    """A line per method: U-LiRA's mean and worst decile, and the AUC of RMIA, with floor and ceiling."""
    figures = ("u-lira: accuracy", "u-lira: worst decile", "rmia: auc")
    lines = [f"{'':<16} {'  '.join(f'{name:>22}' for name in figures)}"]
    for name, row in result["rows"].items():
        if row["failed"] is not None:
            lines.append(f"{name:<16} FAILED: {row['failed']}")
            continue
        cells = [row["attacks"][figure] for figure in figures]
        text = "  ".join(
            f"{c['value']:>8.3f} [{c['low']:.3f}, {c['high']:.3f}]"[:24].rjust(22) for c in cells
        )
        lines.append(f"{name:<16} {text}")
    return lines
