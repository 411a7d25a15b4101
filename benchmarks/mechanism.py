"""Does LUR align the two gradients, and does alignment bring a model nearer to a retrained one?

    python benchmarks/mechanism.py                                  # six seeds, prints the tables
    python benchmarks/mechanism.py --record records/mechanism.json --plot docs/mechanism.svg
    python benchmarks/mechanism.py --read records/mechanism.json    # the tables of a record

On two stages of digits and under two kinds of forget loss, LUR runs in three modes at five alphas, and as
`joint` (alpha 0). All runs of a seed start at the same original and see the same batches; only the terms
differ. Alpha also changes how much is forgotten, so joint runs at other weights of the forget loss too: what
alpha brings has to be more than a weight brings at equal forgetting.

At eleven points of a descent the gradients are taken at the weights themselves, in evaluation mode, over all
retain and all forget data, in two random halves each (`unweave.descent.probe`), and over held-out data,
which no descent sees.
"""

import argparse
import copy
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path

import matplotlib
import numpy as np
import torch
from compact import write_compact
from mechanism_tables import AHEAD, WEIGHED, Row, Table, draw_figure, of_gap, summary, table_text, to_json
from torch import nn

from unweave.audits.classifier.collect import collect
from unweave.audits.classifier.evidence import Evidence, HeldOut
from unweave.audits.classifier.logits import loss
from unweave.audits.classifier.metrics import GAP, METRICS, measure
from unweave.audits.metrics import mean_gap
from unweave.bench.recipe import load
from unweave.bench.split_data import make_split
from unweave.descent.descend import Descent, Phase, descend
from unweave.descent.objective import nll
from unweave.descent.probe import Probe, cosines
from unweave.descent.train import train_model
from unweave.descent.units import measure_units
from unweave.errors import Failed
from unweave.methods.lur import LUR, TERMS
from unweave.methods.pipeline import Pipeline
from unweave.methods.starts import Redraw
from unweave.problem import Problem
from unweave.record.compact import read_record
from unweave.record.record import environment
from unweave.split import Split
from unweave.targets import Bounded, Match
from unweave.targets.estimators import Proxy
from unweave.tasks import evaluating
from unweave.tasks.classifier import Classifier
from unweave.weights.params import add, gramian, norm

SEEDS = (0, 1, 2, 3, 4, 5)
TUNING_SEEDS = (1000, 1001)
TRIED = (0.045, 0.09, 0.18, 0.36, 0.72, 1.44)
LOOKS = 10


@dataclass(frozen=True)
class Setting:
    """All of a comparison but mode and alpha.

    Args:
        stage: The recipe.
        lur: The method.
        source: Where its numbers come from.
        start: What comes before it, if anything.
    """

    stage: str
    lur: LUR
    source: str
    start: Redraw | None = None


