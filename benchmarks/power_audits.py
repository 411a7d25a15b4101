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


def draw(found: Models, rng: np.random.Generator, calibrating: int) -> Draw:
    """Draws the models of one audit, and fixes its margins by some of them."""
    retrained, beside = found.alone["retrained"], found.beside["retrained"]
    dealt = rng.permutation(len(retrained))[: calibrating + 2 * SEEDS]
    calibration, references, again = np.split(dealt, [calibrating, calibrating + SEEDS])
    pairs = [beside[i][j] for i, j in combinations(calibration, 2)]
    fixed = margins([retrained[i] for i in calibration], pairs, sizes=found.exam.sizes, metrics=METRICS)
    judged = {kind: rng.permutation(len(group))[:SEEDS].tolist() for kind, group in found.alone.items()}
    judged["retrained"] = again.tolist()
    return Draw(calibration.tolist(), references.tolist(), judged, fixed)


def audit(found: Models, drawn: Draw) -> dict[str, Judgement]:
    """One audit of each kind of model, with the same references and margins."""
    return {kind: judge_models(found, drawn, kind) for kind in drawn.judged}


def judge_models(found: Models, drawn: Draw, kind: str) -> Judgement:
    """The verdict on models of a kind, one for each reference."""
    values, original = (
        [
            {**found.alone[name][i], **found.beside[name][i][j]}
            for i, j in zip(drawn.judged[name], drawn.references, strict=True)
        ]
        for name in (kind, "original")
    )
    wanted = [found.alone["retrained"][i] for i in drawn.references]
    return judge(values, wanted, drawn.margins, original=original, metrics=METRICS)
