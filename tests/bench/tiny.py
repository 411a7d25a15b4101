"""A recipe that runs in a moment, and a method to tune on it."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from unweave.bench.recipe import Recipe, parse
from unweave.methods.about import About
from unweave.problem import Problem
from unweave.space import Choice, Range, Uniform

METHODS = ("lur", "lur:recover", "finetune", "short-retrain")


def tiny(**changes: object) -> Recipe:
    """Digits cut down to 300 images and 16 hidden units, two seeds of either kind, methods of six steps."""
    settings = {"how": {"steps": 6}}
    recover = {"until": None, "how": {"steps": 4}}
    table = {
        "name": "tiny",
        "data": {"name": "digits", "limit": 300, "noise": 0.2},
        "model": {"name": "mlp", "settings": {"hidden": 16}},
        "train": {"lr": 0.2, "steps": 40, "batch": 64},
        "seeds": [0, 1],
        "calibration_seeds": [100, 101],
        "methods": {
            "lur": settings,
            "lur:recover": {"lur": settings, "recover": recover},
            "finetune": settings,
        },
    }
    return parse({**table, **changes})


@dataclass(frozen=True)
class Drift:
    """Adds the same displacement to every weight, so that less is better; "stop" raises."""

    about: ClassVar[About] = About("none", "none", "0")
    by: float = 0.5
    fate: str = "go"

    def space(self, budget: int) -> Mapping[str, Range]:
        return {"by": Uniform(0.0, 1.0), "fate": Choice((self.fate,))}

    @torch.no_grad()
    def __call__(self, problem: Problem) -> None:
        if self.fate == "stop":
            raise ValueError("this method never works")
        for p in problem.params.values():
            p.add_(float("nan") if self.fate == "nan" else self.by)


def with_drift(drift: Drift) -> Recipe:
    """The tiny recipe with that method in the place of fine-tuning."""
    recipe = tiny()
    return dataclasses.replace(recipe, methods={**recipe.methods, "finetune": drift})
