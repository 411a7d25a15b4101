"""The settings for denoisers, cut short for toys."""

from dataclasses import replace
from typing import Any, TypeVar

from shorten import each_within
from unweave.descent.descend import Descent
from unweave.methods import Method
from unweave.methods.sa import SelectiveAmnesia
from unweave.tasks.diffusion.sampler import Sampler

M = TypeVar("M", bound=Method)


def soon(method: M, *, steps: int = 3, **changes: Any) -> M:
    """The same method in a few steps of small batches."""

    def change(each: object) -> object:
        match each:
            case Descent():
                small = {"steps": steps, "epochs": None, "batch": 16, "forget_batch": 8}
                return replace(each, **small | changes)
            case Sampler():
                return replace(each, steps=3)
            case SelectiveAmnesia():
                images = min(each.fisher_images or 6, 6)
                return replace(each, per_class=min(each.per_class, 5), fisher_images=images)
        return each

    return each_within(method, change)
