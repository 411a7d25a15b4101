"""What a method says of itself, for the table of methods and for whoever chooses among them."""

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from unweave.tasks import Task, family_of

REFERENCE = "reference"
"""What stands in the place of a paper where a row is no method, but what methods are compared with."""


@dataclass(frozen=True)
class About:
    """The facts that a reader of a table needs.

    Args:
        paper: Authors, venue, number.
        data: The parts of the data that it needs.
        step: The cost of a step, in gradient evaluations.
        deviations: Where it differs from the paper or the released code; empty if nowhere.
        families: The families of models that it is for, as tasks name them; empty for all, those of a user's
            own tasks included.
    """

    paper: str
    data: str
    step: str
    deviations: str = ""
    families: tuple[str, ...] = ()

    def serves(self, family: str) -> bool:
        """Whether it is for models of that family."""
        return not self.families or family in self.families


@runtime_checkable
class Described(Protocol):
    """A method that says what it is; a user's own function need not."""

    about: ClassVar[About]


def refuse_family(method: object, task: Task) -> None:
    """Raises if a method says that it is not for models of the task's family."""
    if isinstance(method, Described) and not method.about.serves(family_of(task)):
        raise ValueError(
            f"{type(method).__name__} is for models of the family {' or '.join(method.about.families)}, "
            f"found {family_of(task)}: use another method"
        )
