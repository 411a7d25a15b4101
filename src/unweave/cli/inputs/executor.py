"""The executor of independent runs, by `--jobs` or `--ray`, checked before any computation."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass

import torch
from cyclopts import Parameter

from unweave.bench.ray_workers import ray_workers, refuse_unreachable
from unweave.bench.workers import Crew, refuse_too_many, workers


@Parameter(name="*")
@dataclass(frozen=True)
class Executor:
    """The executor of independent cells or trainings: processes on this machine, or a Ray cluster.

    Args:
        jobs: The number of worker processes with one thread each, at most one per core or GPU; 1 uses this
            process with all its threads. By default one per core, or 1 on a device or for a given model.
        ray: Use a Ray cluster instead of processes on this machine: auto for the cluster of this machine, or
            HOST:PORT of the head node.
        cores: With --ray, the CPU cores and threads of a cell or training; 1 by default.
        gpus: With --ray and --device cuda, the GPUs of a cell or training, in (0, 1]; 1 by default, less to
            share one.
    """

    jobs: int | None = None
    ray: str | None = None
    cores: int | None = None
    gpus: float | None = None

    def __post_init__(self) -> None:
        if self.jobs is not None and self.jobs < 1:
            raise ValueError(f"--jobs must be at least 1, found {self.jobs}")
        if self.jobs is not None and self.ray is not None:
            raise ValueError("--jobs starts processes on this machine and --ray uses a cluster: give one")
        if self.ray is None and (self.cores, self.gpus) != (None, None):
            raise ValueError("--cores and --gpus are of a cell on a cluster: give them with --ray")
        if self.cores is not None and self.cores < 1:
            raise ValueError(f"--cores must be at least 1, found {self.cores}")
        if self.gpus is not None and not 0 < self.gpus <= 1:
            raise ValueError(f"--gpus must be in (0, 1], as a cell uses one device, found {self.gpus}")

    def refuse_unfit(self, device: str) -> None:
        """Raises if the executor can't run cells on the device, or no cluster answers."""
        refuse_too_many(self.jobs, device)
        place = torch.device(device)
        if self.ray is not None and place.index is not None:
            raise ValueError(f"Ray chooses the GPU of each cell: give --device {place.type}, found {device}")
        if self.gpus is not None and place.type != "cuda":
            raise ValueError(f"--gpus needs --device cuda, found {device}")
        if self.ray is not None:
            refuse_unreachable(self.ray)

    @contextmanager
    def crew(self, device: str, jobs: int) -> Iterator[Crew]:
        """The workers, `jobs` processes of this machine unless the flags say otherwise.

        Raises:
            ValueError: If there is no such cluster.
        """
        gpus = (self.gpus or 1.0) if torch.device(device).type == "cuda" else 0.0
        if self.ray is None:
            with workers(self.jobs or jobs) as crew:
                yield crew
            return
        # Ray prints that a worker was lost, and the standard output is for results
        with redirect_stdout(sys.stderr), ray_workers(self.ray, cores=self.cores or 1, gpus=gpus) as crew:
            yield crew


HERE = Executor()


def count_jobs(device: str) -> int:
    """The number of worker processes for recipes: one per core, or one on a device."""
    return (os.cpu_count() or 1) if device == "cpu" else 1
