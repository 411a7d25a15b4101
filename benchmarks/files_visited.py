"""How many files of the package a command visits, and how often it goes from one to another.

    python benchmarks/files_visited.py    # unlearn, forget, audit and bench on a tiny project

A function that runs counts, an import does not. Each command runs once before, so that what is read only once
in a process is left out.
"""

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import torch

import unweave
from unweave import cli

PACKAGE = str(Path(unweave.__file__).parent)

PROJECT = """
import torch
from torch import nn
from torch.utils.data import TensorDataset

torch.manual_seed(0)
inputs = torch.randn(120, 6)
labels = inputs[:, :3].argmax(1)
train_set, test_set = TensorDataset(inputs[:80], labels[:80]), TensorDataset(inputs[80:], labels[80:])


def train(dataset, seed):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rows = [dataset[i] for i in range(len(dataset))]
    x, y = torch.stack([row[0] for row in rows]), torch.stack([row[1] for row in rows])
    for _ in range(20):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model


def load():
    return {"model": train(train_set, 0), "train": train_set, "test": test_set}
"""


class Visits:
    """The files of the package whose functions run, in their order."""

    def __init__(self) -> None:
        self.files: set[str] = set()
        self.changes = 0
        self.last = ""

    def see(self, frame: FrameType, event: str, value: object) -> None:
        """Called by the interpreter at every call."""
        name = frame.f_code.co_filename
        if event == "call" and name.startswith(PACKAGE) and frame.f_code.co_name != "<module>":
            self.files.add(name)
            self.changes += name != self.last
            self.last = name


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Nothing is printed in the body."""
    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield


def visits(run: Callable[[], object]) -> Visits:
    """What a call visits."""
    recorder = Visits()
    with silent():
        sys.setprofile(recorder.see)
        try:
            run()
        finally:
            sys.setprofile(None)
    return recorder


def unlearn() -> None:
    """The call in Python."""
    inputs = torch.randn(80, 6)
    dataset = torch.utils.data.TensorDataset(inputs, inputs[:, :3].argmax(1))
    data, test = (torch.utils.data.Subset(dataset, part) for part in (range(60), range(60, 80)))
    split = unweave.Split(data, forget=range(10), test=test)
    unweave.unlearn(torch.nn.Linear(6, 3), split, unweave.LUR())


def main() -> None:
    """Prints a line per command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--list", action="store_true", help="name the files")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "project.py"
        project.write_text(PROJECT)
        forget = ["forget", str(project), "--random", "0.2", "--method", "lur"]

        def command(*arguments: str, out: str) -> Callable[[], object]:
            def run() -> None:
                code = cli.main([*arguments, "--out", f"{folder}/{out}"])
                if code not in (cli.DONE, cli.NOT_PASSED):
                    raise SystemExit(f"unweave {arguments[0]} ended with {code}")

            return run

        recipe = ["bench", "digits-trace", "--methods", "finetune", "--seeds", "1", "--jobs", "1"]
        runs: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
            "unlearn": (unlearn, unlearn),
            "forget": (command(*forget, out="one"), command(*forget, out="two")),
            "audit": (
                command("audit", f"{folder}/one", out="audit-one"),
                command("audit", f"{folder}/two", out="audit-two"),
            ),
            "bench": (command(*recipe, out="bench-one"), command(*recipe, out="bench-two")),
        }
        for name, (first, second) in runs.items():
            with silent():
                first()
            visit = visits(second)
            print(f"{name:8} {len(visit.files):4} files  {visit.changes:8} changes of file")
            if options.list:
                print("\n".join(sorted(f"    {Path(each).relative_to(PACKAGE)}" for each in visit.files)))


if __name__ == "__main__":
    main()
