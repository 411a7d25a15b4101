"""Planted evidence: what methods leave of a backdoor, of swapped labels, or of Gaussian canaries.

    OMP_NUM_THREADS=1 python benchmarks/planted.py digits-backdoor
    OMP_NUM_THREADS=1 python benchmarks/planted.py digits-canaries --seeds 3 --methods lur:recover,finetune
    OMP_NUM_THREADS=1 python benchmarks/planted.py digits-backdoor --set data.plant.kind='"swap"'

A part of the planted examples is known, and is the forget set. Beside every method stand the originals,
models retrained without the known part, and models retrained without any planted example. Trained models are
stored in --out, so another method shares them.
"""

import argparse
import sys
import time
import tomllib
from pathlib import Path

import torch
from rows import round_numbers, write_json

from unweave.bench.bench import limit_seeds
from unweave.bench.planted_study import PlantedStudy, run_study, summarize
from unweave.bench.recipe import load
from unweave.record.digest import to_json_values
from unweave.record.record import environment

METHODS = "lur:recover,neggrad+:recover,finetune,scissorhands"


def main() -> None:
    """Trains, unlearns, examines, prints, and keeps a record if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("recipe", help="a recipe with planted examples")
    parser.add_argument("--seeds", type=int, help="the first N seeds of the recipe")
    parser.add_argument("--methods", default=METHODS, help="names with commas between")
    parser.add_argument("--set", action="append", default=[], help="a key of the recipe, as in TOML")
    parser.add_argument("--out", type=Path, default=Path("unweave-planted"), help="where models are stored")
    parser.add_argument("--record", type=Path, help="the file to keep everything in as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    start = time.process_time()
    recipe = limit_seeds(load(arguments.recipe, tomllib.loads("\n".join(arguments.set))), arguments.seeds)
    methods = [name for name in arguments.methods.split(",") if name]
    for name in methods:
        recipe.method(name)  # raises for an unknown name before anything is trained
    study = PlantedStudy(recipe, arguments.out)
    results = run_study(study, methods, lambda name: print(name, file=sys.stderr, flush=True))
    results |= {"cpu_seconds": time.process_time() - start, "environment": environment()}
    if arguments.record:
        record = round_numbers(to_json_values(results))
        record["recipe"]["methods"] = {name: record["recipe"]["methods"][name] for name in methods}
        write_json(arguments.record, record)
    print("\n".join(summarize(results)))
    print(f"{results['cpu_seconds']:.0f} s of one core")


if __name__ == "__main__":
    main()
