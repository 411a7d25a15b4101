"""Runs methods in several processes that share a model, for spawned processes to import."""

from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from every_family import request
from fork_server import run_group
from unweave.methods import Method

Runs = dict[str, tuple[str, Method]]
"""By a name: the family, and the method."""

Results = dict[str, dict[str, Tensor] | str]
"""By the same name: the weights and buffers, or the error."""


def run(runs: Runs) -> Results:
    """Every method in float64, in this process and those that share its model."""
    results: Results = {}
    for name, (family, method) in runs.items():
        of = request(method, family, dtype=torch.float64)
        try:
            method(of)
        except ValueError as error:
            results[name] = str(error)
        else:
            results[name] = dict(of.model.state_dict())
    return results


def work(rank: int, count: int, runs: Runs, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=count)
    torch.save(run(runs), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def run_shared(runs: Runs, count: int, folder: Path) -> list[Results]:
    """The results of each of several processes that share every model."""
    run_group(work, count, runs, str(folder))
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(count)]
