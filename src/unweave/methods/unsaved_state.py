"""Refuses to save states of methods that remember what no state holds."""

from typing import Protocol, runtime_checkable

from unweave.descent.settings import Descent
from unweave.methods.configure import stages_of


@runtime_checkable
class HasUnsavedState(Protocol):
    """A method, a target or a descent that may remember something that no state holds."""

    @property
    def unsaved_state(self) -> str:
        """What no state holds; empty if all is saved."""
        ...


def refuse_unsaved_state(method: object, name: str) -> None:
    """Raises if a descent of a method saves no state, or it has no descent; `name` is that of the method."""
    advice = "leave --save-every out, or choose another method or setting"
    descends = False
    for prefix, stage in stages_of(method).items():
        settings = {f"{prefix}{field}": value for field, value in vars(stage).items()}
        for path, each in {prefix.rstrip("."): stage, **settings}.items():
            descends = descends or isinstance(each, Descent)
            if isinstance(each, HasUnsavedState) and each.unsaved_state:
                where = f"{path} of {name}" if path else name
                raise ValueError(
                    f"--save-every saves no state of {each.unsaved_state}, found in {where}: {advice}"
                )
    if not descends:
        raise ValueError(
            f"--save-every saves states between the steps of a descent, and {name} has none: {advice}"
        )
