"""Large models cheaply: memory and seconds of LUR with LoRA and on all weights, and what `check` foresees.

    python benchmarks/large_models.py --models vit-b --trained lora --steps 3 --record large.json
    python benchmarks/large_models.py --record records/large-models.json       # everything; half an hour
    python benchmarks/large_models.py --processes 2 --record records/large-models.json

The models have the sizes of GPT-2 (124 million weights) and ViT-B (86 million), random weights and random
data: what they have learnt costs nothing. Every figure is measured in processes of its own: the peak memory
of a process, libraries included, during one run that forgets and retains, and the CPU time of a step, which
other work on the machine changes least. `foreseen` is the estimate of `unweave check` with the same clock, in
further processes of its own. With two processes, connected by gloo, the model is sharded block by block, and
there is one peak for each. What the record already has with these settings is not measured again, so the
command can be repeated after it was stopped.
"""

import argparse
import copy
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from rows import ENVIRONMENT, read_rows, write_rows
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn
from torch.utils.data import TensorDataset
from transformers import GPT2Config, GPT2ForSequenceClassification, ViTConfig, ViTForImageClassification

from unweave.bench.peak_memory import peak_memory
from unweave.cli.checks.rounds import estimate_all
from unweave.cli.checks.timing import method_rounds
from unweave.cli.project import Project
from unweave.data import Source
from unweave.data.in_memory import Resident
from unweave.descent.descend import Descent
from unweave.descent.timing import run_and_time
from unweave.methods import Method
from unweave.methods.lora import LoRA
from unweave.methods.lur import LUR
from unweave.problem import Problem
from unweave.record.record import environment
from unweave.split import Split, as_source
from unweave.tasks.low_rank import require_peft
from unweave.weights.shard import shard_model

CLASSES, EXAMPLES, RANK = 10, 32, 8
MODES, TRAINED = ("lagged", "nested"), ("lora", "all")
PADDING = 0
"""The token that fills short texts; no text here has it."""


class Texts(nn.Module):
    """GPT-2 as a classifier of token ids of shape [batch, token].

    Args:
        config: Its sizes.
    """

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.gpt = GPT2ForSequenceClassification(config)

    def forward(self, tokens: Tensor) -> Tensor:
        """The logits."""
        return self.gpt(tokens, use_cache=False).logits


def gpt2(*, small: bool) -> nn.Module:
    """GPT-2, or one with two thin layers."""
    size = {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 100} if small else {}
    ends = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": PADDING}
    return Texts(GPT2Config(num_labels=CLASSES, **ends, **size))


def vit(*, small: bool) -> nn.Module:
    """ViT-B, or one with two thin layers."""
    thin = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    size = {**thin, "image_size": 32} if small else {}
    return ViTForImageClassification(ViTConfig(num_labels=CLASSES, **size))


def texts(n: int, *, small: bool) -> Source:
    """Random texts of 128 tokens, or 16."""
    draw = torch.Generator().manual_seed(n)
    tokens = torch.randint(1, 100, (n, 16 if small else 128), generator=draw)
    return as_source(TensorDataset(tokens, torch.arange(n) % CLASSES))


def images(n: int, *, small: bool) -> Source:
    """Random images."""
    side = 32 if small else 224
    draw = torch.Generator().manual_seed(n)
    return Resident(torch.randn(n, 3, side, side, generator=draw), torch.arange(n) % CLASSES)


MODELS: Mapping[str, tuple[Callable[..., nn.Module], Callable[..., Source]]] = {
    "gpt-2": (gpt2, texts),
    "vit-b": (vit, images),
}


