"""Which of LUR's settings matter, which work together, and which can be measured and need no tuning?

    python benchmarks/hyperparameters.py                                        # prints the tables
    python benchmarks/hyperparameters.py --record records/hyperparameters.json --plot docs
    python benchmarks/hyperparameters.py --read records/hyperparameters.json    # the tables of a record
    python benchmarks/hyperparameters.py --stages cifar10-resnet18-random10 --device cuda --jobs 1

Around a centre one factor is changed at a time; beside that stand points that fill the space of all factors
(a scrambled Sobol sequence), and complete settings that are candidates for defaults. All run on three stages
whose data and forget sets are cut anew by each seed, and by seeds that nothing else uses. A point is worth
what a trial of a search is worth (`unweave.run.search`): the distance to a retrained model, on the
calibration part; the test part is never seen.

Lengths are fractions of the gradient steps of retraining, so that the same points fit every stage.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import matplotlib
import torch
from hyperparameters_plots import drawn
from hyperparameters_tables import analysed, printed
from mechanism_tables import plain
from scipy.stats import qmc

from unweave.methods.lur import LUR
from unweave.run.cell import kept
from unweave.run.reading import configure
from unweave.run.recipe import Recipe, load
from unweave.run.record import environment
from unweave.run.search import attempt, case
from unweave.run.stage import Stage
from unweave.train import digest

Row = dict[str, Any]
Point = Mapping[str, Any]
"""A value per factor; what is left out is as in the centre."""

SEEDS = (2000, 2001, 2002)
CHUNK = 16
"""Points that one job tries."""


@dataclass(frozen=True)
class Amount:
    """A positive number, uniform in its logarithm.

    Args:
        low: The smallest value.
        high: The largest value.
        levels: Those of the one-at-a-time design.
        off: The fraction of points at zero.
    """

    low: float
    high: float
    levels: Sequence[float]
    off: float = 0.0

    def at(self, u: float) -> float:
        """The value at a place in [0, 1)."""
        if u < self.off:
            return 0.0
        return float(f"{self.low * (self.high / self.low) ** ((u - self.off) / (1 - self.off)):.3g}")


@dataclass(frozen=True)
class Share:
    """A number, uniform.

    Args:
        low: The smallest value.
        high: The largest value.
        levels: Those of the one-at-a-time design.
    """

    low: float
    high: float
    levels: Sequence[float]

    def at(self, u: float) -> float:
        """The value at a place in [0, 1)."""
        return float(f"{self.low + (self.high - self.low) * u:.3g}")


@dataclass(frozen=True)
class Kind:
    """One of some names.

    Args:
        levels: The names.
        searched: How many of them, from the first, the space-filling design has.
    """

    levels: Sequence[Any]
    searched: int

    def at(self, u: float) -> Any:  # noqa: ANN401  (a name, or None)
        """The value at a place in [0, 1)."""
        return self.levels[int(u * self.searched)]


FACTORS: Mapping[str, Amount | Share | Kind] = {
    "mode": Kind(("nested", "lagged", "exact", "joint", "first-order"), 4),
    "alpha": Amount(0.003, 0.6, (0.003, 0.01, 0.03, 0.1, 0.3, 0.6)),
    "alpha_in": Kind(("absolute", "along", "curvature"), 2),
    "forget": Kind(("bounded", "clamped", "level", "match", "quantile", "ascent", "mislabel", "uniform"), 5),
    "weight": Amount(0.02, 2.0, (0.02, 0.06, 0.2, 0.6, 2.0)),
    "weight_in": Kind(("absolute", "gradients"), 2),
    "keep": Share(0.2, 1.0, (0.2, 0.4, 0.6, 0.8, 1.0)),
    "redraw": Amount(0.003, 0.3, (0.0, 0.003, 0.03, 0.1, 0.3), off=0.25),
    "how.lr": Amount(0.02, 0.5, (0.02, 0.05, 0.1, 0.15, 0.3, 0.5)),
    "forgetting": Amount(0.005, 0.2, (0.005, 0.015, 0.05, 0.1, 0.2)),
    "recovery": Amount(0.05, 0.7, (0.05, 0.1, 0.2, 0.4, 0.7)),
    "how.stop": Kind(("never", "forgotten"), 2),
    "how.schedule": Kind(("cosine", "linear", "constant"), 2),
    "how.max_norm": Kind((1.0, None, 0.3, 3.0), 2),
    "how.forget_batch": Kind((64, 32, 16, 128), 1),
    "cap": Amount(1.0, 10.0, (1.0, 2.0, 4.0, 8.0)),
    "retain": Kind(("nll", "distill", "both"), 1),
}
"""What is varied. "forgetting" and "recovery" are fractions of the steps of retraining."""

ALONE = ("how.forget_batch", "cap", "retain")
"""Varied one at a time only."""

CENTRE: Point = {
    "mode": "nested",
    "alpha": 0.05,
    "alpha_in": "absolute",
    "forget": "clamped",
    "weight": 0.3,
    "weight_in": "absolute",
    "keep": 0.6,
    "redraw": 0.03,
    "how.lr": 0.15,
    "forgetting": 0.05,
    "recovery": 0.4,
    "how.stop": "never",
    "how.schedule": "cosine",
    "how.max_norm": 1.0,
    "how.forget_batch": 64,
    "cap": 4.0,
    "retain": "nll",
}
"""About the middle of what the searches of records/digits.json and records/fashion-mnist.json ended at."""

ALONG = 5.0
"""Alpha is so many times larger where its unit is 1 / curvature: about the curvature of these stages."""

PROXY = 0.1
"""The steps of a proxy."""


BEFORE: Point = {
    "mode": "nested",
    "alpha": 0.1,
    "alpha_in": "absolute",
    "forget": "bounded",
    "weight": 0.3,
    "weight_in": "absolute",
    "keep": 1.0,
    "redraw": 0.03,
    "recover": 200,
    "recover_in": "steps",
    "until": "end",
    "how.lr": 0.1,
    "how.steps": 60,
}
"""What LUR began with when nobody set anything, before this study: `LUR()`."""

AS_TRAINED = "as trained"
"""In the place of a rate: that of the stage's training."""

