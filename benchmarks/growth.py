"""What grows with a model: the memory and the messages of a step, and the laws that carry them further.

    python benchmarks/growth.py --record records/growth.json    # a quarter of an hour of two cores
    python benchmarks/growth.py --from records/growth.json      # the tables of docs/growth.md

Memory is the slope between two sizes of the transformer of `scale.py`: bytes per weight in copies of the
weights (float32). So libraries and activations, which do not grow with the weights, fall out. Messages are
counted in a sharded step of two processes, by kind and in copies of the weights. The tables of larger models
follow from these figures, from the gradients of a step, and from the device named in `DEVICE`: they are
arithmetic and no measurement.
"""

import argparse
import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from rows import write_json
from scale import Size, peaks
from torch.multiprocessing.spawn import spawn
from torch.utils._python_dispatch import TorchDispatchMode

from unweave.record.record import environment
from unweave.weights.shard import shard_model

HAND = "by hand"
GRADIENTS = {HAND: 1, "joint": 2, "lagged": 2, "nested": 3}
"""Passes forward and backward in a step; the loop by hand takes one backward pass over both batches."""

SMALL, LARGE = 1e7, 4e7
"""The numbers of weights between which the slope of the memory is taken."""

LARGEST = 1e8

MESSAGES = {
    "_allgather_base_": "all-gather",
    "_reduce_scatter_base_": "reduce-scatter",
}


@dataclass(frozen=True)
class Device:
    """What the tables of larger models assume of one device.

    Args:
        memory: Bytes.
        speed: Floating-point operations per second that a training reaches.
        link: Bytes per second that a device sends and receives at once.
    """

    memory: float = 80e9
    speed: float = 2e14
    link: float = 5e10


DEVICE = Device()


class Messages(TorchDispatchMode):
    """Counts the messages of the body by kind, and the elements in them."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()
        self.elements: Counter[str] = Counter()

    def __torch_dispatch__(
        self,
        function: Callable[..., object],
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Runs the operation, and counts it if it is a message."""
        package, name, *_ = str(function).split(".")
        if package == "c10d" and name in MESSAGES:
            kind = MESSAGES[name]
            self.count[kind] += 1
            self.elements[kind] += max(sum(t.numel() for t in tensors_of(each)) for each in args[:2])
        return function(*args, **(kwargs or {}))


def tensors_of(value: object) -> Iterator[torch.Tensor]:
    """The tensors in an argument."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from tensors_of(each)


def count_messages(mode: str, processes: int) -> dict[str, dict[str, float]]:
    """The messages of one step, counted on the first process: their number and copies of the weights."""
    with tempfile.TemporaryDirectory() as folder:
        spawn(write_messages, (mode, processes, folder), nprocs=processes)
        return json.loads((Path(folder) / "messages.json").read_text())


def write_messages(rank: int, mode: str, processes: int, folder: str) -> None:
    """Counts in a descent of three steps and in one of two; their difference is one step."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=processes)
    size = Size(1e5)
    weights = sum(p.numel() for p in size.model().parameters())
    measurements = []
    for steps in (2, 3):
        problem = size.problem("cpu", shard_model(size.model()))
        with Messages() as messages:
            size.run(mode, problem, size.how(steps), lambda *_: None)
        measurements.append(messages)
    if rank == 0:
        small, large = measurements
        step = {
            kind: {
                "number": large.count[kind] - small.count[kind],
                "copies": (large.elements[kind] - small.elements[kind]) / weights,
            }
            for kind in MESSAGES.values()
        }
        (Path(folder) / "messages.json").write_text(json.dumps(step))
    dist.destroy_process_group()


def slope_of_memory(mode: str, processes: int) -> float:
    """The memory that grows with the weights, in copies of them, of the process that needs most."""
    small, large = (peaks(Size(weights), processes, "cpu", mode) for weights in (SMALL, LARGE))
    counts = [sum(p.numel() for p in Size(weights).model().parameters()) for weights in (SMALL, LARGE)]
    grown = max(filter(None, large)) - max(filter(None, small))
    return grown * 2**20 / 4 / (counts[1] - counts[0])


def measure(processes: Sequence[int]) -> dict[str, Any]:
    """Everything that is reported; the peaks are of `nested` on the largest model, in MiB."""
    return {
        "largest": LARGEST,
        "peaks": {str(count): peaks(Size(LARGEST), count, "cpu") for count in (*processes, 4)},
        "copies": {
            mode: {
                str(count): slope_of_memory(mode, count)
                for count in (processes if mode != "by hand" else [1])
            }
            for mode in GRADIENTS
        },
        "messages": {mode: count_messages(mode, 2) for mode in GRADIENTS if mode != HAND},
        "sizes": [SMALL, LARGE],
        "environment": environment(),
    }


