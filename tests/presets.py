"""The settings for denoisers, cut short for toys."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from unweave.descend import Descent
from unweave.generate.sample import Sampler
from unweave.methods import Method

SHORT: Mapping[str, Any] = {"recover": 2, "per_class": 5, "fisher_images": 6}
"""Fields that cost time."""


def soon(method: Method, *, steps: int = 3, **changes: Any) -> Method:
    """The same method in a few steps of small batches."""
    assert is_dataclass(method)
    changed: dict[str, Any] = {}
    for name in (field.name for field in fields(method)):
        value = vars(method)[name]
        if isinstance(value, Descent):
            changed[name] = replace(value, steps=steps, epochs=None, batch=16, forget_batch=8, **changes)
        elif isinstance(value, Sampler):
            changed[name] = replace(value, steps=3)
        elif name in SHORT:
            changed[name] = min(value, SHORT[name])
        elif name == "proxy":
            changed[name] = replace(value, how=replace(value.how, steps=steps, epochs=None, batch=16))
    return replace(method, **changed)
