"""Facts about a method, for the table of methods."""

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from unweave.tasks import Task, family_of

__all__ = ["About", "refuse_family"]

REFERENCE = "reference"
"""Replaces the paper of rows that are no method, but references to compare methods with."""


@dataclass(frozen=True)
class About:
    """The facts about a method in the table of methods.

    Args:
        paper: Authors, venue, number.
        data: The parts of the data that it needs.
        step: The cost of a step, in gradient evaluations.
        deviations: Where it differs from the paper or the released code; empty if nowhere.
        families: The families of models that it supports, as named by tasks; empty for all, including a
            user's own.
        edits: What it does to weights themselves beside gradient steps, as a verb with its object; empty if
            nothing. Such a method can't train additions to the weights instead.
    """

    paper: str
    data: str
    step: str
    deviations: str = ""
    families: tuple[str, ...] = ()
    edits: str = ""

    def serves(self, family: str) -> bool:
        """Whether the method supports a family."""
        return not self.families or family in self.families


@runtime_checkable
class HasAbout(Protocol):
    """A method with facts; a user's own function needs none."""

    about: ClassVar[About]


@runtime_checkable
class NeedsFreshWeights(Protocol):
    """A method that says whether it needs a model with fresh weights."""

    needs_fresh_weights: bool


def needs_fresh_weights(method: object) -> bool:
    """Whether a method needs a model with fresh weights."""
    return isinstance(method, NeedsFreshWeights) and method.needs_fresh_weights


def refuse_no_method(method: object, what: str) -> None:
    """Raises if something is no method, such as a name, a class or a list."""
    if isinstance(method, type):
        raise ValueError(f"{what} must be an object, found the class {method.__name__}: call it first")
    if not callable(method):
        raise ValueError(
            f"{what} must be a method such as LUR(), found {method!r}: unweave.methods.method_named() makes "
            "one from a name, and Pipeline(*methods) from several methods"
        )


def refuse_family(method: object, task: Task) -> None:
    """Raises if a method does not support the family of the task."""
    if isinstance(method, HasAbout) and not method.about.serves(family_of(task)):
        raise ValueError(
            f"{type(method).__name__} is for models of the family {' or '.join(method.about.families)}, "
            f"found {family_of(task)}: use another method"
        )
