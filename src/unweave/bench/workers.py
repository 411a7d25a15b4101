"""Worker processes that live for a whole run, because importing torch costs more than many a job."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import wait
from typing import Any

import torch


@dataclass(frozen=True)
class Job:
    """A piece of work.

    Args:
        label: Its name in progress messages.
        function: A function at module level, so that another process can import it.
        arguments: Its arguments.
    """

    label: str
    function: Callable[..., object]
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Progress:
    """The progress of a list of jobs.

    Args:
        label: The label of the last finished job.
        done: The number of finished jobs.
        total: The number of all jobs.
    """

    label: str
    done: int
    total: int


Listener = Callable[[Progress], None]
Crew = Callable[[Sequence[Job]], Iterator[tuple[Job, Any]]]
"""Runs jobs, and yields each with its result when it ends."""


def run_jobs(crew: Crew, jobs: Sequence[Job], listener: Listener) -> Iterator[tuple[Job, Any]]:
    """Runs jobs, reports each to the listener, and yields it with its result."""
    for done, (job, result) in enumerate(crew(jobs), 1):
        listener(Progress(job.label, done, len(jobs)))
        yield job, result


@contextmanager
def workers(count: int) -> Iterator[Crew]:
    """A crew of `count` processes of one thread each; with 1, this process with all its threads.

    An error in the body, or Ctrl-C, ends the processes at once.
    """
    if count < 1:
        raise ValueError(f"jobs must be at least 1, found {count}")
    if count == 1:
        yield run_serially
        return
    other_processes = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), prepare_worker)
    try:
        yield partial(run_on_pool, pool)
    except BaseException:
        for process in set(multiprocessing.active_children()) - other_processes:
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def run_calls(crew: Crew, function: Callable[..., None], arguments: Sequence[tuple[Any, ...]]) -> None:
    """Calls a function with each tuple of arguments, one job per call; returns when all have ended."""
    for _ in crew([Job(str(number), function, each) for number, each in enumerate(arguments)]):
        pass


def refuse_too_many(jobs: int | None, device: str) -> None:
    """Raises if there are more worker processes than cores, or than GPUs of the device."""
    cores, place = os.cpu_count() or 1, torch.device(device)
    if jobs is not None and jobs > cores:
        raise ValueError(f"--jobs must be at most the {cores} cores of this machine, found {jobs}")
    gpus = torch.cuda.device_count() if place.index is None else 1
    if jobs is not None and place.type == "cuda" and jobs > gpus:
        raise ValueError(f"--jobs must be at most the number of GPUs in {device}, {gpus}, found {jobs}")


def run_on_pool(pool: ProcessPoolExecutor, jobs: Sequence[Job]) -> Iterator[tuple[Job, Any]]:
    """Submits all jobs at once, and yields each with its result when it ends.

    After a failure those that wait are cancelled. The first job that failed is reported, as by one process.
    """
    tasks = {pool.submit(job.function, *job.arguments): job for job in jobs}
    try:
        for task in as_completed(tasks):
            if task.exception() is not None:
                break
            yield tasks[task], task.result()
    finally:
        for task in tasks:
            task.cancel()
    for task in tasks:
        if not task.cancelled():  # those before a failed one have begun
            task.result()


def run_serially(jobs: Sequence[Job]) -> Iterator[tuple[Job, Any]]:
    """Runs one job after the other in this process."""
    return ((job, job.function(*job.arguments)) for job in jobs)


def prepare_worker() -> None:
    """Prepares a new process: one thread; it ends silently on Ctrl-C, or when its parent is killed."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    torch.set_num_threads(1)
    threading.Thread(target=exit_with_parent, daemon=True).start()


def exit_with_parent() -> None:
    """Waits for the parent to end, in any way, and ends this process."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "only a worker has a parent"
    wait([parent.sentinel])
    os._exit(1)
