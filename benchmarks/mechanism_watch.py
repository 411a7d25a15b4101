"""LUR as `mechanism.py` runs it: both gradients are measured over all data at eleven points of a descent."""

from dataclasses import dataclass, field

import numpy as np
from rows import Row

from unweave.descent.descend import Descent, Phase, descend
from unweave.descent.objective import nll
from unweave.descent.probe import Probe, cosines
from unweave.descent.units import measure_units
from unweave.methods.lur import LUR, TERMS
from unweave.methods.starts import Redraw
from unweave.problem import Problem
from unweave.tasks import evaluating
from unweave.weights.params import gramian, norm

LOOKS = 10


@dataclass
class Watch:
    """Measures both gradients every few steps.

    Args:
        probe: Draws the halves, and takes a gradient on one.
        weight: The weight of the forget loss.
        every: The number of steps between two measurements.
        looks: The measurements.
        clipped: At how many steps the norm was clipped, to 1.
    """

    probe: Probe
    weight: float
    every: int
    looks: list[dict[str, float]] = field(default_factory=list)
    clipped: int = 0

    def __call__(self, problem: Problem, index: int) -> None:
        """Looks, if it is time to."""
        before = {name: p.grad for name, p in problem.params.items() if p.grad is not None}
        self.clipped += bool(before) and float(norm(before)) > 0.999
        if index % self.every == 0:
            with evaluating(problem.model):
                self.looks.append({"step": index, **self.look(problem)})

    def look(self, problem: Problem) -> dict[str, float]:
        """Cosines, and the size of what they are made of."""
        probe = self.probe
        if not probe.halves:
            probe.halves = {
                part: probe.draw_halves(problem, part) for part in ("retain", "forget", "calibration")
            }
        objectives = (probe.retain, probe.forget, -nll("forget"), nll("calibration"))
        retain, forget, ascent, held_out = (
            [probe.gradient(problem, each, half) for half in (0, 1)] for each in objectives
        )
        g = gramian(retain + forget).double()
        cosine, disattenuated, reliability = cosines(g)
        inner, r, f = float(g[:2, 2:].mean()), float(g[:2, :2].mean().sqrt()), float(g[2:, 2:].mean().sqrt())
        forget_norm = self.weight * f
        total = max(0.0, r**2 + 2 * self.weight * inner + forget_norm**2) ** 0.5
        return {
            "cosine": cosine,
            "disattenuated": disattenuated,
            "reliability": reliability,
            "inner": inner,
            "retain_norm": r,
            "forget_norm": f,
            "imbalance": total / (r + forget_norm),
            "ascent_cosine": cosines(gramian(retain + ascent))[0],
            "held_out_cosine": cosines(gramian(held_out + forget))[0],
        }


def forget(problem: Problem, start: Redraw | None, lur: LUR) -> Watch:
    """What a start and `lur` do to a problem, watched over all data.

    Raises:
        ValueError: If "lagged" would not converge at this alpha.
    """
    if start is not None:
        start(problem)
    retain, unlearn = nll("retain"), lur.forget(problem, lur.how)
    # the bound of "lagged" is measured on separate batches, so it takes none of the run's randomness
    bound_copy = problem.problem_copy("bound")
    weight, alpha = measure_units(
        bound_copy, lur.how, None, retain, unlearn, weight=lur.weight, alpha=lur.alpha, mode=lur.mode
    )
    steps = lur.how.steps or 0
    probe = Probe(1, retain, unlearn, size=len(problem.split.train))
    watch = Watch(probe, weight, steps // LOOKS)
    terms = TERMS[lur.mode](retain, weight * unlearn, alpha)
    descend(problem, lur.how, Phase(terms, watch=watch))
    watch(problem, steps)
    return watch


def summarise_watch(watch: Watch, how: Descent) -> Row:
    """Means over the second half of a descent, the end, and the cosines of every look.

    The disattenuated cosine is weighted by the reliability of each look: without any, it is all noise.
    """
    steps = how.steps or 1
    late = [look for look in watch.looks if 2 * look["step"] >= steps]
    sure = [look for look in late if not np.isnan(look["disattenuated"])]
    trust = [look["reliability"] for look in sure]
    average = float(np.average([look["disattenuated"] for look in sure], weights=trust)) if sure else None
    means = {key: float(np.mean([look[key] for look in late])) for key in late[0] if key != "step"}
    looks = {
        key: [look[key] for look in watch.looks] for key in ("step", "cosine", "disattenuated", "reliability")
    }
    details = {"end_cosine": late[-1]["cosine"], "clipped": watch.clipped / steps, "looks": looks}
    return {**means, **details, "disattenuated": average}