@dataclass(frozen=True)
class Figure:
    """One run.

    Args:
        model: The model.
        mode: The mode of LUR.
        trained: "lora" or "all" weights.
        processes: The number of processes that share the model.
        steps: The number of steps.
        batch: Retain examples per step, and forget examples.
        small: Replace the model by one with two thin layers.
    """

    model: str
    mode: str
    trained: str
    processes: int
    steps: int
    batch: int
    small: bool

    @property
    def sizes(self) -> dict[str, int]:
        """The sizes that the record holds."""
        return {"steps": self.steps, "batch": self.batch, "rank": RANK}

    @property
    def key(self) -> str:
        """The name of the figure in the record, with all its settings."""
        small = ", small" if self.small else ""
        title = f"{self.model}{small}, {self.mode}, {self.trained}, {self.processes} processes"
        return name_row(title, self.sizes)

    def method(self) -> Method:
        """LUR with steps of a set size, so that nothing is measured first."""
        how = Descent(lr=1e-3, steps=self.steps, batch=self.batch, forget_batch=self.batch)
        lur = LUR(mode="lagged" if self.mode == "lagged" else "nested", alpha=1e-3, weight=0.1, how=how)
        return LoRA(lur, RANK) if self.trained == "lora" else lur

    def build(self) -> nn.Module:
        """The model, always with the same weights; cut over the processes if there are several."""
        torch.manual_seed(0)
        model = MODELS[self.model][0](small=self.small).eval()
        return shard_model(model) if self.processes > 1 else model

    def project(self, model: nn.Module) -> Project:
        """The model with its data."""
        data = MODELS[self.model][1]
        train, test = data(EXAMPLES, small=self.small), data(EXAMPLES // 2, small=self.small)
        return Project({}, train, test, 0.5, model=model)

    def prepare(self) -> tuple[Project, Split]:
        """The model with its data, and a quarter of the data to forget."""
        project = self.project(self.build())
        return project, project.split(torch.arange(0, EXAMPLES, 4))

    def run(self, project: Project, split: Split) -> dict[str, float | None]:
        """The peak memory and the CPU seconds of a step of one run."""
        assert project.model is not None
        with peak_memory("cpu") as peak:
            edited = project.model if self.processes > 1 else copy.deepcopy(project.model)
            caller_model = None if self.processes > 1 else project.model
            generator = torch.Generator().manual_seed(0)
            problem = Problem(project.task(split), edited, split, generator, caller_model=caller_model)
            _ = problem.original  # as `unlearn` has it
            cost = run_and_time(problem, self.method())
        return {"peak_mib": peak.mib, "seconds_per_step": cost.seconds / self.steps}

    def foresee(self, project: Project, split: Split) -> dict[str, float | None]:
        """The estimate of `check`."""
        assert project.model is not None
        rounds = method_rounds(self.method(), project.model, split, project)
        estimate = estimate_all({self.key: rounds}, torch.device("cpu"), lambda _: None)[self.key]
        if estimate.refused or estimate.seconds is None:
            raise ValueError(f"{self.key}: {estimate.refused}")
        return {"peak_mib": estimate.peak_mib, "seconds_per_step": estimate.seconds / self.steps}


def measure(rank: int, figure: Figure, task: str, folder: str) -> None:
    """Writes what a fresh process finds."""
    torch.set_num_threads(1)
    time.perf_counter = time.process_time  # the clock of a run and of `check`
    require_peft()  # before the clock starts
    small = replace(figure, processes=1, small=True)
    small.run(*small.prepare())  # the first run includes torch's own start
    if figure.processes > 1:
        meeting = f"file://{folder}/meeting"
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=figure.processes)
    result = (figure.run if task == "run" else figure.foresee)(*figure.prepare())
    (Path(folder) / f"{rank}.json").write_text(json.dumps(result))
    if figure.processes > 1:
        dist.destroy_process_group()


def in_own_processes(figure: Figure, task: str) -> dict[str, Any]:
    """What fresh processes find: the peak of each, and the longest seconds."""
    with tempfile.TemporaryDirectory() as folder:
        spawn(measure, (figure, task, folder), nprocs=figure.processes)
        runs = [json.loads((Path(folder) / f"{rank}.json").read_text()) for rank in range(figure.processes)]
    seconds = max(each["seconds_per_step"] for each in runs)
    return {"peak_mib": [round(each["peak_mib"], 1) for each in runs], "seconds_per_step": round(seconds, 4)}


def figures(arguments: argparse.Namespace) -> Iterator[Figure]:
    """The figures to measure."""
    names = product(arguments.models.split(","), arguments.modes.split(","), arguments.trained.split(","))
    for model, mode, trained in names:
        yield Figure(
            model, mode, trained, arguments.processes, arguments.steps, arguments.batch, arguments.small
        )


def name_row(title: str, sizes: Mapping[str, Any]) -> str:
    """The name of a row: what was run, and its sizes."""
    return ", ".join([title, *(f"{name} {sizes[name]}" for name in ("steps", "batch", "rank"))])


def line(name: str, row: Mapping[str, Any]) -> str:
    """One figure as text."""
    peaks, forecast = row["peak_mib"], row["foreseen"]
    ratio = max(forecast["peak_mib"]) / max(peaks)
    slower = forecast["seconds_per_step"] / row["seconds_per_step"]
    return (
        f"{name}: {' + '.join(f'{each:.0f}' for each in peaks)} MiB (foreseen {ratio:.2f} times), "
        f"{row['seconds_per_step']:.2f} CPU s a step (foreseen {slower:.2f} times)"
    )


def main() -> None:
    """The command: measures what the record lacks, and prints everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS), help="names with commas between")
    parser.add_argument("--modes", default=",".join(MODES), help="modes of LUR with commas between")
    parser.add_argument("--trained", default=",".join(TRAINED), help="lora, all or both")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--small", action="store_true", help="models with two thin layers")
    parser.add_argument("--record", type=Path, required=True, help="the file of all figures, as JSON")
    arguments = parser.parse_args()
    rows = read_rows(arguments.record, "figures")
    for figure in figures(arguments):
        row = rows.get(figure.key)
        if row is None:
            result = in_own_processes(figure, "run")
            row = rows[figure.key] = {**result, **figure.sizes, ENVIRONMENT: environment()}
            write_rows(arguments.record, "figures", rows)
        if "foreseen" not in row:
            row["foreseen"] = {**in_own_processes(figure, "foresee"), ENVIRONMENT: environment()}
            write_rows(arguments.record, "figures", rows)
        print(line(figure.key, row), flush=True)


if __name__ == "__main__":
    main()