NOW: Point = {
    **BEFORE,
    "alpha": 1.0,
    "alpha_in": "along",
    "forget": "clamped",
    "weight_in": "gradients",
    "keep": 0.6,
    "redraw": 0.0,
    "recover": 30,
    "recover_in": "epochs",
    "until": "restored",
    "how.lr": 0.2,
    "how.steps": 20,
}
"""What `lur` begins with when nobody sets anything: `UNTUNED` of `unweave.methods.lur`."""

CANDIDATES: Mapping[str, Point] = {
    "now": NOW,
    "before": BEFORE,
    "at the rate of training": {**NOW, "how.lr": AS_TRAINED},
    "half the rate": {**NOW, "how.lr": 0.1},
    "at twice the original's loss": {**NOW, "near": 2.0},
    "recovery of 200 steps": {**NOW, "recover": 200, "recover_in": "steps", "until": "end"},
    "recovery of 10 epochs": {**NOW, "recover": 10, "until": "end"},
    "absolute weight": {**NOW, "weight_in": "absolute"},
    "absolute alpha 0.1": {**NOW, "alpha": 0.1, "alpha_in": "absolute"},
    "no lookahead": {**NOW, "mode": "joint"},
    "bounded": {**NOW, "forget": "bounded"},
    "level": {**NOW, "forget": "level"},
    "until forgotten, at most 60 steps": {**NOW, "how.steps": 60, "how.stop": "forgotten"},
    "all weights kept": {**NOW, "keep": 1.0, "redraw": 0.03},
    "all weights kept, 0.3 redrawn": {**NOW, "keep": 1.0, "redraw": 0.3},
    "half the steps": {**NOW, "how.steps": 10},
    "twice the steps": {**NOW, "how.steps": 40},
}
"""Complete settings: what `lur` begins with now and before, and what each part of that does."""


