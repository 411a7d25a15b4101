"""A search shared by processes: N trials in total, and only a running trial can be lost."""

import time
from collections.abc import Callable
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from fork_server import fork_server
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


def make_slowly(place: Path, seconds: float, x: float) -> float:
    """Notes that a trial began, and takes its time."""
    with place.with_name("made").open("a") as file:
        file.write("x\n")
    time.sleep(seconds)
    return x * x


def note_search(folder: Path, seconds: float, name: str) -> None:
    """Takes part in a search, and writes down its trials."""
    place = folder / "x.journal"
    found = [trial["x"] for trial in search(place, partial(make_slowly, place, seconds))]
    (folder / name).write_text(str(found))


def start(folder: Path, seconds: float, name: str) -> BaseProcess:
    """Starts another process at the same search, whose trials take that many seconds."""
    process = fork_server().Process(target=note_search, args=(folder, seconds, name))
    process.start()
    return process


def test_two_processes_make_so_many_trials_together(tmp_path) -> None:
    names = ("first", "second")
    both = [start(tmp_path, 0.1, name) for name in names]
    for each in both:
        each.join(120)
    assert [each.exitcode for each in both] == [0, 0]
    first, second = ((tmp_path / name).read_text() for name in names)
    assert first == second and first.count(",") == TRIALS - 1, "the log is one"
    assert (tmp_path / "made").read_text().count("x") == TRIALS


def test_what_a_killed_process_had_begun_is_made_by_another(tmp_path) -> None:
    killed = start(tmp_path, 600, "none")
    end = time.monotonic() + 120
    while not (tmp_path / "made").exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    killed.kill()
    killed.join()
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
