"""Settings cut short for toys, whatever holds them: a method, a target's proxy, the stages of a pipeline."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import TypeVar, cast

from unweave.methods import Method
from unweave.methods.pipeline import Pipeline

T = TypeVar("T")


def each_within(settings: T, change: Callable[[object], object]) -> T:
    """The settings after a change of every dataclass in them, the innermost first."""
    if isinstance(settings, Pipeline):
        stages = (each_within(stage, change) for stage in settings.stages)
        return cast(T, Pipeline(*stages, names=settings.names))
    assert is_dataclass(settings) and not isinstance(settings, type)
    inner = {field.name: vars(settings)[field.name] for field in fields(settings)}
    changes = {name: each_within(value, change) for name, value in inner.items() if is_dataclass(value)}
    return cast(T, change(replace(settings, **changes)))


def stages_of(method: Method) -> tuple[object, ...]:
    """The stages of a pipeline; any other method is its own only one."""
    return method.stages if isinstance(method, Pipeline) else (method,)