TRACE_HOW = Descent(lr=0.088, steps=50, batch=128, forget_batch=32, max_norm=1.0, schedule="cosine")
PLAIN = LUR(weight=0.36, forget=Bounded(), how=TRACE_HOW)
START = Redraw(0.03)
CLEAN_MATCH = LUR(
    forget=Match(
        Proxy(how=Descent(lr=0.1, epochs=3, schedule="cosine", warmup=0.15, weight_decay=5e-4)), sharpen=0.7
    ),
    weight=0.033,
    how=Descent(lr=0.106, steps=100, batch=128, forget_batch=64, max_norm=1.0, weight_decay=5e-4),
)
TRACE_MATCH = LUR(
    forget=Match(
        Proxy("reinitialized", 0.3, Descent(lr=0.2, epochs=18, schedule="cosine", warmup=0.15)), sharpen=0.7
    ),
    weight=0.073,
    how=Descent(lr=0.24, steps=200, batch=128, forget_batch=32, max_norm=1.0, schedule="cosine"),
)
SETTINGS = {
    "clean, bounded": Setting(
        "digits-clean",
        replace(PLAIN, weight=0.09, how=replace(TRACE_HOW, weight_decay=5e-4)),
        "the study's plain LUR on clean digits",
        START,
    ),
    "trace, bounded": Setting(
        "digits-trace", PLAIN, "the same; of the weights tried, joint's best on the tuning seeds", START
    ),
    "trace, bounded, twice the weight": Setting(
        "digits-trace", replace(PLAIN, weight=0.72), "the same; joint forgets too much", START
    ),
    "clean, match": Setting("digits-clean", CLEAN_MATCH, "the study's targets on clean digits"),
    "trace, match": Setting("digits-trace", TRACE_MATCH, "the study's targets on trace digits"),
}


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
    apart = problem.problem_copy("bound")
    weight, alpha = measure_units(
        apart, lur.how, None, retain, unlearn, weight=lur.weight, alpha=lur.alpha, mode=lur.mode
    )
    steps = lur.how.steps or 0
    probe = Probe(1, retain, unlearn, size=len(problem.split.train))
    watch = Watch(probe, weight, steps // LOOKS)
    terms = TERMS[lur.mode](retain, weight * unlearn, alpha)
    descend(problem, lur.how, Phase(terms, watch=watch))
    watch(problem, steps)
    return watch


def evidence(model: nn.Module, split: Split) -> Evidence:
    """What a model answers."""
    parts = ("forget", "retain", "calibration", "test")
    return collect(model, {part: split.part(part) for part in parts}, device="cpu")


def load_trained(stage: str, seed: int, data_seed: int | None) -> tuple[Callable[[], Problem], Evidence]:
    """What makes the request to forget, over one original; and the retrained model's answers."""
    recipe = load(stage)
    split = make_split(recipe.data)
    if data_seed is not None:  # another forget set and other wrong labels; the held-out halves stay
        other, halves = make_split(replace(recipe.data, seed=data_seed)), split.calibration.tolist()
        split = Split(other.train, other.forget, split.held_out, calibration=halves)

    def build() -> nn.Module:
        return recipe.build(split.n_classes)

    original = train_model(recipe.train, build, split, "mixed", seed).model
    retrained = train_model(recipe.train, build, split, "retain", seed).model
    task, memory = Classifier(split.n_classes), {}

    def problem() -> Problem:
        generator = torch.Generator().manual_seed(seed)
        return Problem(task, copy.deepcopy(original), split, generator, build, memory=memory)

    return problem, evidence(retrained, split)


def runs_of(stage: str, seed: int) -> list[Row]:
    """All runs of a stage at one seed, and where the original and the retrained model are."""
    torch.set_num_threads(1)
    problem_of, reference = load_trained(stage, seed, None)
    untouched = problem_of()
    rows: list[Row] = []
    for name in (name for name, setting in SETTINGS.items() if setting.stage == stage):
        start = {"setting": name, "seed": seed, "alpha": 0.0, "weight": 0.0}
        answers = evidence(untouched.model, untouched.split)
        rows.append({**start, "mode": "original", **distances(answers, reference, on="test")})
        rows.append({**start, "mode": "retrained", **of_gap(measure(reference, reference))})
        rows += runs_of_setting(name, seed, problem_of, reference)
    return rows


def runs_of_setting(
    name: str, seed: int, problem_of: Callable[[], Problem], reference: Evidence
) -> list[Row]:
    """All runs of a setting at one seed.

    Raises:
        RuntimeError: If they did not draw the same batches.
    """
    rows: list[Row] = []
    draws: set[bytes] = set()
    for mode, alpha, weight in [*AHEAD, *WEIGHED]:
        setting, problem = SETTINGS[name], problem_of()
        lur = replace(setting.lur, mode=mode, alpha=alpha, weight=weight * setting.lur.weight)
        row = {"setting": name, "seed": seed, "mode": mode, "alpha": alpha, "weight": weight}
        before = {key: p.detach().clone() for key, p in problem.params.items()}
        try:
            watch = forget(problem, setting.start, lur)
        except (ValueError, Failed) as error:
            rows.append(row | {"refused": str(error)})
            continue
        draws.add(problem.generator.get_state().numpy().tobytes())
        after = {key: p.detach() for key, p in problem.params.items()}
        distance = {"moved": float(norm(add(after, before, scale=-1)))}
        answers = evidence(problem.model, problem.split)
        rows.append(
            row | summarise_watch(watch, lur.how) | distance | distances(answers, reference, on="test")
        )
    if len(draws) != 1:
        raise RuntimeError(
            f"{name}, seed {seed}: all runs must draw the same batches, found {len(draws)} orders"
        )
    return rows


def summarise_watch(watch: Watch, how: Descent) -> Row:
    """Means over the second half of a descent, the end, and the cosines of every look.

    The disattenuated cosine is weighted by the reliability of each look: without any, it is all noise.
    """
    steps = how.steps or 1
    late = [look for look in watch.looks if 2 * look["step"] >= steps]
    sure = [look for look in late if not np.isnan(look["disattenuated"])]
    trust = [look["reliability"] for look in sure]
    pooled = float(np.average([look["disattenuated"] for look in sure], weights=trust)) if sure else None
    means = {key: float(np.mean([look[key] for look in late])) for key in late[0] if key != "step"}
    looks = {
        key: [look[key] for look in watch.looks] for key in ("step", "cosine", "disattenuated", "reliability")
    }
    rest = {"end_cosine": late[-1]["cosine"], "clipped": watch.clipped / steps, "looks": looks}
    return {**means, **rest, "disattenuated": pooled}


def distances(answers: Evidence, reference: Evidence, *, on: HeldOut) -> Row:
    """The distances to the retrained model of the same seed, and the loss on the forget data."""
    values, target = measure(answers, reference, on=on), measure(reference, reference, on=on)
    apart = {name: values[name] - target[name] for name in GAP}
    level = float(loss(answers.logits["forget"], answers.labels["forget"]).mean())
    return {**apart, "gap": mean_gap(values, target, METRICS), "tv": values["tv"], "forget_loss": level}


def choice_of(seed: int) -> list[Row]:
    """The gap of joint on trace at several weights, on another forget set and never on the test part."""
    torch.set_num_threads(1)
    problem_of, reference = load_trained("digits-trace", seed, seed)
    rows: list[Row] = []
    for weight in TRIED:
        problem = problem_of()
        Pipeline(START, replace(PLAIN, mode="joint", weight=weight))(problem)
        apart = distances(evidence(problem.model, problem.split), reference, on="calibration")
        rows.append({"seed": seed, "weight": weight, **apart})
    return rows


def experiment(seeds: Sequence[int], jobs: int) -> Row:
    """The whole record."""
    stages = sorted({setting.stage for setting in SETTINGS.values()}, reverse=True)  # the longer one first
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        work = [pool.submit(timed, runs_of, (stage, seed)) for seed in seeds for stage in stages]
        choosing = [pool.submit(timed, choice_of, (seed,)) for seed in TUNING_SEEDS]
        done, chosen = [each.result() for each in work], [each.result() for each in choosing]
    rows = [row for found, _ in done for row in found]
    return {
        "question": (__doc__ or "").splitlines()[0],
        "settings": {
            name: {"source": each.source, "start": repr(each.start), "method": repr(each.lur)}
            for name, each in SETTINGS.items()
        },
        "recipes": {
            name: {key: load(name).table()[key] for key in ("data", "model", "train")} for name in stages
        },
        "seeds": list(seeds),
        "cpu_seconds": sum(seconds for _, seconds in done + chosen),
        "environment": environment(),
        "summary": {name: summary(Table(rows, name)) for name in SETTINGS},
        "weights tried for joint on trace": [row for found, _ in chosen for row in found],
        "runs": rows,
    }


def timed(work: Callable[..., list[Row]], arguments: tuple[str | int, ...]) -> tuple[list[Row], float]:
    """The result, and the CPU seconds it took."""
    start = time.process_time()
    return work(*arguments), time.process_time() - start


def main() -> None:
    """Runs from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="how many training seeds")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="how many processes")
    parser.add_argument("--record", type=Path, help="a file for everything that was measured")
    parser.add_argument("--read", type=Path, help="a record to show instead of a run")
    parser.add_argument("--plot", type=Path, help="an SVG file for the figure")
    arguments = parser.parse_args()
    record = (
        read_record(arguments.read)
        if arguments.read
        else to_json(experiment(SEEDS[: arguments.seeds], arguments.jobs))
    )
    print(table_text(record))
    if arguments.record:
        write_compact(record, arguments.record)
    if arguments.plot:
        with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "unweave"}):
            draw_figure(record).savefig(arguments.plot, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
