"""The audits of `power.py`: each draws its models at random, fixes its margins and judges every kind."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from power_models import Models

from unweave.audits.classifier.metrics import METRICS
from unweave.audits.margins import Margins, margins
from unweave.audits.verdict import SEEDS, Judgement, judge


@dataclass(frozen=True)
class Draw:
    """The models of one audit, by their numbers.

    Args:
        calibration: The retrained models that fix the margins.
        references: Those to compare with.
        judged: The models to judge, by kind.
        margins: The margins.
    """

    calibration: Sequence[int]
    references: Sequence[int]
    judged: Mapping[str, Sequence[int]]
    margins: Margins


def draw(models: Models, rng: np.random.Generator, count: int) -> Draw:
    """Draws the models of one audit, and fixes its margins by some of them."""
    retrained, distances = models.alone["retrained"], models.beside["retrained"]
    dealt = rng.permutation(len(retrained))[: count + 2 * SEEDS]
    calibration, references, subjects = np.split(dealt, [count, count + SEEDS])
    pairs = [distances[i][j] for i, j in combinations(calibration, 2)]
    limits = margins([retrained[i] for i in calibration], pairs, sizes=models.exam.sizes, metrics=METRICS)
    numbers = {kind: rng.permutation(len(group))[:SEEDS].tolist() for kind, group in models.alone.items()}
    numbers["retrained"] = subjects.tolist()
    return Draw(calibration.tolist(), references.tolist(), numbers, limits)


def audit(models: Models, audit_draw: Draw) -> dict[str, Judgement]:
    """One audit of each kind of model, with the same references and margins."""
    return {kind: judge_models(models, audit_draw, kind) for kind in audit_draw.judged}


def judge_models(models: Models, audit_draw: Draw, kind: str) -> Judgement:
    """The verdict on models of a kind, one for each reference."""
    values, original = (
        [
            {**models.alone[name][i], **models.beside[name][i][j]}
            for i, j in zip(audit_draw.judged[name], audit_draw.references, strict=True)
        ]
        for name in (kind, "original")
    )
    expected = [models.alone["retrained"][i] for i in audit_draw.references]
    return judge(values, expected, audit_draw.margins, original=original, metrics=METRICS)
