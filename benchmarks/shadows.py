"""Attacks with shadow models (T3): how well an attack on each record tells unlearned from never seen.

    OMP_NUM_THREADS=1 python benchmarks/shadows.py --models 16                   # minutes of one core
    OMP_NUM_THREADS=1 python benchmarks/shadows.py --models 64 --record records/shadows-digits.json

T originals of the recipe are trained together, each on the retain set and its half of the targets; each
method unlearns that half; T models are retrained without any target. U-LiRA (mean and worst decile) and RMIA
attack all kinds alike, and with T = 64 the forgetting quality as well: "retrain" is the floor and "original"
the ceiling. Models are stored in --out by digest, so the same command goes on after an interruption, and
loses at most the running model, or the running group of models that are trained together.
"""

import argparse
import os
import sys
from pathlib import Path

import torch
from compact import write_compact
from rows import round_numbers

from unweave.bench.attack_shadows import run_study, summarize
from unweave.bench.recipe import load
from unweave.bench.shadows import ShadowStudy
from unweave.cli.inputs.executor import Executor
from unweave.record.digest import to_json_values
from unweave.record.record import environment

METHODS = "lur,lur:recover,joint,salun,neggrad+,scissorhands,msg,ascent"


def hear(name: str, count: int, total: int) -> None:
    """Prints a line at every eighth model."""
    if count % 8 == 0 or count == total:
        print(f"{name}: {count} of {total} models", file=sys.stderr, flush=True)


def cpu_seconds() -> float:
    """What this process and its finished workers have taken."""
    return sum(os.times()[:4])


def main() -> None:
    """Trains, unlearns, attacks, prints, and keeps a record if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--recipe", default="digits-trace", help="a recipe of classifiers")
    parser.add_argument("--models", type=int, default=64, help="T, an even number from 16 on")
    parser.add_argument("--methods", default=METHODS, help="names with commas between")
    parser.add_argument("--out", type=Path, default=Path("unweave-shadows"), help="where models are stored")
    parser.add_argument("--record", type=Path, help="the file to keep everything in as JSON")
    parser.add_argument(
        "--jobs", type=int, help="worker processes for methods, and for what can't be trained together (1)"
    )
    parser.add_argument("--ray", help="a Ray cluster instead of them: auto, or HOST:PORT")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    recipe, start = load(arguments.recipe), cpu_seconds()
    methods = [name for name in arguments.methods.split(",") if name]
    for name in methods:
        recipe.method(name)  # raises for an unknown name before anything is trained
    with Executor(arguments.jobs, arguments.ray).crew("cpu", 1) as crew:
        study = ShadowStudy(recipe, arguments.models, arguments.out, crew=crew)
        results = run_study(study, methods, hear)
    results |= {"cpu_seconds": cpu_seconds() - start, "environment": environment()}
    if arguments.record:
        write_compact(round_numbers(to_json_values(results)), arguments.record)
    print("\n".join(summarize(results)))
    print(f"{results['cpu_seconds']:.0f} s of one core")


if __name__ == "__main__":
    main()