@dataclass(frozen=True)
class Extent:
    """How much of the design a stage gets.

    Args:
        random: Points that fill the space.
        seeds: Seeds of those.
        alone: Seeds of the points beside the centre.
        tried: Seeds of the candidates.
        candidates: How many of those, from the first.
        limit: Training examples, if fewer than the recipe's.
    """

    random: int
    seeds: int
    alone: int = len(SEEDS)
    tried: int = len(SEEDS)
    candidates: int = len(CANDIDATES)
    limit: int | None = None


STAGES = {
    "digits-clean": Extent(256, 2),
    "digits-trace": Extent(256, 2),
    "fashion-mnist-random10": Extent(64, 1, alone=1, limit=2500),
    "cifar10-resnet18-random10": Extent(64, 1, alone=1, tried=1),
}
ON_CPU = tuple(STAGES)[:3]


def stage_of(name: str, folder: Path, device: str = "cpu") -> Stage:
    """A stage, whose models are kept in the folder."""
    recipe, limit = load(name), STAGES[name].limit
    data = recipe.data if limit is None else replace(recipe.data, limit=limit)
    return Stage(replace(recipe, data=data), folder, device)


def settings_of(point: Point, retraining: int) -> Row:
    """A point as settings of LUR by dotted path.

    Args:
        point: Values of factors.
        retraining: The gradient steps of retraining.
    """
    whole = {**CENTRE, **point}
    lengths = {"how.steps": "forgetting", "recover": "recovery"}
    steps = {path: max(1, round(whole[name] * retraining)) for path, name in lengths.items()}
    rest = {path: value for path, value in whole.items() if path not in lengths.values()}
    alpha = whole["alpha"] * (1.0 if whole["alpha_in"] == "absolute" else ALONG)
    fixed = {"recover_in": "steps", "how.batch": 128, "how.warmup": 0.05}
    return {**rest, **steps, **fixed, "alpha": alpha, "proxy.how.steps": max(1, round(PROXY * retraining))}


def one_at_a_time() -> list[tuple[str, Point]]:
    """The centre, and every level of every factor beside it."""
    around = [(name, {name: level}) for name, factor in FACTORS.items() for level in factor.levels]
    return [("centre", {}), *((name, point) for name, point in around if point != {name: CENTRE[name]})]


def filling(number: int) -> list[tuple[str, Point]]:
    """So many points of a scrambled Sobol sequence: a longer design begins with the shorter one."""
    searched = [name for name in FACTORS if name not in ALONE]
    places = qmc.Sobol(len(searched), seed=0).random(
        1 << (max(STAGES[s].random for s in STAGES) - 1).bit_length()
    )
    rows = places[:number].tolist()
    return [
        ("random", {name: FACTORS[name].at(u) for name, u in zip(searched, row, strict=True)}) for row in rows
    ]


def as_trained(recipe: Recipe) -> LUR:
    """LUR with the precision and weight decay of the recipe's training, as recipes configure it."""
    how = {"precision": recipe.train.precision, "weight_decay": recipe.train.weight_decay}
    return configure(LUR(), {"how": how, "proxy": {"how": how}})


def tried(stage: Stage, seed: int, kind: str, points: Sequence[tuple[str, Point]]) -> list[Row]:
    """What some points are worth on one seed of a stage; kept in its folder, whatever has changed since."""
    torch.set_num_threads(1)
    method, name = as_trained(stage.recipe), stage.recipe.name
    facts = {"data": repr(stage.recipe.data), "train": repr(stage.recipe.train), "seed": seed}
    facts |= {"points": points, "centre": CENTRE}

    def make() -> Row:
        here = case(stage, seed)
        retraining = stage.trained("retain", seed, seed).cost.gradients
        rows: list[Row] = []
        for design, point in points:
            settings = complete(stage, point) if kind == "candidates" else settings_of(point, retraining)
            found = attempt(method, settings, [here])
            row = {"stage": name, "seed": seed, "design": design, "point": point, **found.pop("parts")}
            rows.append(row | {key: found[key] for key in ("value", "gradient_evaluations", "failed")})
        return {"rows": rows}

    place = stage.folder / "points" / name / f"{seed}-{kind}-{digest({'points': points})[:8]}"
    return kept(place, digest(facts), make)["rows"]


