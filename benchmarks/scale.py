"""Cost against size: LUR's modes over a training loop written by hand, on ever larger transformers.

    python benchmarks/scale.py --sizes 1e5 --rounds 3     # a first look, a minute
    python benchmarks/scale.py --rounds 7 --record records/scale.json   # five minutes of one core
    python benchmarks/scale.py --device cuda --processes 1

Times are taken as `interleaved.py` says. The first row is the digits net of `steps.py`, where the loop itself
weighs most. Memory is the peak of a process during three steps of plain SGD with momentum, less what it held
before it built the model: weights, gradients, optimizer state, activations; on a GPU, what its allocator
holds. With several processes, connected by gloo on the CPU and by NCCL on GPUs, one each, the model is
sharded block by block.
"""

import argparse
import gc
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any, ClassVar

import steps
import torch
import torch.distributed as dist
from interleaved import Setting, Tick, seconds
from rows import write_json
from steps import ALPHA, SETTINGS, WEIGHT, by_hand, phase_of
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

from unweave.bench.peak_memory import STATUS, peak_memory, read_sizes
from unweave.data.in_memory import Resident
from unweave.descent.descend import Descent, descend
from unweave.descent.objective import bounded
from unweave.problem import Problem
from unweave.record.record import environment
from unweave.split import Split
from unweave.tasks.classifier import Classifier
from unweave.weights.shard import shard_model

CLASSES, TOKENS = 10, 16
MODES = ("joint", "lagged", "nested")
SHARED = "nested"
"""The mode whose memory is measured."""

BACKENDS = {"cpu": "gloo", "cuda": "nccl"}


class Transformer(nn.Module):
    """Layers and a linear head over the mean of the tokens.

    Args:
        width: The size of a token; a layer has about 12 width^2 weights.
        layers: The number of layers.
    """

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            width, 4, 4 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """The logits of tokens of shape [batch, token, width]."""
        return self.head(self.layers(x).mean(1))


@dataclass(frozen=True)
class Size:
    """A transformer of about this many weights, its data and the length of a descent.

    Args:
        weights: The number of weights.
        batch: Retain examples per step, and forget examples.
    """

    weights: float
    batch: int = 8
    competitors: ClassVar[Sequence[str]] = ("by hand", *MODES)
    warm: ClassVar[int] = 2
    targets: ClassVar[Mapping[str, float]] = {}

    @property
    def steps(self) -> int:
        """Steps that are timed: fewer of large models."""
        return 40 if self.weights < 3e5 else 10 if self.weights < 3e6 else 3

    @property
    def layers(self) -> int:
        """The number of layers: twelve, as GPT-2 of that size has, or four of a small model."""
        return 12 if self.weights > 5e7 else 4

    @property
    def width(self) -> int:
        """The size of a token, a multiple of the number of heads."""
        return 4 * max(1, round((self.weights / 12 / self.layers) ** 0.5 / 4))

    def how(self, steps: int) -> Descent:
        """Plain SGD with momentum and no clip, so that the loop by hand is short."""
        return Descent(lr=1e-3, steps=steps, batch=self.batch, forget_batch=self.batch)

    def model(self) -> nn.Module:
        """The model, always with the same weights."""
        torch.manual_seed(0)
        return Transformer(self.width, self.layers)

    def problem(self, device: str, model: nn.Module | None = None) -> Problem:
        """Fresh weights and data on the device; a quarter of the data is to be forgotten."""
        model = self.model().to(device) if model is None else model
        train, held_out = noise(128, self.width), noise(16, self.width)
        split = Split(train.to(device), range(0, len(train), 4), held_out.to(device))
        return Problem(Classifier(CLASSES), model, split, torch.Generator().manual_seed(0))

    def run(self, competitor: str, problem: Problem, how: Descent, tick: Tick) -> None:
        """One descent."""
        problem.watch = tick
        if competitor == "by hand":
            by_hand(problem, how, tick)
        else:
            descend(problem, how, phase_of(competitor, WEIGHT * bounded(), ALPHA))


def noise(n: int, width: int) -> Resident:
    """Random tokens: what is in them costs nothing."""
    generator = torch.Generator().manual_seed(n)
    return Resident(torch.randn(n, TOKENS, width, generator=generator), torch.arange(n) % CLASSES)


class SmallNet(steps.Setting):
    """A net of `steps.py` with the competitors of this file."""

    competitors: ClassVar[Sequence[str]] = ("by hand", *MODES)


