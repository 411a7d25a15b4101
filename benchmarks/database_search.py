"""A search over a PostgreSQL server, against the same search over a journal.

    python benchmarks/database_search.py --out /tmp/search                  # a CPU minute or two
    python benchmarks/database_search.py --out /tmp/search --user postgres  # if you are root

It needs PostgreSQL's programs and `pip install 'unweave[postgresql]'`. It starts a server in a temporary
folder and stops it at the end. One process over the server must make the journal's trials, setting by setting
and value by value. Two processes, each with a folder of its own as on two machines, must make as many
together and read the same log; which settings they try depends on which finishes first.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from postgresql_server import run_server
from rows import write_json

from unweave.bench.recipe import load
from unweave.bench.stage import MODELS, Stage
from unweave.bench.tune import prepare, study
from unweave.record.record import environment

TIMED = ("seconds",)
URL = "SEARCH_STORAGE"
"""The variable of the environment with the URL for a process of this script."""


def search(recipe: str, method: str, trials: int, folder: Path) -> list[dict[str, Any]]:
    """The log of a search on one tuning seed in this process, without its times."""
    torch.set_num_threads(1)
    base_recipe = load(recipe)
    tuning = replace(base_recipe.tuning, seeds=base_recipe.tuning.seeds[:1])
    stage = Stage(replace(base_recipe, tuning=tuning), folder, storage=os.environ.get(URL))
    prepare(stage, tuning.seeds[0])
    log = study((stage,), method, trials).trials
    return [{key: each for key, each in trial.items() if key not in TIMED} for trial in log]


def start(arguments: argparse.Namespace, folder: Path, url: str | None) -> subprocess.Popen[str]:
    """A search in a process of its own, with the trained models of the first."""
    trained = arguments.out / "journal" / MODELS
    if trained.exists():
        shutil.copytree(trained, folder / MODELS, dirs_exist_ok=True)
    command = [sys.executable, __file__, "--out", str(folder), "--trials", str(arguments.trials)]
    command += ["--recipe", arguments.recipe, "--method", arguments.method, "--search"]
    environment = {**os.environ, **({} if url is None else {URL: url})}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def logs_of(processes: Sequence[subprocess.Popen[str]]) -> list[list[dict[str, Any]]]:
    """The logs that processes print when they end."""
    outputs = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise SystemExit("a search failed")
    return [json.loads(each.splitlines()[-1]) for each in outputs]


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    """Runs all searches and prints which logs are equal; returns what they found."""
    (journal,) = logs_of([start(arguments, arguments.out / "journal", None)])
    print(f"journal, one process: {len(journal)} trials, values {[each['value'] for each in journal]}")
    with run_server(arguments.user) as server:
        (log,) = logs_of([start(arguments, arguments.out / "one", server)])
    print(f"PostgreSQL, one process: {len(log)} trials, the journal's log: {log == journal}", flush=True)
    with run_server(arguments.user) as server:
        first, second = logs_of(
            [start(arguments, arguments.out / name, server) for name in ("first", "second")]
        )
    print(
        f"PostgreSQL, two processes: {len(first)} trials together, one log: {first == second}, the journal's "
        f"first trial: {first[0] == journal[0]}"
    )
    if log != journal or first != second or len(first) != arguments.trials:
        raise SystemExit("the searches differ")
    return {
        "recipe": arguments.recipe,
        "method": arguments.method,
        "trials": len(journal),
        "values": [each["value"] for each in journal],
        "one process has the journal's log": log == journal,
        "two processes": {"trials": len(first), "one log": first == second},
        "environment": environment(),
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="a folder for all searches")
    parser.add_argument("--recipe", default="digits-clean")
    parser.add_argument("--method", default="joint")
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("--user", help="the user that the server runs as, if you are root")
    parser.add_argument("--record", type=Path, help="the file to keep the result in, as JSON")
    parser.add_argument("--search", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.search:
        print(json.dumps(search(arguments.recipe, arguments.method, arguments.trials, arguments.out)))
        return
    results = compare(arguments)
    write_json(arguments.record, results)


if __name__ == "__main__":
    main()
