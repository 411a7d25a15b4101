"""What every MODEL becomes: a model with its data, and what is known of the two."""

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unweave.bench.split_data import CLASSIFIERS
from unweave.data import Source
from unweave.families.family import Family
from unweave.methods import Method
from unweave.split import Split
from unweave.tasks import Task

Retraining = Callable[[Split, int], nn.Module]
"""Trains a model of a seed on the retain part of a split."""
Write = Callable[[nn.Module, Path, Mapping[str, object]], object]
"""Writes a model into a folder, with what is said of it."""


@dataclass(frozen=True)
class Project:
    """A model with its data, wherever the two come from.

    Args:
        facts: What tells it from any other, as JSON knows it: part of what a run depends on.
        train: The data that the model was trained on.
        test: Data that it never saw.
        calibration: The part of that which is set aside: a fraction, or positions.
        family: What kind of model it is.
        model: The original; None where it comes from a recipe and is not trained yet.
        forget: What a recipe forgets; None where only the user can say.
        methods: The methods, as they are set for it.
        named: Finds a method, stage or pipeline by its name, set alike.
        original: Trains the original of a seed, kept in a folder if one is given; None beside `model`.
        retrain: Trains a model of a seed on the retain part of a split; None where nobody said how.
        build: Makes a model with fresh weights; None where that is left to the model's own modules.
        source: The folder of a model that keeps its form, and is never written to.
        forgotten: The classes that the model forgot before, as its manifest says.
        write: Writes another model as a folder of diffusers, and what is said of it: as a copy of the source
            with other weights where there is one. None for other models.
    """

    facts: Mapping[str, Any]
    train: Source
    test: Source
    calibration: float | Sequence[int]
    family: Family = CLASSIFIERS
    model: nn.Module | None = None
    forget: torch.Tensor | None = None
    methods: Mapping[str, Method] = dataclasses.field(default_factory=lambda: CLASSIFIERS.methods)
    named: Callable[[str], Method] = CLASSIFIERS.method_named
    original: Callable[[int, Path | None], nn.Module] | None = None
    retrain: Retraining | None = None
    build: Callable[[], nn.Module] | None = None
    source: Path | None = None
    write: Write | None = None
    forgotten: Sequence[int] = ()

    @property
    def scratch(self) -> Method | None:
        """Retraining as a recipe describes it; None where that is a user's own code, or nobody said how."""
        return None if self.build is None or self.retrain is None else self.methods["retrain"]

    def method(self, name: str) -> Method:
        """The method or pipeline of that name."""
        return self.methods[name] if name in self.methods else self.named(name)

    def task(self, split: Split) -> Task:
        """How the model is scored while it forgets."""
        return self.family.task(split.n_classes, split.forgotten_classes)

    def split(self, forget: torch.Tensor) -> Split:
        """The data, cut by what is to be forgotten.

        Raises:
            ValueError: If examples of what the model forgot before would be retained, and learned again.
        """
        split = Split(self.train, forget, self.test, calibration=self.calibration)
        labels = split.train.labels
        for label in self.forgotten:
            if bool((labels[split.retain] == label).any()):
                raise ValueError(
                    f"class {label} was forgotten before, and its examples in the data would be learned "
                    f"again: forget them too (as in --class {label},...)"
                )
        return split

    def to_device(self, device: str | None) -> tuple[nn.Module, "Project"]:
        """A copy of the model, whatever its weights, and the project with its data, both on one device.

        Args:
            device: The device; that of the model if None.
        """
        model = copy.deepcopy(self.fresh_model())
        place = device or str(next(model.parameters()).device)
        on_device = dataclasses.replace(self, train=self.train.to(place), test=self.test.to(place))
        return model.to(place), on_device

    def fresh_model(self) -> nn.Module:
        """A model of this architecture, whatever its weights."""
        if self.model is not None:
            return self.model
        assert self.build is not None
        return self.build()