@dataclass(frozen=True)
class Run:
    """A model on several devices that takes steps of a mode.

    Args:
        mode: A key of `GRADIENTS`.
        weights: The number of weights.
        devices: The number of devices, over which the model is sharded.
        tokens: Tokens of one part of a batch on one device.
        trained: The share of the weights that are trained; LoRA trains few.
    """

    mode: str
    weights: float
    devices: int
    tokens: float = 4096
    trained: float = 1.0

    def memory(self, copies: float) -> float:
        """Bytes on one device without activations: original and edited weights, and copies of the trained."""
        return 4 * self.weights * (2 + (copies - 1) * self.trained) / self.devices

    def computing(self) -> float:
        """Seconds of arithmetic in a step: per weight and token 2 operations forward and 4 backward."""
        gradients = max(2, GRADIENTS[self.mode])  # the loop by hand passes both batches at once
        return gradients * (4 + 2 * self.trained) * self.weights * self.tokens / DEVICE.speed

    def sending(self) -> float:
        """Seconds of messages in a step: per gradient two gathers of all weights and a sum of the trained."""
        copies = GRADIENTS[self.mode] * (2 + self.trained)
        return copies * 4 * self.weights * (1 - 1 / self.devices) / DEVICE.link


def power(number: float) -> str:
    """A number as a digit and a power of ten."""
    digit, exponent = f"{number:.0e}".split("e")
    return f"{'' if digit == '1' else digit + ' '}10^{int(exponent)}"


def table_of_steps(copies: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """The memory and the time of a step, of ever larger models on ever more devices."""
    yield "| Weights | Devices | Mode | Memory, GB | Computing, s | Messages, s |"
    yield "| --: | --: | :-- | --: | --: | --: |"
    for weights, devices in ((1e9, 8), (1e10, 8), (1e10, 64), (1e11, 64), (1e11, 512)):
        for name, mode, trained in (
            ("fine-tune", HAND, 1.0),
            ("`lagged`", "lagged", 1.0),
            ("`nested`", "nested", 1.0),
            ("`lagged`, LoRA", "lagged", 0.005),
            ("`nested`, LoRA", "nested", 0.005),
        ):
            run = Run(mode, weights, devices, trained=trained)
            memory = run.memory(copies[mode]["1"])
            room = "" if memory < DEVICE.memory else " (too much)"
            yield (
                f"| {power(weights)} | {devices} | {name} | {memory / 1e9:.1f}{room} | "
                f"{run.computing():.2f} | {run.sending():.2f} |"
            )


def table_of_retraining() -> Iterator[str]:
    """Days of all devices for a retraining, and hours for 1,000 steps of a mode."""
    yield "| Weights | Tokens | Devices | Retraining, days | `lagged`, h | `nested`, h | `nested`, share |"
    yield "| --: | --: | --: | --: | --: | --: | --: |"
    for weights, tokens, devices in ((1e9, 2e10, 8), (1e10, 2e11, 64), (1e11, 2e12, 512)):
        retraining = 6 * weights * tokens / (DEVICE.speed * devices)
        lagged, nested = (
            1000 * max(run.computing(), run.sending())
            for run in (Run(mode, weights, devices) for mode in ("lagged", "nested"))
        )
        yield (
            f"| {power(weights)} | {power(tokens)} | {devices} | {retraining / 86400:.1f} | "
            f"{lagged / 3600:.1f} | {nested / 3600:.1f} | {100 * nested / retraining:.2f} % |"
        )


def main() -> None:
    """The command: measures or reads, and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--processes", default="1,2", help="numbers of processes with commas between")
    parser.add_argument("--record", type=Path, help="the file to keep the measurements in, as JSON")
    parser.add_argument("--from", dest="known", type=Path, help="a record to print the tables of")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if arguments.known:
        results = json.loads(arguments.known.read_text(encoding="utf-8"))
    else:
        results = measure([int(each) for each in arguments.processes.split(",")])
    write_json(arguments.record, results)
    print(json.dumps({"copies": results["copies"], "messages": results["messages"]}, indent=1))
    print("\n".join([*table_of_steps(results["copies"]), "", *table_of_retraining()]))


if __name__ == "__main__":
    main()
