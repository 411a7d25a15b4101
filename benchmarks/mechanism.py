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
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import torch
from compact import write_compact
from mechanism_settings import PLAIN, SETTINGS, START
from mechanism_statistics import AHEAD, WEIGHED, Table, of_gap, summary
from mechanism_tables import save_figure, table_text
from mechanism_watch import forget, summarise_watch
from rows import Row, round_numbers
from torch import nn

from unweave.audits.classifier.collect import collect
from unweave.audits.classifier.evidence import Evidence, HeldOut
from unweave.audits.classifier.logits import loss
from unweave.audits.classifier.metrics import GAP, METRICS, measure
from unweave.audits.metrics import mean_gap
from unweave.bench.recipe import load
from unweave.bench.split_data import make_split
from unweave.bench.workers import prepare_worker
from unweave.descent.train import train_model
from unweave.errors import Failed
from unweave.methods.pipeline import Pipeline
from unweave.problem import Problem
from unweave.record.compact import read_record
from unweave.record.digest import to_json_values
from unweave.record.record import environment
from unweave.split import Split
from unweave.tasks.classifier import Classifier
from unweave.weights.params import add, norm

SEEDS = (0, 1, 2, 3, 4, 5)
TUNING_SEEDS = (1000, 1001)
TRIED = (0.045, 0.09, 0.18, 0.36, 0.72, 1.44)
DIGITS = 5
"""Significant digits of a number in the record."""


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
    problem_of, reference = load_trained(stage, seed, None)
    original = problem_of()
    rows: list[Row] = []
    for name in (name for name, setting in SETTINGS.items() if setting.stage == stage):
        start = {"setting": name, "seed": seed, "alpha": 0.0, "weight": 0.0}
        answers = evidence(original.model, original.split)
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


def distances(answers: Evidence, reference: Evidence, *, on: HeldOut) -> Row:
    """The distances to the retrained model of the same seed, and the loss on the forget data."""
    values, target = measure(answers, reference, on=on), measure(reference, reference, on=on)
    differences = {name: values[name] - target[name] for name in GAP}
    level = float(loss(answers.logits["forget"], answers.labels["forget"]).mean())
    return {**differences, "gap": mean_gap(values, target, METRICS), "tv": values["tv"], "forget_loss": level}


def choice_of(seed: int) -> list[Row]:
    """The gap of joint on trace at several weights, on another forget set and never on the test part."""
    problem_of, reference = load_trained("digits-trace", seed, seed)
    rows: list[Row] = []
    for weight in TRIED:
        problem = problem_of()
        Pipeline(START, replace(PLAIN, mode="joint", weight=weight))(problem)
        differences = distances(evidence(problem.model, problem.split), reference, on="calibration")
        rows.append({"seed": seed, "weight": weight, **differences})
    return rows


def experiment(seeds: Sequence[int], jobs: int) -> Row:
    """The whole record."""
    stages = sorted({setting.stage for setting in SETTINGS.values()}, reverse=True)  # the longer one first
    with ProcessPoolExecutor(jobs, get_context("spawn"), prepare_worker) as pool:
        work = [pool.submit(timed, runs_of, (stage, seed)) for seed in seeds for stage in stages]
        choosing = [pool.submit(timed, choice_of, (seed,)) for seed in TUNING_SEEDS]
        results, choices = [each.result() for each in work], [each.result() for each in choosing]
    rows = [row for part, _ in results for row in part]
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
        "cpu_seconds": sum(seconds for _, seconds in results + choices),
        "environment": environment(),
        "summary": {name: summary(Table(rows, name)) for name in SETTINGS},
        "weights tried for joint on trace": [row for part, _ in choices for row in part],
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
    if arguments.read:
        record = read_record(arguments.read)
    else:
        results = experiment(SEEDS[: arguments.seeds], arguments.jobs)
        record = round_numbers(to_json_values(results), DIGITS)
    print(table_text(record))
    if arguments.record:
        write_compact(record, arguments.record)
    if arguments.plot:
        save_figure(record, arguments.plot)


if __name__ == "__main__":
    main()
