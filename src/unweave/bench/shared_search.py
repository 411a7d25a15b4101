"""A search that several processes can share and that can be resumed: its trials are in a storage.

Every process with a trial holds a shared lock. A process that gets the lock exclusively knows that no trial
is running, so a trial still marked as running was lost with its process and is repeated. A lock ends with
its process.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import optuna
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState

from unweave.bench.database import Database
from unweave.bench.journal import Journal

LOG = "log"
"""The attribute of a trial that holds its log."""

Log = Mapping[str, Any]


@runtime_checkable
class Storage(Protocol):
    """Where the trials of searches are."""

    def open(self) -> BaseStorage:
        """Opens it for Optuna."""
        ...

    def lock(
        self, search: str, what: str, *, alone: bool = False, wait: bool = True
    ) -> AbstractContextManager[object]:
        """Holds a lock of a search, shared or exclusively, once it is free.

        Raises:
            BlockingIOError: If it is not free and `wait` is false.
        """
        ...

    def name_errors(self) -> AbstractContextManager[object]:
        """Names the storage in the errors that it causes in the body."""
        ...


class InMemory:
    """The storage of a search that nobody shares or resumes."""

    def open(self) -> BaseStorage:
        """An empty storage."""
        return InMemoryStorage()

    def lock(
        self, search: str, what: str, *, alone: bool = False, wait: bool = True
    ) -> AbstractContextManager[object]:
        """Nothing: there is no other process."""
        return nullcontext()

    def name_errors(self) -> AbstractContextManager[object]:
        """Nothing: memory has no errors."""
        return nullcontext()


def storage_at(place: Path | str | None) -> Storage:
    """The journal at a path, the database at a URL, or the memory."""
    if place is None:
        return InMemory()
    return Journal(place) if isinstance(place, Path) else Database(place)


def open_study(storage: Storage, name: str, objectives: int = 1) -> optuna.Study:
    """Opens the study of this name, with the trials of all processes.

    Args:
        storage: The storage, which may hold several studies.
        name: The name of the study.
        objectives: The number of objectives to minimise.

    Raises:
        ValueError: If a journal can't be read.
        Failed: If a database is lost.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    directions = [StudyDirection.MINIMIZE] * objectives
    # stops a trial whose value after a seed is worse than the median of finished trials
    pruner = optuna.pruners.MedianPruner(n_startup_trials=5)
    with storage.name_errors():
        trials = storage.open()
        with storage.lock(name, "claims", alone=True):  # only one process may create it
            return optuna.create_study(
                storage=trials, study_name=name, load_if_exists=True, directions=directions, pruner=pruner
            )


def run_trials(
    study: optuna.Study,
    storage: Storage,
    trials: int,
    ask: Callable[[int], optuna.Trial],
    make: Callable[[optuna.Trial], Log],
) -> list[Log]:
    """Runs trials, shared with other processes, until there are `trials`; returns the log of all.

    Args:
        study: The study from `open_study`.
        storage: Its storage.
        trials: The number of trials of all processes together.
        ask: Asks the study for the next trial, given the number of earlier ones.
        make: Runs a trial; returns its log with "value", None without one, and "pruned".
    """
    with storage.name_errors():
        finished_trials = wait_for_trials(study, storage, wait=False)
        while len(finished_trials) < trials:
            with storage.lock(study.study_name, "work"):
                while (trial := claim_trial(study, storage, trials, ask)) is not None:
                    trial.set_user_attr(LOG, make(trial))
                    finish_trial(study, trial.number, trial.user_attrs[LOG])
            finished_trials = wait_for_trials(study, storage, wait=True)
    return [{"number": number, **each.user_attrs[LOG]} for number, each in enumerate(finished_trials)]


def wait_for_trials(study: optuna.Study, storage: Storage, *, wait: bool) -> list[optuna.trial.FrozenTrial]:
    """The finished trials, once no trial is running; marks lost trials.

    Without `wait`, returns none while a trial is running.
    """
    try:
        with storage.lock(study.study_name, "work", alone=True, wait=wait):
            for trial in study.get_trials(states=(TrialState.RUNNING,)):
                finish_trial(study, trial.number, trial.user_attrs.get(LOG))
            return valid_trials(study)
    except BlockingIOError:
        return []


def claim_trial(
    study: optuna.Study, storage: Storage, trials: int, ask: Callable[[int], optuna.Trial]
) -> optuna.Trial | None:
    """Claims the next trial for this process; None if other processes have claimed the rest."""
    with storage.lock(study.study_name, "claims", alone=True):
        count = len(valid_trials(study))
        return ask(count) if count < trials else None


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
