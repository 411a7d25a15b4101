"""Evidence of many examples: memory and CPU seconds to write, to read whole and in part, and to audit it.

    python benchmarks/large_evidence.py --out /tmp/evidence --record large-evidence.json    # 10 CPU minutes

Every figure is of a process of its own: the largest resident memory above that at its start, when the package
is loaded. The process that writes also holds the logits, in float32, and so do those that read a file whole.
"The digest" and the metrics are of one model that was read; "a comparison" is of two, by the metrics that
compare them. "An audit" is of a model and `--references` retrained models, all in files; with 22 it gives a
verdict, by margins from the last twelve.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from rows import write_json

from unweave.audits.classifier.evidence import Evidence
from unweave.audits.classifier.exam import ANSWERED
from unweave.audits.classifier.metrics import METRICS, measure_pair
from unweave.audits.classifier.parquet import load, load_unseen, save
from unweave.bench.peak_memory import STATUS, read_sizes
from unweave.cli.audits.evidence import audit_evidence
from unweave.cli.options import CommonFlags
from unweave.record.record import environment

PARTS = {"forget": 0.01, "retain": 0.89, "calibration": 0.05, "test": 0.05}
"""The share of the examples in each part."""

METRICS_OF_ONE = tuple(name for name, metric in METRICS.items() if metric.of_one)
WORK = ("write", "read", "read the unseen", "the digest", *METRICS_OF_ONE, "a comparison", "an audit")


def make_evidence(examples: int, classes: int, seed: int = 0) -> Evidence:
    """Random logits of a seed, and labels."""
    draw, begin = np.random.default_rng(0), 0
    draw_logits = np.random.default_rng((1, seed))
    logits, labels, ids = {}, {}, {}
    for part, share in PARTS.items():
        n = round(share * examples)
        logits[part] = draw_logits.standard_normal((n, classes), dtype=np.float32)
        labels[part] = draw.integers(classes, size=n)
        ids[part], begin = np.arange(begin, begin + n), begin + n
    return Evidence(logits, labels, ids)


def work(task: str, place: Path, examples: int, classes: int) -> None:
    """One piece of work of an audit."""
    if task == "an audit":
        with redirect_stdout(StringIO()):
            audit_evidence(place, folder_of(place), None, None, CommonFlags(out=place.parent / "audit"))
    elif task == "write":
        save(make_evidence(examples, classes), place)
    elif task == "read the unseen":
        assert load_unseen(place) is not None
    else:
        use(task, load(place), place)


def use(task: str, evidence: Evidence, place: Path) -> None:
    """What an audit does with the answers that were read; "read" does nothing more."""
    if task == "the digest":
        ANSWERED.fingerprint(evidence)
    elif task == "a comparison":
        measure_pair(evidence, load(place))
    elif task != "read":
        of_one = METRICS[task].of_one
        assert of_one is not None
        of_one(evidence)


def folder_of(place: Path) -> Path:
    """The folder of the answers of retrained models."""
    return place.parent / "references"


def write_references(place: Path, examples: int, classes: int, count: int) -> None:
    """Writes the answers of retrained models."""
    folder_of(place).mkdir(exist_ok=True)
    for seed in range(1, count + 1):
        save(make_evidence(examples, classes, seed), folder_of(place) / f"{seed}.parquet")


def measure(task: str, place: Path, examples: int, classes: int) -> dict[str, float | None]:
    """Memory and CPU seconds of a piece of work in this process."""
    before, start = read_sizes(STATUS), time.process_time()
    work(task, place, examples, classes)
    after = read_sizes(STATUS)
    return {
        "mib": round((after["VmHWM"] - before["VmRSS"]) / 2**20) if before else None,
        "cpu_seconds": round(time.process_time() - start, 1),
    }


def main() -> None:
    """The command: measures, prints, and keeps a record if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--examples", type=int, default=10**6)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--references", type=int, default=10, help="retrained models of the audit")
    parser.add_argument("--out", type=Path, required=True, help="a folder for the file, removed at the end")
    parser.add_argument("--record", type=Path, help="the file to keep all results in, as JSON")
    parser.add_argument("--work", choices=WORK, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    place = arguments.out / "evidence.parquet"
    if arguments.work:
        print(json.dumps(measure(arguments.work, place, arguments.examples, arguments.classes)))
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows: dict[str, Any] = {}
    for task in WORK:
        if task == "an audit":
            write_references(place, arguments.examples, arguments.classes, arguments.references)
        command = [sys.executable, __file__, *sys.argv[1:], "--work", task]
        row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(f"{task}: {row['mib']} MiB above the start, {row['cpu_seconds']} CPU s", flush=True)
        rows[task] = row
    place.unlink()
    shutil.rmtree(folder_of(place))
    shutil.rmtree(arguments.out / "audit")
    if arguments.record:
        sizes = {
            "examples": arguments.examples,
            "classes": arguments.classes,
            "references": arguments.references,
        }
        write_json(arguments.record, {**sizes, **rows, "environment": environment()})


if __name__ == "__main__":
    main()
