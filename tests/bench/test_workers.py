"""Work spread over processes, and how these end."""

import os
import time
from pathlib import Path

import pytest

from fork_server import fork_server
from unweave.bench.workers import Job, workers


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