def peaks(size: Size, count: int, device: str, mode: str = SHARED) -> list[float | None]:
    """The peak of each of several processes that share the model, in MiB; None if unknown."""
    # by default the C library keeps what was freed in its heap, and the pieces of a sharded model scatter it
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", "65536")
    with tempfile.TemporaryDirectory() as folder:
        spawn(measure_peak, (size, count, device, folder, mode), nprocs=count)
        return [json.loads((Path(folder) / f"{rank}.json").read_text()) for rank in range(count)]


def measure_peak(rank: int, size: Size, count: int, device: str, folder: str, mode: str) -> None:
    """Writes the peak of this process; a fresh one."""
    torch.set_num_threads(1)
    if device == "cuda":
        torch.cuda.set_device(rank)
    if count > 1:
        meeting = f"file://{folder}/meeting"
        dist.init_process_group(BACKENDS[device], init_method=meeting, rank=rank, world_size=count)
    before = read_sizes(STATUS).get("VmRSS", 0) / 2**20 if device == "cpu" else 0.0
    model = size.model().to(device)
    problem = size.problem(device, shard_model(model) if count > 1 else model)
    gc.collect()
    with peak_memory(device) as peak:
        size.run(mode, problem, size.how(3), lambda *_: None)
    growth = None if peak.mib is None else peak.mib - before
    (Path(folder) / f"{rank}.json").write_text(json.dumps(growth))
    if count > 1:
        dist.destroy_process_group()


def measure(sizes: Sequence[Size], rounds: int, device: str, counts: Sequence[int]) -> dict[str, Any]:
    """Everything that is reported, by the number of weights."""
    settings: list[tuple[Setting, list[int]]] = [(SmallNet(**vars(SETTINGS["digits"])), [])]
    settings += [(size, list(counts)) for size in sizes]
    rows = {}
    for setting, processes in settings:
        times = seconds(setting, rounds, device)
        ratios = {
            name: [a / b for a, b in zip(each, times["by hand"], strict=True)] for name, each in times.items()
        }
        weights = sum(p.numel() for p in setting.problem("cpu").params.values())
        rows[str(weights)] = {
            "model": "digits net" if isinstance(setting, SmallNet) else "transformer",
            "ratios": {name: median(each) for name, each in ratios.items()},
            "quartiles": {name: quantiles(each, n=4)[::2] for name, each in ratios.items()},
            "seconds": {name: median(each) for name, each in times.items()},
            "memory": {
                str(count): peaks(setting, count, device) for count in processes if isinstance(setting, Size)
            },
        }
    facts = {"rounds": rounds, "device": device, "alpha": ALPHA, "mode_of_memory": SHARED}
    return {"sizes": rows, **facts, "environment": environment()}


def table(results: Mapping[str, Any]) -> str:
    """The ratios with their quartiles, and the memory, as text."""
    lines = []
    for weights, row in results["sizes"].items():
        model = f"{row['model']}, {int(weights):,} weights"
        lines.append(f"{model}, {results['rounds']} rounds, relative to the loop by hand")
        for name, ratio in row["ratios"].items():
            low, high = row["quartiles"][name]
            lines.append(f"  {name:<8} {ratio:.3f} ({low:.3f} to {high:.3f})  {row['seconds'][name]:.4f} s")
        for count, peaks_mib in row["memory"].items():
            mib = "unknown" if None in peaks_mib else f"{max(peaks_mib):.0f} MiB"
            lines.append(f"  {results['mode_of_memory']}, {count} processes: {mib} each")
    return "\n".join(lines)


def main() -> None:
    """The command: measures, prints, and keeps a record if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sizes", default="1e5,1e6,1e7", help="numbers of weights with commas between")
    parser.add_argument("--processes", default="1,2", help="numbers of processes with commas between")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", choices=tuple(BACKENDS), default="cpu")
    parser.add_argument("--record", type=Path, help="the file to keep all results in, as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sizes = [Size(float(each)) for each in arguments.sizes.split(",")]
    counts = [int(each) for each in arguments.processes.split(",")]
    if arguments.device == "cuda" and max(counts) > torch.cuda.device_count():
        parser.error(f"each process needs a GPU, found {torch.cuda.device_count()} for --processes {counts}")
    results = measure(sizes, arguments.rounds, arguments.device, counts)
    write_json(arguments.record, results)
    print(table(results))


if __name__ == "__main__":
    main()
