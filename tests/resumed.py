"""Interrupted runs in several processes, for spawned processes to import."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint import FileSystemWriter

import fsdp
from fork_server import run_group
from unweave import unlearn
from unweave.descent.descend import Descent
from unweave.errors import Failed
from unweave.methods import Method
from unweave.methods.lur import LUR
from unweave.methods.pipeline import Pipeline
from unweave.methods.recover import Recover, Restored
from unweave.methods.salun import SalUn
from unweave.problem import Problem
from unweave.weights.sharded_model import whole_state

Found = dict[str, Tensor] | str

HOW = Descent(lr=0.02, steps=5, batch=11, forget_batch=3, max_norm=1.0)
ADAM = replace(HOW, optimizer="adam", lr=0.005, ema=0.5)
CASES: Mapping[str, tuple[str, torch.dtype, Method]] = {
    "lagged": ("mlp", torch.float64, LUR(mode="lagged", alpha=0.01, how=ADAM)),
    "masked": ("transformer", torch.float64, SalUn(how=HOW)),
    "pipeline": (
        "mlp",
        torch.float64,
        Pipeline(LUR(how=HOW), Recover(until=Restored(near=0.3), how=replace(HOW, stop_every=2))),
    ),
    "float32": ("mlp", torch.float32, LUR(how=HOW)),
}
UNTIL = {"pipeline": 8}
"""The step before which a case is interrupted, counted over its descents; 3 by default."""

WAYS = ("replicated", "sharded")


class Interrupted(Exception):
    """Ctrl-C on every process."""


@dataclass
class Clock:
    """Interrupts a run before a step, counted over its descents."""

    until: int | None
    steps: int = 0

    def __call__(self, problem: Problem, index: int) -> None:
        if self.steps == self.until:
            raise Interrupted
        self.steps += 1

    def memory(self) -> None:
        """Nothing: an interruption comes once."""

    def recall(self, memory: None) -> None:
        """Nothing."""


@dataclass
class Interruptible:
    """A method that is interrupted before a step, unless `until` is None."""

    method: Method
    until: int | None = field(default=None, repr=False)

    def __call__(self, problem: Problem) -> None:
        problem.watch = Clock(self.until)
        self.method(problem)


def run(name: str, way: str, folder: Path | None, until: int | None = None) -> Found:
    """What a case finds: whole weights on the first process, or the error."""
    kind, dtype, method = CASES[name]
    task, split = fsdp.setting(kind, dtype)
    model = fsdp.model(kind, dtype)
    try:
        result = unlearn(
            fsdp.shard(model) if way == "sharded" else model,
            split,
            Interruptible(method, until),
            task=task,
            state_folder=folder,
            save_every=2,
        )
    except Interrupted:
        return "interrupted"
    except (ValueError, OSError, Failed) as error:
        return f"{type(error).__name__}: {error}"
    return {name: each.clone() for name, each in whole_state(result.model).items()}


def interrupt(name: str, way: str, folder: Path) -> Found:
    """Interrupts a case, and leaves copies of its states beside the folder, to resume in other ways."""
    result = run(name, way, folder, UNTIL.get(name, 3))
    if dist.get_rank() == 0:
        for copy in ("alone", "more", "other way"):
            shutil.copytree(folder, folder.with_name(f"{folder.name}, {copy}"))
    dist.barrier()
    return result


def fail_to_write(way: str, folder: Path) -> Found:
    """A case in which one process can't write its second state."""
    originals, writes = (FileSystemWriter.write_data, torch.save), 0

    def full(*arguments: object, **keywords: object) -> object:
        nonlocal writes
        writes += 1
        if writes == 2:
            raise OSError(28, "No space left on device")
        return originals[way == "replicated"](*arguments, **keywords)

    if way == "sharded" and dist.get_rank() == 1:
        FileSystemWriter.write_data = full
    if way == "replicated":
        torch.save = full
    try:
        return run("masked", way, folder)
    finally:
        FileSystemWriter.write_data, torch.save = originals


def spoil(folder: Path) -> None:
    """Replaces the tensors of all states by something else."""
    if dist.get_rank() == 0:
        for each in folder.glob("*/*"):
            if each.name in ("tensors.pt", ".metadata"):
                each.write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    dist.barrier()


def in_two(folder: Path) -> dict[str, Found]:
    """Everything that two processes find."""
    results: dict[str, Found] = {}
    for way in WAYS:
        for name in CASES:
            place = folder / f"{name}, {way}"
            results |= {
                f"{name}, {way}, whole": run(name, way, None),
                f"{name}, {way}, interrupted": interrupt(name, way, place),
                f"{name}, {way}, resumed": run(name, way, place),
            }
        other = WAYS[1 - WAYS.index(way)]
        results[f"{way}, other way"] = run("lagged", other, folder / f"lagged, {way}, other way")
        results[f"{way}, again"] = run("lagged", way, folder / f"lagged, {way}")
        place = folder / f"full, {way}"
        results[f"{way}, full"] = fail_to_write(way, place)
        results[f"{way}, after full"] = run("masked", way, place)
        results[f"{way}, another run"] = run("lagged", way, folder / f"masked, {way}")
        spoilt = folder / f"masked, {way}"
        spoil(spoilt)
        results[f"{way}, spoilt"] = run("masked", way, spoilt)
    return results


def in_more(folder: Path) -> dict[str, Found]:
    """What more processes find that go on from the states of two."""
    return {
        f"{name}, {way}": run(name, way, folder / f"{name}, {way}, more") for way in WAYS for name in CASES
    }


def work(rank: int, count: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting {count}", rank=rank, world_size=count
    )
    results = in_two(Path(folder)) if count == 2 else in_more(Path(folder))
    torch.save(results, f"{folder}/{count}-{rank}.pt")
    dist.destroy_process_group()


def together(count: int, folder: Path) -> list[dict[str, Found]]:
    """What each of several processes finds."""
    run_group(work, count, str(folder))
    return [torch.load(folder / f"{count}-{rank}.pt", weights_only=True) for rank in range(count)]
