"""Work spread over processes, and how these end."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CREW = """
import os, time
from pathlib import Path
from unweave.bench.workers import Job, workers


def note_pid(folder, name):
    (Path(folder) / name).write_text(str(os.getpid()))
    time.sleep(600)


if __name__ == "__main__":
    with workers(2) as crew:
        list(crew([Job(name, note_pid, (FOLDER, name)) for name in ("first", "second")]))
"""


@pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="tells a process that ended by Linux's /proc"
)
def test_workers_end_when_their_parent_is_killed(tmp_path):
    script = tmp_path / "crew.py"
    script.write_text(CREW.replace("FOLDER", repr(str(tmp_path))))
    parent = subprocess.Popen([sys.executable, str(script)])
    pids = [tmp_path / name for name in ("first", "second")]
    wait_until(lambda: all(path.exists() and path.read_text() for path in pids))
    working = [int(path.read_text()) for path in pids]
    assert all(map(alive, working))
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait_until(lambda: not any(map(alive, working)))


def wait_until(so, seconds: float = 60) -> None:
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
