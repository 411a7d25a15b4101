"""The trials of searches in a file, Optuna's journal, for processes that share a folder.

The locks are the kernel's: they end with their process. Optuna's own are files, which a killed process leaves
behind.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import IO

from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock


class Journal:
    """A journal; it may hold several searches.

    Args:
        path: The file, which is created if necessary.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self) -> BaseStorage:
        """Opens the journal.

        Raises:
            ValueError: If it can't be read.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        repair_journal(self.path)
        try:
            return JournalStorage(JournalFileBackend(str(self.path), Lock(self.path)))
        except (ValueError, KeyError, TypeError) as error:  # Optuna's own does not name the file
            raise ValueError(f"{self.path} is no journal ({error!r}): delete it to search again") from error

    def lock(
        self, search: str, what: str, *, alone: bool = False, wait: bool = True
    ) -> AbstractContextManager[object]:
        """Holds one of the journal's locks, which its searches share."""
        return lock_file(self.path.with_name(f"{self.path.name}.{what}"), alone=alone, wait=wait)

    def name_errors(self) -> AbstractContextManager[object]:
        """Nothing more: `open` has read the whole file."""
        return nullcontext()


@contextmanager
def lock_file(path: Path, *, alone: bool, wait: bool = True) -> Iterator[IO[bytes]]:
    """Opens and locks a file, which is created if necessary.

    Raises:
        BlockingIOError: If it is not free and `wait` is false.
        ImportError: If the system lacks such locks.
    """
    import fcntl  # only on POSIX; a search in memory does not need it

    with path.open("ab") as file:
        fcntl.flock(file, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | (0 if wait else fcntl.LOCK_NB))
        yield file


class Lock(JournalFileOpenLock):
    """The lock of the journal's writes.

    Args:
        path: The journal.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.path = path
        self.holding: list[AbstractContextManager[object]] = []

    def acquire(self) -> bool:
        """Waits for the lock."""
        lock = lock_file(self.path, alone=True)
        lock.__enter__()
        self.holding.append(lock)
        return True

    def release(self) -> None:
        """Releases the lock."""
        self.holding.pop().__exit__(None, None, None)


def repair_journal(path: Path) -> None:
    """Cuts off an incomplete last line, which Optuna could not read."""
    with lock_file(path, alone=True):
        text = path.read_bytes()
        if not text.endswith(b"\n"):
            os.truncate(path, text.rfind(b"\n") + 1)
