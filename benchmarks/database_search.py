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
    found = load(recipe)
    tuning = replace(found.tuning, seeds=found.tuning.seeds[:1])
    stage = Stage(replace(found, tuning=tuning), folder, storage=os.environ.get(URL))
    prepare(stage, tuning.seeds[0])
    log = study((stage,), method, trials).trials
    return [{key: each for key, each in trial.items() if key not in TIMED} for trial in log]


def start(given: argparse.Namespace, folder: Path, url: str | None) -> subprocess.Popen[str]:
    """A search in a process of its own, with the trained models of the first."""
    trained = given.out / "journal" / MODELS
    if trained.exists():
        shutil.copytree(trained, folder / MODELS, dirs_exist_ok=True)
    command = [sys.executable, __file__, "--out", str(folder), "--trials", str(given.trials)]
    command += ["--recipe", given.recipe, "--method", given.method, "--search"]
    environment = {**os.environ, **({} if url is None else {URL: url})}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def logs_of(processes: Sequence[subprocess.Popen[str]]) -> list[list[dict[str, Any]]]:
    """The logs that processes print when they end."""
    printed = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise SystemExit("a search failed")
    return [json.loads(each.splitlines()[-1]) for each in printed]


def compare(given: argparse.Namespace) -> dict[str, Any]:
    """Runs all searches and prints which logs are equal; returns what they found."""
    (journal,) = logs_of([start(given, given.out / "journal", None)])
    print(f"journal, one process: {len(journal)} trials, values {[each['value'] for each in journal]}")
    with run_server(given.user) as server:
        (alone,) = logs_of([start(given, given.out / "one", server)])
    print(f"PostgreSQL, one process: {len(alone)} trials, the journal's log: {alone == journal}", flush=True)
    with run_server(given.user) as server:
        first, second = logs_of([start(given, given.out / name, server) for name in ("first", "second")])
    print(
        f"PostgreSQL, two processes: {len(first)} trials together, one log: {first == second}, the journal's "
        f"first trial: {first[0] == journal[0]}"
    )
    if alone != journal or first != second or len(first) != given.trials:
        raise SystemExit("the searches differ")
    return {
        "recipe": given.recipe,
        "method": given.method,
        "trials": len(journal),
        "values": [each["value"] for each in journal],
        "one process has the journal's log": alone == journal,
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
    given = parser.parse_args()
    if given.search:
        print(json.dumps(search(given.recipe, given.method, given.trials, given.out)))
        return
    found = compare(given)
    write_json(given.record, found)


if __name__ == "__main__":
    main()
