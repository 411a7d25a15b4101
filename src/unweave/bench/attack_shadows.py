"""The attacks on shadow models: U-LiRA, RMIA, Gaussian KLoM; of many also forgetting quality and KLoM."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

from unweave.audits.attack_result import AttackResult, halvings, spread_band
from unweave.audits.attacks import forgetting_quality, klom, klom_gauss, rmia, ulira
from unweave.audits.attacks.rmia import Confidences
from unweave.audits.attacks.ulira import Shadows
from unweave.audits.score import Z
from unweave.bench.shadows import Listener, Margins, Population, ShadowStudy
from unweave.errors import Failed

REFERENCES = 8
"""The retrained models that RMIA takes as references."""


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
            known = {"retrain": floor, "original": ceiling}.get(name)
            found = known or study.population(name, listener)
        except Failed as error:
            rows[name] = {"failed": str(error)}
            continue
        results = attack_population(study, found, floor, ceiling)
        rows[name] = {
            "failed": None,
            "seconds": found.cost.seconds,
            "gradient_evaluations": found.cost.gradients,
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
    study: ShadowStudy, found: Population, floor: Population, ceiling: Population
) -> dict[str, AttackResult]:
    """Every attack that T models allow, by "attack: figure"."""
    seen = study.halves.numpy()
    shadows = [Shadows(each.margins, seen) for each in (found, floor, ceiling)]
    results = {f"u-lira: {name}": each for name, each in ulira.ulira(*shadows).items()}
    results |= {f"rmia: {name}": each for name, each in rmia_of(seen, found, floor, ceiling).items()}
    per_target = unlearned_rows(found.margins, seen), unlearned_rows(floor.margins, seen)
    results["klom-gauss: mean"] = klom_gauss.klom_gauss(*per_target)
    if len(per_target[0]) >= forgetting_quality.FEWEST:
        results["forgetting-quality: F / F_null"] = forgetting_quality.forgetting_quality(*per_target)
    if len(per_target[0]) >= klom.FEWEST:
        results["klom: mean"] = klom.klom(*per_target)
    return results


def unlearned_rows(
    margins: Margins, seen: Bool[np.ndarray, "model target"]
) -> Float64[np.ndarray, "half target"]:
    """The margins of each target by the T / 2 models that had it in their half."""
    columns = [margins[seen[:, target], target] for target in range(margins.shape[1])]
    return np.stack(columns, axis=1)


def rmia_of(
    seen: Bool[np.ndarray, "model target"], found: Population, floor: Population, ceiling: Population
) -> dict[str, AttackResult]:
    """Offline RMIA of each model's half against the other half, which it never saw, as means over models.

    The references are retrained models; a retrained model that is a target itself is never among its own.
    """
    ours, theirs, before = (
        [attack_model(index, seen[index], each, floor) for index in range(len(seen))]
        for each in (found, floor, ceiling)
    )
    results, rng = {}, np.random.default_rng(0)
    for name in ours[0]:
        values, null, originals = ([each[name] for each in kind] for kind in (ours, theirs, before))
        error = float(np.std(values, ddof=1) / len(values) ** 0.5)
        mean = float(np.mean(values))
        results[name] = AttackResult(
            mean,
            mean - Z * error,
            mean + Z * error,
            float(np.mean(null)),
            spread_band([float(np.mean(np.take(null, half))) for half, _ in halvings(len(null), rng)]),
            rmia.CANNOT,
            float(np.mean(originals)),
        )
    return results


def attack_model(
    index: int, mine: Bool[np.ndarray, " target"], found: Population, floor: Population
) -> dict[str, float]:
    """RMIA on one model: the AUC, and the true-positive rate at a false-positive rate of 10 %."""
    others = [i for i in range(len(floor.margins)) if i != index][:REFERENCES]
    target, *references = (
        confidences(kind, row, mine) for kind, row in ((found, index), *((floor, row) for row in others))
    )
    found_figures = rmia.figures(target, references, rmia.A, rmia.GAMMA, 0.1)
    return {name: figure[0] for name, figure in found_figures.items()}


def confidences(kind: Population, row: int, mine: Bool[np.ndarray, " target"]) -> Confidences:
    """The confidences of one model on its half, on the other half, and on the calibration set."""
    from scipy.special import expit

    own = expit(kind.margins[row])
    return Confidences(own[mine], own[~mine], kind.held_out[row])


def summarize(found: Mapping[str, Any]) -> list[str]:
    """A line per method: U-LiRA's mean and worst decile, and the AUC of RMIA, with floor and ceiling."""
    shown = ("u-lira: accuracy", "u-lira: worst decile", "rmia: auc")
    lines = [f"{'':<16} {'  '.join(f'{name:>22}' for name in shown)}"]
    for name, row in found["rows"].items():
        if row["failed"] is not None:
            lines.append(f"{name:<16} FAILED: {row['failed']}")
            continue
        cells = [row["attacks"][figure] for figure in shown]
        text = "  ".join(
            f"{c['value']:>8.3f} [{c['low']:.3f}, {c['high']:.3f}]"[:24].rjust(22) for c in cells
        )
        lines.append(f"{name:<16} {text}")
    return lines
