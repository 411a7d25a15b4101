"""The trials of searches in a database, for processes on several machines.

Locks are PostgreSQL's advisory locks: the server frees them when their connection ends, however the process
ends. SQLite has no such locks, so its locks are files, for the processes of one machine.
"""

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from unweave.errors import Failed

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from sqlalchemy import URL, Engine

DEFAULTS = {"postgresql": {"connect_timeout": "10"}, "sqlite": {"timeout": "60"}}
"""Seconds in which a server, or a lock, answers; the URL may give its own."""


class Database:
    """A database; it may hold many searches.

    Args:
        url: Its URL, such as postgresql+psycopg://USER@HOST/NAME.

    Raises:
        ValueError: If the URL names no such database, or its driver is not installed.
    """

    def __init__(self, url: str) -> None:
        self.url = parse_url(url)
        self.name = describe(self.url)

    def open(self) -> "BaseStorage":
        """Opens the database, and makes its tables at first use.

        Raises:
            ValueError: If another version of Optuna made them.
        """
        from optuna import __version__
        from optuna.storages import RDBStorage
        from sqlalchemy import NullPool

        with self.lock("", "tables", alone=True):  # only one process may create them
            # no connection outlasts its query: between trials a search needs none
            try:
                return RDBStorage(
                    self.url.render_as_string(hide_password=False), engine_kwargs={"poolclass": NullPool}
                )
            except RuntimeError as error:
                raise ValueError(
                    f"--storage {self.name} must hold tables of Optuna {__version__}, found those of another "
                    f"version ({error}): install that version, or give a new database"
                ) from error

    def lock(
        self, search: str, what: str, *, alone: bool = False, wait: bool = True
    ) -> AbstractContextManager[object]:
        """Holds one of the locks of a search, on all machines."""
        key = hashlib.sha256(f"{what} {search}".encode()).digest()
        if self.url.get_backend_name() == "sqlite":
            from unweave.bench.journal import lock_file

            path = Path(str(self.url.database))
            return lock_file(path.with_name(f"{path.name}.{key.hex()[:16]}.lock"), alone=alone, wait=wait)
        return advisory_lock(make_engine(self.url), int.from_bytes(key[:8], signed=True), alone, wait)

    @contextmanager
    def name_errors(self) -> Iterator[None]:
        """Names the database in the errors of the body that it raises.

        Raises:
            Failed: If the database is lost; without its password.
        """
        from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        # the last: the connection with this process's lock was cut, and another took its trial for lost
        except (SQLAlchemyError, StorageInternalError, UpdateFinishedTrialError) as error:
            raise Failed(
                f"the search lost {self.name} ({reason(error)}): give the same command again to resume"
            ) from None  # the chain may show the URL

    def refuse_unreachable(self) -> None:
        """Raises a ValueError if the database does not answer a query."""
        from sqlalchemy import inspect
        from sqlalchemy.exc import SQLAlchemyError

        try:
            inspect(make_engine(self.url)).get_table_names()  # SQLite reads its file at the first query
        except SQLAlchemyError as error:
            raise ValueError(f"--storage {self.name} does not answer: {reason(error)}") from None


def parse_url(text: str) -> "URL":
    """The URL with its defaults.

    Raises:
        ValueError: If it is none of these databases, its driver is not installed, its password has an
            unescaped @, or it has several hosts.
    """
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    expected = "--storage must be a URL such as postgresql+psycopg://USER@HOST/NAME"
    refuse_open_password(text)
    try:
        url = make_url(text)
        dialect = url.get_dialect()
    except (ArgumentError, ValueError, NoSuchModuleError):  # their texts may hold the password
        raise ValueError(f"{expected}, found another text") from None
    refuse_several_hosts(url)
    try:
        dialect.import_dbapi()
    except ImportError as error:
        raise ValueError(
            f"--storage {describe(url)} needs {error.name}, which is not installed: pip install "
            "'unweave[postgresql]', and begin the URL with postgresql+psycopg:"
        ) from error
    backend = url.get_backend_name()
    if backend not in DEFAULTS or not url.database or url.database == ":memory:":
        raise ValueError(f"{expected}, or sqlite:///FILE, found {describe(url)}")
    return url.set(query={**DEFAULTS[backend], **url.query})


def refuse_open_password(text: str) -> None:
    """Raises if a password may go on in the host, which messages show."""
    scheme, _, address = text.partition("://")
    if not scheme.startswith("sqlite") and address.partition(":")[2].count("@") > 1:
        raise ValueError(
            "--storage must have one @ behind its password, found more: write @ in a password as %40"
        )


def refuse_several_hosts(url: "URL") -> None:
    """Raises if a URL names several hosts: locks hold on one server."""
    hosts = url.query.get("host", "")
    if isinstance(hosts, tuple) or "," in f"{url.host}{hosts}":
        raise ValueError("--storage must name one host, found several: leave one out")


def describe(url: "URL") -> str:
    """The name of a database in messages: without user, password and query."""
    host = url.host or url.query.get("host", "")  # in the query: the folder of a Unix socket
    return f"{url.get_backend_name()}://{host}/{url.database or ''}"


def reason(error: Exception) -> str:
    """The driver's own words in one line, without the query and its values."""
    cause = error if error.__cause__ is None else error.__cause__
    return " ".join(str(getattr(cause, "orig", None) or cause).split())


def make_engine(url: "URL") -> "Engine":
    """An engine whose connections end when they are closed."""
    from sqlalchemy import NullPool, create_engine

    return create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")


@contextmanager
def advisory_lock(engine: "Engine", key: int, alone: bool, wait: bool) -> Iterator[None]:
    """Holds a lock of the PostgreSQL server by a connection of its own.

    Raises:
        BlockingIOError: If it is not free and `wait` is false.
    """
    from sqlalchemy import func, select

    suffix = "" if alone else "_shared"
    lock_function = getattr(func, f"pg_advisory_lock{suffix}" if wait else f"pg_try_advisory_lock{suffix}")
    with engine.connect() as connection:
        # a machine that dies in silence frees its locks in minutes, not in the two hours of the default
        connection.exec_driver_sql("SET tcp_keepalives_idle = 60")
        if connection.execute(select(lock_function(key))).scalar() is False:
            raise BlockingIOError(f"another process holds the lock {key}")
        try:
            yield
        finally:
            connection.execute(select(getattr(func, f"pg_advisory_unlock{suffix}")(key)))
