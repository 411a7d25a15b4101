"""A search that several processes can share and that can be resumed: its trials are in a journal.

Every process with a trial holds a shared lock. A process that gets the lock exclusively knows that no trial
is running, so a trial still marked as running was lost with its process and is repeated. The locks are the
kernel's: they end with their process.
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
"""The attribute of a trial that holds its log."""

Log = Mapping[str, Any]


def open_study(place: Path | None, name: str, objectives: int = 1) -> optuna.Study:
    """Opens the study of this name, with the trials of all processes.

    Args:
        place: The journal; the study is only in memory if None.
        name: The name of the study; a journal may hold several.
        objectives: The number of objectives to minimise.

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
        with hold_lock(place, "claims", alone=True):  # only one process may create it
            return optuna.create_study(
                storage=storage, study_name=name, load_if_exists=True, directions=small, pruner=make_pruner()
            )
    except (ValueError, KeyError, TypeError) as error:  # Optuna's error names neither the file nor the place
        raise ValueError(f"{place} is no journal ({error!r}): delete it to search again") from error


def make_pruner() -> optuna.pruners.BasePruner:
    """Stops a trial whose value after a seed is worse than the median of finished trials."""
    return optuna.pruners.MedianPruner(n_startup_trials=5)


def run_trials(
    study: optuna.Study,
    place: Path | None,
    trials: int,
    ask: Callable[[int], optuna.Trial],
    make: Callable[[optuna.Trial], Log],
) -> list[Log]:
    """Runs trials, shared with other processes, until there are `trials`; returns the log of all.

    Args:
        study: The study from `open_study`.
        place: Its journal.
        trials: The number of trials of all processes together.
        ask: Asks the study for the next trial, given the number of earlier ones.
        make: Runs a trial; returns its log with "value", None without one, and "pruned".
    """
    finished_trials = wait_for_trials(study, place, wait=False)
    while len(finished_trials) < trials:
        with hold_lock(place, "work"):
            while (trial := claim_trial(study, place, trials, ask)) is not None:
                trial.set_user_attr(LOG, make(trial))
                finish_trial(study, trial.number, trial.user_attrs[LOG])
        finished_trials = wait_for_trials(study, place, wait=True)
    return [{"number": number, **each.user_attrs[LOG]} for number, each in enumerate(finished_trials)]


def wait_for_trials(study: optuna.Study, place: Path | None, *, wait: bool) -> list[optuna.trial.FrozenTrial]:
    """The finished trials, once no trial is running; marks lost trials.

    Without `wait`, returns none while a trial is running.
    """
    try:
        with hold_lock(place, "work", alone=True, wait=wait):
            for trial in study.get_trials(states=(TrialState.RUNNING,)):
                finish_trial(study, trial.number, trial.user_attrs.get(LOG))
            return valid_trials(study)
    except BlockingIOError:
        return []


def claim_trial(
    study: optuna.Study, place: Path | None, trials: int, ask: Callable[[int], optuna.Trial]
) -> optuna.Trial | None:
    """Claims the next trial for this process; None if other processes have claimed the rest."""
    with hold_lock(place, "claims", alone=True):
        before = len(valid_trials(study))
        return ask(before) if before < trials else None


def valid_trials(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """The finished and running trials, without lost ones."""
    trials = study.get_trials(deepcopy=False)
    return [each for each in trials if each.state is TrialState.RUNNING or LOG in each.user_attrs]


def has_untried(study: optuna.Study) -> bool:
    """Whether the study holds settings that have not been tried yet."""
    return bool(study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))


def finish_trial(study: optuna.Study, number: int, log: Log | None) -> None:
    """Reports the log of a trial to the study; without a log, that it was lost."""
    if log is None:
        study.tell(number, state=TrialState.FAIL)
    elif log["value"] is None:
        study.tell(number, state=TrialState.PRUNED)
    else:
        study.tell(number, list(log["objectives"].values()) if "objectives" in log else log["value"])


def hold_lock(
    place: Path | None, what: str, *, alone: bool = False, wait: bool = True
) -> AbstractContextManager[object]:
    """Holds one of a journal's locks, shared or exclusively, once it is free.

    Raises:
        BlockingIOError: If it is not free and `wait` is false.
    """
    if place is None:
        return nullcontext()
    return lock_file(place.with_name(f"{place.name}.{what}"), alone=alone, wait=wait)


@contextmanager
def lock_file(path: Path, *, alone: bool, wait: bool = True) -> Iterator[IO[bytes]]:
    """Opens and locks a file, which is created if necessary.

    Raises:
        ImportError: If the system lacks such locks.
    """
    import fcntl  # only on POSIX; a search in memory does not need it

    with path.open("ab") as file:
        fcntl.flock(file, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | (0 if wait else fcntl.LOCK_NB))
        yield file


class Lock(JournalFileOpenLock):
    """The lock of the journal itself. Optuna's own locks are files, which a killed process leaves behind.

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


def repair_journal(path: Path, lock: Lock) -> None:
    """Cuts off an incomplete last line, which Optuna could not read."""
    lock.acquire()
    try:
        text = path.read_bytes()
        if not text.endswith(b"\n"):
            os.truncate(path, text.rfind(b"\n") + 1)
    finally:
        lock.release()