def complete(stage: Stage, point: Point) -> Row:
    """A candidate's settings on a stage."""
    rate = stage.recipe.train.lr if point["how.lr"] == AS_TRAINED else point["how.lr"]
    return {**point, "how.lr": rate}


def jobs_of(stage: Stage, extent: Extent) -> list[tuple[Stage, int, str, Sequence[tuple[str, Point]]]]:
    """The work on a stage, in chunks."""
    designs = (
        ("alone", one_at_a_time(), extent.alone, CHUNK),
        ("random", filling(extent.random), extent.seeds, CHUNK),
        ("candidates", list(CANDIDATES.items())[: extent.candidates], extent.tried, 1),
    )
    return [
        (stage, seed, kind, points[at : at + size])
        for kind, points, seeds, size in designs
        for seed in SEEDS[:seeds]
        for at in range(0, len(points), size)
    ]


def experiment(names: Sequence[str], folder: Path, jobs: int, device: str) -> Row:
    """The whole record."""
    stages = {name: stage_of(name, folder, device) for name in names}
    work = [job for name, stage in stages.items() for job in jobs_of(stage, STAGES[name])]
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        used = [max(each.seeds, each.alone, each.tried) for each in map(STAGES.get, names) if each]
        spent = dict(zip(names, pool.map(retraining_of, stages.values(), used), strict=True))
        rows = [row for found in pool.map(tried, *zip(*work, strict=True)) for row in found]
    return {
        "question": (__doc__ or "").splitlines()[0],
        "centre": CENTRE,
        "candidates": CANDIDATES,
        "factors": {name: list(factor.levels) for name, factor in FACTORS.items()},
        "stages": {name: facts_of(stage) for name, stage in stages.items()},
        "seeds": SEEDS,
        "gradient evaluations of retraining": spent,
        "environment": environment(),
        "runs": rows,
    }


def retraining_of(stage: Stage, seeds: int) -> int:
    """The gradient evaluations of retraining, which a seed does not change; the models are then there."""
    torch.set_num_threads(1)
    for seed in SEEDS[:seeds]:
        case(stage, seed)
    return stage.trained("retain", SEEDS[0], SEEDS[0]).cost.gradients


def facts_of(stage: Stage) -> Row:
    """What is trained and forgotten."""
    return {key: stage.recipe.table()[key] for key in ("data", "model", "train")}


def main() -> None:
    """Runs from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--stages", nargs="+", default=list(ON_CPU), choices=list(STAGES), help="which stages"
    )
    parser.add_argument("--jobs", type=int, default=2, help="how many processes")
    parser.add_argument("--device", default="cpu", help="where the models are")
    parser.add_argument("--work", type=Path, help="a folder for models and points, from which a run goes on")
    parser.add_argument("--record", type=Path, help="a file for everything that was measured")
    parser.add_argument("--read", type=Path, help="a record to show instead of a run")
    parser.add_argument("--plot", type=Path, help="a folder for the figures")
    asked = parser.parse_args()
    if asked.read:
        record = json.loads(asked.read.read_text())
    else:
        with TemporaryDirectory() as folder:
            found = experiment(asked.stages, asked.work or Path(folder), asked.jobs, asked.device)
        record = plain(analysed(found))
    print(printed(record))
    if asked.record:
        asked.record.write_text(json.dumps(record, allow_nan=False, separators=(",", ":")) + "\n")
    if asked.plot:
        with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "unweave"}):
            for name, figure in drawn(record).items():
                figure.savefig(asked.plot / f"{name}.svg", format="svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
