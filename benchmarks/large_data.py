"""Large data: `check` and `forget --ids FILE` on synthetic examples in Arrow files, by the command line.

    python benchmarks/large_data.py --out /tmp/large --examples 1e5,1e4      # a minute of one core
    python benchmarks/large_data.py --out /tmp/large --record records/large-data.json

It needs `pip install datasets`. It writes the examples (eight numbers, a label and an id: 500 MB of ten
million) and a project to the folder, forgets one in a hundred, and removes the files. Every command runs in a
process of its own. Times are CPU times of one thread, which other work on the machine changes least. Start-up
is everything before the first step. Memory is the largest anonymous memory of the process, sampled: pages of
the files are the operating system's, and go when it needs them. It is given above that of `import unweave`.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from rows import write_json
from torch.optim.optimizer import register_optimizer_step_post_hook

from unweave import cli
from unweave.bench.peak_memory import read_sizes
from unweave.record.record import environment

STEPS, WIDTH, CLASSES, FORGET, BLOCK = 200, 8, 10, 100, 2**16
SETTINGS = ("how.epochs=none", f"how.steps={STEPS}", "how.batch=128", "how.forget_batch=128", "how.lr=1e-4")
PROJECT = """
import datasets, torch
from torch import nn

def data(name):
    rows = datasets.Dataset.from_file(f"{FOLDER}/{name}.arrow")
    return rows.with_format("torch", columns=["x"], output_all_columns=True)

def load():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))
    return {"model": model, "train": data("train"), "test": data("test")}
"""


def write_examples(place: Path, n: int, prefix: str) -> None:
    """Writes examples in blocks, as `datasets` does."""
    draw, kind = np.random.default_rng(0), pa.list_(pa.float32(), WIDTH)
    schema = pa.schema({"x": kind, "label": pa.int64(), "id": pa.string()})
    with pa.OSFile(str(place), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        for first in range(0, n, BLOCK):
            rows = range(first, min(first + BLOCK, n))
            numbers = pa.array(draw.standard_normal(len(rows) * WIDTH, dtype=np.float32))
            labels, ids = pa.array(np.array(rows) % CLASSES), pa.array([f"{prefix}{i:09}" for i in rows])
            x = pa.FixedSizeListArray.from_arrays(numbers, WIDTH)
            writer.write_batch(pa.record_batch([x, labels, ids], schema=schema))


def write_project(folder: Path, n: int) -> None:
    """Writes data, project and request."""
    folder.mkdir(parents=True)
    write_examples(folder / "train.arrow", n, "user-")
    write_examples(folder / "test.arrow", 1000, "held-out-")
    (folder / "project.py").write_text(f"FOLDER = {str(folder.resolve())!r}\n{PROJECT}")
    (folder / "ids.txt").write_text("\n".join(f"user-{i:09}" for i in range(0, n, FORGET)))


def run_here(words: Sequence[str]) -> int:
    """Runs a command of unweave in this process, and prints the CPU time of its steps."""
    torch.set_num_threads(1)
    ends: list[float] = []
    register_optimizer_step_post_hook(lambda *_: ends.append(time.process_time()))
    code = cli.main(words)
    print(json.dumps({"steps": ends, "end": time.process_time()}))
    return code


def measure(words: Sequence[str]) -> dict[str, Any]:
    """The times and the memory of a command in a process of its own."""
    command = [sys.executable, __file__, "--run", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        peak, status = 0, Path(f"/proc/{process.pid}/status")
        while process.poll() is None:
            peak = max(peak, read_sizes(status).get("RssAnon", 0))  # none once it has ended
            time.sleep(0.05)
        assert process.stdout is not None
        lines = process.stdout.read().splitlines()
    if process.returncode:
        raise RuntimeError(f"{' '.join(words)} ended with code {process.returncode}")
    report = json.loads(lines[-1])
    ends = report["steps"]
    step = median(b - a for a, b in pairwise(ends)) if len(ends) > 1 else None
    first = ends[0] if ends else report["end"]
    return {"start_up": first, "step": step, "whole": report["end"], "peak_mib": peak / 2**20}


def measure_size(folder: Path, n: int) -> dict[str, Any]:
    """Everything about one number of examples."""
    write_project(folder, n)
    flags = [word for each in SETTINGS for word in ("--set", each)]
    place, request = str(folder / "project.py"), ["--ids", str(folder / "ids.txt")]
    rows = {
        "import": measure(["methods"]),
        "check": measure(["check", place, *request, "--methods", "lur"]),
        "forget": measure(
            ["forget", place, *request, "--method", "lur", *flags, "--out", str(folder / "forgotten")]
        ),
    }
    shutil.rmtree(folder)
    return rows


def line(n: str, rows: dict[str, Any]) -> str:
    """The figures of one number of examples as text."""
    least = rows["import"]["peak_mib"]
    return "\n".join(
        f"{int(n):,} examples, {name}: {rows[name]['start_up']:.1f} s to the first step, "
        f"{1000 * rows[name]['step']:.2f} ms a step, {rows[name]['whole']:.1f} s in all, "
        f"{rows[name]['peak_mib'] - least:.0f} MiB above import"
        for name in ("check", "forget")
    )


def main() -> None:
    """The command: measures, prints, and keeps a record if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--examples", default="1e7,1e4", help="numbers of examples with commas between")
    parser.add_argument("--out", type=Path, required=True, help="a folder for the files, removed at the end")
    parser.add_argument("--record", type=Path, help="the file to keep all results in, as JSON")
    arguments = parser.parse_args()
    sizes = {}
    for n in (int(float(each)) for each in arguments.examples.split(",")):
        sizes[str(n)] = measure_size(arguments.out / f"data-{os.getpid()}-{n}", n)
        print(line(str(n), sizes[str(n)]), flush=True)
    if arguments.record:
        record = {"sizes": sizes, "steps": STEPS, "environment": environment()}
        write_json(arguments.record, record)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        sys.exit(run_here(sys.argv[2:]))
    main()
