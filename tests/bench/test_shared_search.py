"""A search shared by processes: N trials in total, and only a running trial can be lost."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from unweave.bench import shared_search

pytest.importorskip("fcntl")

TRIALS = 8


def search(place: Path | None, make: Callable[[float], float | None], name: str = "x") -> list:
    """A search of one number, by the sampler that is asked in turn."""
    import optuna

    study = shared_search.open_study(place, name)

    def ask(before: int) -> optuna.Trial:
        study.sampler = optuna.samplers.TPESampler(seed=before, n_startup_trials=3)
        if before == 0 and not shared_search.has_untried(study):
            study.enqueue_trial({"x": 0.25})
        return study.ask({"x": optuna.distributions.FloatDistribution(0, 1)})

    def made(asked: optuna.Trial) -> dict:
        return {"x": asked.params["x"], "value": make(asked.params["x"]), "pruned": False}

    return shared_search.run_trials(study, place, TRIALS, ask, made)


def square(x: float) -> float:
    return x * x


class Stops:
    """Stops at some calls, as Ctrl-C does."""

    def __init__(self, *at: int) -> None:
        self.at, self.calls = at, 0

    def __call__(self, x: float) -> float:
        self.calls += 1
        if self.calls in self.at:
            raise KeyboardInterrupt
        return square(x)


def test_a_journal_changes_nothing(tmp_path) -> None:
    assert search(tmp_path / "x.journal", square) == search(None, square)


@pytest.mark.parametrize("at", [1, 2, 5, TRIALS])
def test_a_stopped_search_loses_the_running_trial_alone_and_ends_as_if_it_had_not_been(tmp_path, at) -> None:
    make, place = Stops(at), tmp_path / "x.journal"
    with pytest.raises(KeyboardInterrupt):
        search(place, make)
    assert search(place, make) == search(None, square)
    assert make.calls == TRIALS + 1
    assert search(place, make) == search(None, square) and make.calls == TRIALS + 1, "all is there"


def test_a_line_that_was_half_written_is_cut_off(tmp_path) -> None:
    place = tmp_path / "x.journal"
    with pytest.raises(KeyboardInterrupt):
        search(place, Stops(4))
    with place.open("ab") as file:
        file.write(b'{"op_code":6,"wor')
    assert search(place, square) == search(None, square)


def test_a_trial_without_a_value_counts(tmp_path) -> None:
    log = search(tmp_path / "x.journal", lambda x: None if x > 0.5 else x)
    assert [trial["number"] for trial in log] == list(range(TRIALS))
    assert any(trial["value"] is None for trial in log)


def test_a_journal_holds_searches_of_several_names(tmp_path) -> None:
    place = tmp_path / "x.journal"
    first, second = search(place, square, "a"), search(place, lambda x: 1 - x, "b")
    assert len(first) == len(second) == TRIALS and first != second


OTHER = """
import sys, time
from pathlib import Path
from bench.test_shared_search import search

place, seconds = Path(sys.argv[1]), float(sys.argv[2])

def slow(x):
    with place.with_name("made").open("a") as file:
        file.write("x\\n")
    time.sleep(seconds)
    return x * x

print([trial["x"] for trial in search(place, slow)])
"""


def other(folder: Path, seconds: float) -> subprocess.Popen:
    """Another process at the same search, with trials that take so long."""
    (folder / "other.py").write_text(OTHER)
    command = [sys.executable, str(folder / "other.py"), str(folder / "x.journal"), str(seconds)]
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    )


def test_two_processes_make_so_many_trials_together(tmp_path) -> None:
    both = [other(tmp_path, 0.2) for _ in range(2)]
    said = [each.communicate(timeout=120)[0] for each in both]
    assert [each.returncode for each in both] == [0, 0]
    assert said[0] == said[1] and said[0].count(",") == TRIALS - 1, "the log is one"
    assert (tmp_path / "made").read_text().count("x") == TRIALS


def test_what_a_killed_process_had_begun_is_made_by_another(tmp_path) -> None:
    killed = other(tmp_path, 600)
    end = time.monotonic() + 120
    while not (tmp_path / "made").exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert search(tmp_path / "x.journal", square) == search(None, square)


@pytest.mark.parametrize(
    "line", [b"gone wrong\n", b'"a": "half\n', b"\x80\xbb\n", b"[]\n", b'{"op_code": 6}\n']
)
def test_a_journal_that_can_not_be_read_is_named(tmp_path, line: bytes) -> None:
    place = tmp_path / "x.journal"
    search(place, square)
    lines = place.read_bytes().splitlines(keepends=True)
    place.write_bytes(b"".join([*lines[:4], line, *lines[4:]]))
    with pytest.raises(ValueError, match=r"x\.journal is no journal .*: delete it to search again"):
        search(place, square)
