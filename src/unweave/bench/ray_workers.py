"""Workers on the nodes of a Ray cluster (Moritz et al., 2018), in place of local processes.

Every node needs the driver's Python environment, and its working, data and output folders at the same paths,
because cells are exchanged as files. A cell whose worker is lost runs again from its finished files.
"""

import importlib
import importlib.util
import os
import pickle
import re
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from unweave.bench.workers import Crew, Job
from unweave.errors import Failed

AUTO = "auto"
ADDRESS = re.compile(r"(?:\[(?P<v6>[^\]]+)\]|(?P<host>[^:/\[\]]+)):(?P<port>\d{1,5})")
RETRIES = 3  # Ray's default, stated because the error names it
TIMEOUT = 5.0  # seconds in which a live cluster answers; Ray itself retries for minutes


@contextmanager
def ray_workers(address: str, *, cores: int = 1, gpus: float = 0) -> Iterator[Crew]:
    """A crew of the workers of a running Ray cluster, of which this machine is a node.

    An error in the body, or Ctrl-C, ends the running jobs.

    Args:
        address: "auto" for the cluster that this machine belongs to, or HOST:PORT of its head.
        cores: CPU cores, and threads, per job.
        gpus: GPUs per job, in [0, 1]; several jobs share a GPU at a fraction.

    Raises:
        ValueError: If Ray is not installed, no cluster answers, or it lacks what a job needs.
        Failed: If the workers of a job are lost RETRIES + 1 times.
    """
    refuse_unreachable(address)
    ray = importlib.import_module("ray")  # the extra may be missing
    try:
        ray.init(address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"--ray {address} is no running cluster of this machine: {reason}") from error
    try:
        refuse_too_large(ray.nodes(), cores, gpus)
        task = ray.remote(num_cpus=cores, num_gpus=gpus, max_retries=RETRIES)(run_on_node)
        yield lambda jobs: run_on_cluster(ray, task, jobs, cores)
    finally:
        ray.shutdown()


def refuse_unreachable(address: str) -> None:
    """Raises if Ray is not installed or nothing listens at an address; "auto" needs RAY_ADDRESS for that."""
    if importlib.util.find_spec("ray") is None:
        raise ValueError("--ray needs Ray, which is not installed: pip install 'unweave[ray]'")
    place = os.environ.get("RAY_ADDRESS", AUTO) if address == AUTO else address
    if place == AUTO:
        return
    match = ADDRESS.fullmatch(place)
    if match is None:
        raise ValueError(f"--ray must be auto or HOST:PORT, found {place!r}")
    try:
        socket.create_connection((match["v6"] or match["host"], int(match["port"])), TIMEOUT).close()
    except (OSError, OverflowError) as error:
        raise ValueError(f"--ray {address}: no cluster answers at {place}: {error}") from error


def refuse_too_large(nodes: Sequence[dict[str, Any]], cores: int, gpus: float) -> None:
    """Raises if no living node has room for one job: Ray would wait for one forever."""
    resources = [node["Resources"] for node in nodes if node["Alive"]]
    if not any(each.get("CPU", 0) >= cores and each.get("GPU", 0) >= gpus for each in resources):
        sizes = ", ".join(f"{each.get('CPU', 0):g} and {each.get('GPU', 0):g}" for each in resources)
        raise ValueError(f"a cell needs {cores} cores and {gpus:g} GPUs of one node, found nodes of {sizes}")


def run_on_cluster(ray: Any, task: Any, jobs: Sequence[Job], cores: int) -> Iterator[tuple[Job, Any]]:
    """Submits all jobs at once, and yields each with its result when it ends."""
    place = str(Path.cwd()), sys.path, cores
    tasks = {task.remote(*place, ray.cloudpickle.dumps((job.function, job.arguments))): job for job in jobs}
    try:
        while tasks:
            (reference, *_), _ = ray.wait(list(tasks))
            job = tasks.pop(reference)
            yield job, result_of(ray, reference, job)
    finally:
        for each in tasks:  # after a failure, or a caller that stopped
            ray.cancel(each)


def result_of(ray: Any, reference: Any, job: Job) -> object:
    """The result of a job that ended, or its error as it was raised."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None  # its own text is a whole traceback
    except ray.exceptions.RayError as error:
        reason = str(error).partition("\n")[0]
        raise Failed(f"{job.label} lost its worker {RETRIES + 1} times: {reason}") from error


def run_on_node(folder: str, path: list[str], cores: int, job: bytes) -> object:
    """Runs a job in a worker, with the folder and module path of the driver."""
    os.chdir(folder)
    sys.path[:] = [*path, *(each for each in sys.path if each not in path)]
    torch.set_num_threads(cores)
    function, arguments = pickle.loads(job)
    return function(*arguments)
