"""Work spread over processes, and how these end."""

import os
import pickle
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from fork_server import fork_server
from unweave.bench.ray_workers import run_on_cluster
from unweave.bench.workers import Job, workers
from unweave.errors import Failed


def note_pid(folder: Path, name: str) -> None:
    """Writes the number of its process, and then works for long."""
    (folder / name).write_text(str(os.getpid()))
    time.sleep(600)


def lead(folder: Path) -> None:
    """Gives two workers, which are spawned, a job each."""
    with workers(2) as crew:
        list(crew([Job(name, note_pid, (folder, name)) for name in ("first", "second")]))


@pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="tells a process that ended by Linux's /proc"
)
def test_workers_end_when_their_parent_is_killed(tmp_path: Path):
    parent = fork_server().Process(target=lead, args=(tmp_path,))
    parent.start()
    pids = [tmp_path / name for name in ("first", "second")]
    wait_until(lambda: all(path.exists() and path.read_text() for path in pids))
    working = [int(path.read_text()) for path in pids]
    assert all(map(alive, working))
    parent.kill()
    parent.join()
    wait_until(lambda: not any(map(alive, working)))


def work(folder: Path, number: int, seconds: float, failing: set[int]) -> None:
    """Takes a while, and then raises or leaves a file."""
    time.sleep(seconds)
    if number in failing:
        raise Failed(f"job {number}")
    (folder / str(number)).touch()


def jobs_of(folder: Path, seconds: list[float], failing: set[int]) -> list[Job]:
    folder.mkdir()
    return [Job(str(i), work, (folder, i, each, failing)) for i, each in enumerate(seconds)]


@pytest.mark.usefixtures("forked_workers")
def test_a_job_that_fails_cancels_those_that_wait_and_the_crew_goes_on(tmp_path: Path):
    with workers(2) as crew:
        with pytest.raises(Failed, match="^job 1$"):
            list(crew(jobs_of(tmp_path / "first", [0.2] * 20, {1})))
        list(crew(jobs_of(tmp_path / "second", [0.0] * 2, set())))
        # besides the running job, the pool has handed out three that nothing recalls
        assert len(list((tmp_path / "first").iterdir())) < 10
        assert len(list((tmp_path / "second").iterdir())) == 2


@pytest.mark.usefixtures("forked_workers")
def test_the_failure_of_the_first_job_is_reported_whichever_fails_first(tmp_path: Path):
    with workers(2) as crew, pytest.raises(Failed, match="^job 0$"):
        list(crew(jobs_of(tmp_path / "jobs", [0.5, 0.0, 0.0], {0, 1, 2})))


def test_a_crew_on_ray_that_is_left_early_cancels_what_runs():
    cancelled_tasks, numbers = [], iter(range(4))
    ray = SimpleNamespace(
        cloudpickle=pickle, wait=lambda tasks: (tasks[:1], tasks[1:]), get=str, cancel=cancelled_tasks.append
    )
    task = SimpleNamespace(remote=lambda *arguments: next(numbers))
    results = run_on_cluster(ray, task, [Job(str(i), abs, (i,)) for i in range(4)], 1)
    assert [result for _, result in (next(results), next(results))] == ["0", "1"]
    results.close()
    assert cancelled_tasks == [2, 3]


def wait_until(so, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not so():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and waits to be collected does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
