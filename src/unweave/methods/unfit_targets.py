"""Refuses methods whose forget loss is a target for another family of models."""

from typing import Protocol, runtime_checkable

from unweave.methods.configure import stages_of
from unweave.targets import refuse_other_family


@runtime_checkable
class HasForgetTarget(Protocol):
    """A method whose forget loss is a setting."""

    forget: object


def refuse_unfit_targets(method: object, family: str, path: str) -> None:
    """Raises if a method or a stage has a target for another family; `path` names the method."""
    for prefix, stage in stages_of(method).items():
        if isinstance(stage, HasForgetTarget):
            refuse_other_family(stage.forget, family, f"{path}.{prefix}forget")
