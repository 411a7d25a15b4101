"""The files of one retrained model: its answers, its weights, and what each attack kept of it.

No file is replaced: a later audit with other attacks examines the stored model, and adds what they keep. Two
audits that share a folder take turns at each model, by a lock that ends with its process.
"""

import copy
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout
from torch import Tensor, nn

from unweave.audits.answers import Answers, Measurements
from unweave.audits.attack import EXAMINING_FORMAT, Examiner
from unweave.audits.exam import Outputs, Storing
from unweave.record import checkpoint
from unweave.record.files import read_object, write_atomically
from unweave.weights.cost import Cost
from unweave.weights.processes import Processes
from unweave.weights.sharded_model import whole_state

log = logging.getLogger(__name__)

LOCK = ".lock"
"""The suffix of a lock's file, which is empty and goes with the lock."""


@dataclass(frozen=True)
class ReferenceFiles:
    """Where one retrained model is stored.

    Args:
        facts: The JSON file with its probes and its cost, written last. The answers are beside it, and the
            weights in a folder of its name.
        code: The digest of the `train` that makes it.
    """

    facts: Path
    code: str

    @property
    def folder(self) -> Path:
        """The folder of the weights, and of what attacks kept."""
        return self.facts.with_suffix("")

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Holds the model's lock for the body, once it is free; of several processes, the first holds it.

        Stored answers are read without a lock in a folder without the right to write.

        Raises:
            ValueError: If nothing is stored, and the folder can't be written.
        """
        place = self.facts.with_suffix(LOCK)
        new_folders = [each for each in place.parents if not each.exists()]
        lock = FileLock(place)
        with ExitStack() as stack:
            stack.callback(Processes.current().from_first, lambda: remove_traces(place, new_folders))

            def wait() -> None:
                place.parent.mkdir(parents=True, exist_ok=True)
                try:
                    stack.enter_context(lock.acquire(timeout=0))
                except Timeout:
                    log.warning("waiting for another audit, which is making %s", self.facts)
                    stack.enter_context(lock.acquire())

            Processes.current().from_first(lambda: self._lock_or_read(wait))
            yield

    def _lock_or_read(self, lock: Callable[[], None]) -> None:
        """Locks, unless the model is stored in a folder that can't be written."""
        try:
            lock()
        except OSError as error:
            if not self.facts.exists():
                raise ValueError(
                    f"expected a folder that retrained models can be written to, found {self.facts.parent} "
                    f"({error}): give another one, or the right to write there"
                ) from error

    def is_stored(self) -> bool:
        """Whether the model and its answers are stored."""
        return Processes.current().from_first(self.facts.exists)

    def write(
        self, answers: Answers[Outputs], model: nn.Module, exam: Storing[Outputs], *, keep_model: bool = True
    ) -> None:
        """Stores a model and its answers, or these alone, instead of one whose facts were deleted."""
        state = whole_state(model) if keep_model else {}
        Processes.current().from_first(lambda: self._write(answers, state, exam))

    def _write(self, answers: Answers[Outputs], state: Mapping[str, Tensor], exam: Storing[Outputs]) -> None:
        assert answers.cost is not None
        self.folder.mkdir(parents=True, exist_ok=True)
        for stale in (*self.folder.glob("attacks-*.json"), *self.folder.glob("model.*")):
            stale.unlink()
        exam.save(answers.outputs, self.facts.with_suffix(f".{exam.suffix}"))
        if state:
            checkpoint.save(self.folder, state, {"code": self.code})
        content = {"code": self.code, "probes": dict(answers.probes), "cost": asdict(answers.cost)}
        write_atomically(self.facts, json.dumps(content))

    def read(self, exam: Storing[Outputs]) -> Answers[Outputs]:
        """The answers.

        Raises:
            ValueError: If another `train` made the model.
        """
        content = read_object(self.facts, ": delete it")
        if content.get("code") != self.code:
            raise ValueError(
                f"{self.facts} has the answers of a model that another train() made: give this one another "
                "folder, or delete that one"
            )
        outputs = exam.open(self.facts.with_suffix(f".{exam.suffix}"))
        return Answers(outputs, content["probes"], Cost(**content["cost"]))

    def examine(self, examiner: Examiner, model: nn.Module | None = None) -> Mapping[str, Measurements]:
        """What attacks keep of the model, beside one original; only what is not stored is examined.

        Args:
            examiner: The attacks.
            model: The model, if it was just trained; None reads the stored one.

        Raises:
            ValueError: If an attack needs the model, and its weights are not stored or do not fit.
        """
        place = self.folder / f"attacks-{examiner.original_digest[:16]}-{EXAMINING_FORMAT}.json"
        from_first = Processes.current().from_first
        measurements = from_first(lambda: read_object(place, ": delete it") if place.exists() else {})
        missing_attacks = [attack for attack in examiner.attacks if attack.name not in measurements]
        if missing_attacks:
            if model is None:
                model = self.load_model(examiner.original, missing_attacks[0].name)
            measurements |= replace(examiner, attacks=missing_attacks)(model)
            from_first(lambda: write_atomically(place, json.dumps(measurements)))
        return {name: measurements[name] for name in examiner.names}

    def load_model(self, original: nn.Module, attack: str) -> nn.Module:
        """The stored model, as a copy of the original with other weights."""
        if not (self.folder / checkpoint.WEIGHTS).exists():
            raise ValueError(
                f"the attack {attack} needs the retrained models, found no weights beside {self.facts}: "
                "delete that file to retrain its model, or leave the attack out"
            )
        model = copy.deepcopy(original)
        checkpoint.load(self.folder, model)
        return model


def remove_traces(lock: Path, folders: Sequence[Path]) -> None:
    """Removes a lock's file, and those of the folders that are empty, the innermost first.

    An audit that waits for the removed file may run beside one that makes it anew: both store the same model.
    """
    with suppress(OSError):
        lock.unlink(missing_ok=True)
        for folder in folders:
            folder.rmdir()
