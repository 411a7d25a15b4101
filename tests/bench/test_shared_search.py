"""A search shared by processes: N trials in total, and only a running trial can be lost.

Over a journal, over SQLite, and, slow, over a PostgreSQL server that the test starts.
"""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from fork_server import fork_server
from unweave.bench import shared_search
from unweave.bench.database import Database
from unweave.errors import Failed

pytest.importorskip("fcntl")

TRIALS = 8
POSTGRESQL = pytest.param("postgresql", marks=pytest.mark.slow)


@contextmanager
def run_server() -> Iterator[str]:
    """A PostgreSQL server for the body; gives its URL."""
    pytest.importorskip("psycopg")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
        import postgresql_server

        try:
            postgresql_server.find_programs()
        except SystemExit as missing:
            pytest.skip(str(missing))
        with postgresql_server.run_server("nobody" if os.geteuid() == 0 else None) as url:
            yield url


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of a PostgreSQL server."""
    with run_server() as url:
        yield url


@pytest.fixture(params=["journal", "sqlite", POSTGRESQL])
def place(request, tmp_path) -> Path | str:
    """A place for trials that several processes share, with none in it."""
    if request.param == "journal":
        return tmp_path / "x.journal"
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'x.sqlite'}"
    return make_database(request.getfixturevalue("server"), request.node.name)


def make_database(server: str, name: str) -> str:
    """The URL of a new database of the server."""
    from sqlalchemy import create_engine, make_url

    name = "".join(each if each.isalnum() else "_" for each in name)[-60:]
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f'CREATE DATABASE "{name}"')
    engine.dispose()
    return make_url(server).set(database=name).render_as_string(hide_password=False)


def search(place: Path | str | None, make: Callable[[float], float | None], name: str = "x") -> list:
    """A search of one number, by the sampler that is asked in turn."""
    import optuna

    storage = shared_search.storage_at(place)
    study = shared_search.open_study(storage, name)

    def ask(count: int) -> optuna.Trial:
        study.sampler = optuna.samplers.TPESampler(seed=count, n_startup_trials=3)
        if count == 0 and not shared_search.has_untried(study):
            study.enqueue_trial({"x": 0.25})
        return study.ask({"x": optuna.distributions.FloatDistribution(0, 1)})

    def made(trial: optuna.Trial) -> dict:
        return {"x": trial.params["x"], "value": make(trial.params["x"]), "pruned": False}

    return shared_search.run_trials(study, storage, TRIALS, ask, made)


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


def test_a_storage_changes_nothing(place) -> None:
    assert search(place, square) == search(None, square)


@pytest.mark.parametrize("at", [1, 2, 5, TRIALS])
def test_a_stopped_search_loses_the_running_trial_alone_and_ends_as_if_it_had_not_been(place, at) -> None:
    make = Stops(at)
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


def test_a_trial_without_a_value_counts(place) -> None:
    log = search(place, lambda x: None if x > 0.5 else x)
    assert [trial["number"] for trial in log] == list(range(TRIALS))
    assert any(trial["value"] is None for trial in log)


def test_a_storage_holds_searches_of_several_names(place) -> None:
    first, second = search(place, square, "a"), search(place, lambda x: 1 - x, "b")
    assert len(first) == len(second) == TRIALS and first != second


def make_slowly(folder: Path, seconds: float, x: float) -> float:
    """Notes that a trial began, and takes its time."""
    with (folder / "made").open("a") as file:
        file.write("x\n")
    time.sleep(seconds)
    return square(x)


def note_search(folder: Path, place: Path | str, seconds: float, name: str) -> None:
    """Takes part in a search, and writes down its trials."""
    values = [trial["x"] for trial in search(place, partial(make_slowly, folder, seconds))]
    (folder / name).write_text(str(values))


def start(folder: Path, place: Path | str, seconds: float, name: str) -> BaseProcess:
    """Starts another process at the same search, whose trials take that many seconds."""
    process = fork_server().Process(target=note_search, args=(folder, place, seconds, name))
    process.start()
    return process


def test_two_processes_make_n_trials_together(tmp_path, place) -> None:
    names = ("first", "second")
    processes = [start(tmp_path, place, 0.1, name) for name in names]
    for each in processes:
        each.join(300)
    assert [each.exitcode for each in processes] == [0, 0]
    first, second = ((tmp_path / name).read_text() for name in names)
    assert first == second and first.count(",") == TRIALS - 1, "the log is one"
    assert (tmp_path / "made").read_text().count("x") == TRIALS


def test_what_a_killed_process_had_begun_is_made_by_another(tmp_path, place) -> None:
    killed = start(tmp_path, place, 600, "none")
    wait_for(tmp_path / "made")
    killed.kill()
    killed.join()
    assert search(place, square) == search(None, square)


def test_a_search_waits_for_no_other_search_of_its_database(tmp_path) -> None:
    url = f"sqlite:///{tmp_path / 'x.sqlite'}"
    process = start(tmp_path, url, 600, "none")
    wait_for(tmp_path / "made")
    assert search(url, square, "y") == search(None, square)
    process.kill()
    process.join()


@pytest.mark.slow
def test_a_search_that_loses_its_server_says_how_to_go_on() -> None:
    server = run_server()
    url = server.__enter__()
    with pytest.raises(Failed, match=r"lost postgresql:///tmp.*: give the same command again to resume"):
        search(url, lambda x: server.__exit__(None, None, None) or x)


def wait_for(path: Path) -> None:
    """Waits until a file is there."""
    end = time.monotonic() + 300
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("nothing", "must be a URL such as postgresql.*, found another text"),
        ("oracle9://u:secret@h/d", "must be a URL such as postgresql.*, found another text"),
        ("mysql+pymysql://u:secret@h/d", "needs pymysql|or sqlite:///FILE, found mysql://h/d"),
        ("postgresql+asyncpg://u:secret@h/d", "://h/d needs asyncpg.*: pip install 'unweave.postgresql.'"),
        ("sqlite://", "or sqlite:///FILE, found sqlite:///"),
        ("postgresql+psycopg://u:half@secret@h/d", "write @ in a password as %40"),
        ("postgresql+psycopg://u:half@secret/x@h/d", "write @ in a password as %40"),
        ("postgresql+psycopg://u:half@secret?x@h/d", "write @ in a password as %40"),
        ("postgresql+psycopg://u:half@secret:x@h/d", "write @ in a password as %40"),
        ("postgresql+psycopg://u:p@secret,i/d", "must name one host, found several"),
        ("postgresql+psycopg://u:p@/d?host=secret&host=i", "must name one host, found several"),
    ],
)
def test_a_storage_that_is_none_is_refused_without_its_password(url: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as error:
        Database(url)
    assert "secret" not in str(error.value)


def test_a_file_that_is_no_database_is_refused_before_the_search(tmp_path) -> None:
    place = tmp_path / "notes.txt"
    place.write_text("no database\n" * 100)
    with pytest.raises(
        ValueError, match=r"--storage sqlite:///.*notes.txt does not answer: .*not a database"
    ):
        Database(f"sqlite:///{place}").refuse_unreachable()


def test_the_tables_of_another_version_of_optuna_are_named(tmp_path) -> None:
    place = tmp_path / "x.sqlite"
    search(f"sqlite:///{place}", square)
    with closing(sqlite3.connect(place)) as tables, tables:
        tables.execute("UPDATE version_info SET schema_version = 99")
        tables.execute("UPDATE alembic_version SET version_num = 'v99'")
    expected = (
        r"--storage sqlite:///.*x.sqlite must hold tables of Optuna \S+, found those of another version"
    )
    with pytest.raises(ValueError, match=expected):
        search(f"sqlite:///{place}", square)


def test_a_password_that_ends_in_an_escaped_sign_and_a_file_with_one_are_taken(tmp_path) -> None:
    pytest.importorskip("psycopg")
    assert Database("postgresql+psycopg://u@firm:p%40secret@h/d").name == "postgresql://h/d"
    assert Database("sqlite:///a:b@c@d.sqlite").name == "sqlite:///a:b@c@d.sqlite"


def test_a_server_that_does_not_answer_is_named_without_its_password() -> None:
    pytest.importorskip("psycopg")
    database = Database("postgresql+psycopg://me:secret@127.0.0.1:1/trials?options=-csecret")
    with pytest.raises(
        ValueError, match=r"postgresql://127.0.0.1/trials does not answer: .*refused"
    ) as error:
        database.refuse_unreachable()
    assert "secret" not in str(error.value)


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
