"""A search that several processes may share, and that goes on where it was stopped: its trials in a journal.

Whoever works on trials holds a lock together with all who do. Whoever then gets it alone knows that nobody is
at a trial any more, so one that is still said to run was lost with its process, and is made again. The locks
are the kernel's: they end with the process that holds them, however it ends.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import StudyDirection
from optuna.trial import TrialState

LOG = "log"
"""The attribute of a trial that holds what it found."""

Log = Mapping[str, Any]


def open_study(place: Path | None, name: str, objectives: int = 1) -> optuna.Study:
    """The study of this name, with what others have done of it.

    Args:
        place: The journal; the study is kept in memory alone if None.
        name: Of the study; a journal may hold several.
        objectives: How many numbers a trial ends with, all to be small.

    Raises:
        ValueError: If the journal can't be read.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    small = [StudyDirection.MINIMIZE] * objectives
    if place is None:
        return optuna.create_study(directions=small, pruner=make_pruner())
    place.parent.mkdir(parents=True, exist_ok=True)
    lock = Lock(place)
    repair_journal(place, lock)
    try:
        storage = JournalStorage(JournalFileBackend(str(place), lock))
        with hold_lock(place, "claims", alone=True):  # two must not both make it
            return optuna.create_study(
                storage=storage, study_name=name, load_if_exists=True, directions=small, pruner=make_pruner()
            )
    except (ValueError, KeyError, TypeError) as error:  # Optuna says neither what it read nor where
        raise ValueError(f"{place} is no journal ({error!r}): delete it to search again") from error


def make_pruner() -> optuna.pruners.BasePruner:
    """Gives a trial up whose value, after a seed, is worse than the median of those that went through."""
    return optuna.pruners.MedianPruner(n_startup_trials=5)


def run_trials(
    study: optuna.Study,
    place: Path | None,
    trials: int,
    ask: Callable[[int], optuna.Trial],
    make: Callable[[optuna.Trial], Log],
) -> list[Log]:
    """The log of all trials, once there are so many; this process makes those that no other does.

    Args:
        study: From `open_study`.
        place: Its journal.
        trials: How many there are to be, whoever makes them.
        ask: Asks the study for the next, given the number of those before it.
        make: What a trial finds: among all else "value", None if it has none, and "pruned".
    """
    done = wait_for_trials(study, place, wait=False)
    while len(done) < trials:
        with hold_lock(place, "work"):
            while (asked := claim_trial(study, place, trials, ask)) is not None:
                asked.set_user_attr(LOG, make(asked))
                finish_trial(study, asked.number, asked.user_attrs[LOG])
        done = wait_for_trials(study, place, wait=True)
    return [{"number": number, **each.user_attrs[LOG]} for number, each in enumerate(done)]


def wait_for_trials(study: optuna.Study, place: Path | None, *, wait: bool) -> list[optuna.trial.FrozenTrial]:
    """The trials that are done, once nobody is at one and those that were lost are told apart.

    While somebody is, nothing can be said without waiting: then there are none.
    """
    try:
        with hold_lock(place, "work", alone=True, wait=wait):
            for lost in study.get_trials(states=(TrialState.RUNNING,)):
                finish_trial(study, lost.number, lost.user_attrs.get(LOG))
            return valid_trials(study)
    except BlockingIOError:
        return []


def claim_trial(
    study: optuna.Study, place: Path | None, trials: int, ask: Callable[[int], optuna.Trial]
) -> optuna.Trial | None:
    """The next trial, which is then this process's; None if others have claimed all that are left."""
    with hold_lock(place, "claims", alone=True):
        before = len(valid_trials(study))
        return ask(before) if before < trials else None


def valid_trials(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """The trials that are done or being made, without those that were lost."""
    trials = study.get_trials(deepcopy=False)
    return [each for each in trials if each.state is TrialState.RUNNING or LOG in each.user_attrs]


def has_untried(study: optuna.Study) -> bool:
    """Whether it holds settings that nobody has tried yet."""
    return bool(study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))


def finish_trial(study: optuna.Study, number: int, log: Log | None) -> None:
    """Tells the study what a trial found; without a log that it was lost."""
    if log is None:
        study.tell(number, state=TrialState.FAIL)
    elif log["value"] is None:
        study.tell(number, state=TrialState.PRUNED)
    else:
        study.tell(number, list(log["objectives"].values()) if "objectives" in log else log["value"])


def hold_lock(
    place: Path | None, what: str, *, alone: bool = False, wait: bool = True
) -> AbstractContextManager[object]:
    """Holds one of a journal's locks, with others or alone, once those who stand against it let it go.

    Raises:
        BlockingIOError: If they hold it, and it is not to wait.
    """
    if place is None:
        return nullcontext()
    return lock_file(place.with_name(f"{place.name}.{what}"), alone=alone, wait=wait)


@contextmanager
def lock_file(path: Path, *, alone: bool, wait: bool = True) -> Iterator[IO[bytes]]:
    """The file, which is made if need be, locked.

    Raises:
        ImportError: If the system has no such locks.
    """
    import fcntl  # POSIX alone has it; a search in memory does without

    with path.open("ab") as file:
        fcntl.flock(file, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | (0 if wait else fcntl.LOCK_NB))
        yield file


class Lock(JournalFileOpenLock):
    """The lock of the journal itself. Optuna's own are files, which a killed process leaves behind.

    Args:
        path: The journal.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.path = path
        self.holding: list[AbstractContextManager[object]] = []

    def acquire(self) -> bool:
        """Waits for it."""
        lock = lock_file(self.path, alone=True)
        lock.__enter__()
        self.holding.append(lock)
        return True

    def release(self) -> None:
        """Lets it go."""
        self.holding.pop().__exit__(None, None, None)


def repair_journal(path: Path, lock: Lock) -> None:
    """Cuts off a last line that was only half written, which Optuna could not read past."""
    lock.acquire()
    try:
        text = path.read_bytes()
        if not text.endswith(b"\n"):
            os.truncate(path, text.rfind(b"\n") + 1)
    finally:
        lock.release()
