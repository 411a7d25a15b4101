"""Projects: every MODEL becomes a model with its data and the facts about both."""

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unweave.data import Source
from unweave.families import DEFAULT_FAMILY
from unweave.families.family import Family, Write
from unweave.methods import Method
from unweave.methods.about import needs_fresh_weights
from unweave.problem import refuse_undrawable_weights
from unweave.split import Split
from unweave.tasks import Task

Retraining = Callable[[Split, int], nn.Module]
"""Trains a model with a seed on the retain set of a split."""


@dataclass(frozen=True)
class Project:
    """A model with its data, of any origin.

    Args:
        facts: The facts that identify it, as JSON values; a run depends on them.
        train: The training data of the model.
        test: Held-out data.
        calibration: The part of `test` for calibration: a fraction, or positions.
        family: The family of the model.
        model: The original; None if it comes from a recipe and is not trained yet.
        forget: The forget set of a recipe; None if only the user can name one.
        methods: The methods, with settings for it.
        find_method: Finds a method, stage or pipeline by its name, with such settings.
        headline: The method of a recipe that runs if none is named; that of the family if None.
        original: Trains the original of a seed, stored in a folder if one is given; None if `model` is given.
        retrain: Trains a model with a seed on the retain set of a split; None if there is no way to.
        build: Makes a model with fresh weights; None if the model's modules redraw themselves.
        source: The folder of a model with its own format, which is never changed.
        forgotten: The classes forgotten by earlier edits, from its manifest.
        write: Writes another model and facts about it in the family's own format, as a copy of the source
            with new weights if there is one. None without such a format.
    """

    facts: Mapping[str, Any]
    train: Source
    test: Source
    calibration: float | Sequence[int]
    family: Family = DEFAULT_FAMILY
    model: nn.Module | None = None
    forget: torch.Tensor | None = None
    methods: Mapping[str, Method] = dataclasses.field(default_factory=lambda: DEFAULT_FAMILY.methods)
    find_method: Callable[[str], Method] = DEFAULT_FAMILY.method_named
    headline: str | None = None
    original: Callable[[int, Path | None], nn.Module] | None = None
    retrain: Retraining | None = None
    build: Callable[[], nn.Module] | None = None
    source: Path | None = None
    write: Write | None = None
    forgotten_classes: Sequence[int] = ()

    @property
    def scratch(self) -> Method | None:
        """The retraining of a recipe; None if it is a user's own code, or there is none."""
        return None if self.build is None or self.retrain is None else self.methods["retrain"]

    @property
    def default_method(self) -> str:
        """The name of the method that runs if none is named."""
        return self.headline or self.family.usual_methods[0]

    def method(self, name: str) -> Method:
        """The method or pipeline of that name."""
        return self.methods[name] if name in self.methods else self.find_method(name)

    def refuse_undrawable_method(self, method: object, name: str) -> None:
        """Raises, before any computation, if a method needs fresh weights that the given model can't draw."""
        if self.build is None and self.model is not None and needs_fresh_weights(method):
            try:
                refuse_undrawable_weights(self.model)
            except ValueError as error:
                raise ValueError(f"{name} needs fresh weights, and {error}") from error

    def task(self, split: Split) -> Task:
        """The task of the model during unlearning."""
        return self.family.task(split.n_classes, split.forgotten_classes)

    def split(self, forget: torch.Tensor) -> Split:
        """The split of a forget set.

        Raises:
            ValueError: If examples of earlier forgotten classes would be in the retain set, and learned
                again.
        """
        split = Split(self.train, forget, self.test, calibration=self.calibration)
        labels = split.train.labels
        for label in self.forgotten_classes:
            if bool((labels[split.retain] == label).any()):
                raise ValueError(
                    f"class {label} was forgotten before, and its examples in the data would be learned "
                    f"again: forget them too (as in --class {label},...)"
                )
        return split

    def to_device(self, device: str | None) -> tuple[nn.Module, "Project"]:
        """The model, with any weights, and the project with its data, both on one device.

        The model is a copy if it is on another device.

        Args:
            device: The device; that of the model if None.
        """
        model = self.fresh_model()
        model_device = next(model.parameters()).device
        place = model_device if device is None else torch.device(device)
        on_device = dataclasses.replace(self, train=self.train.to(place), test=self.test.to(place))
        return model if place == model_device else copy.deepcopy(model).to(place), on_device

    def fresh_model(self) -> nn.Module:
        """A model of this architecture, with any weights."""
        if self.model is not None:
            return self.model
        assert self.build is not None
        return self.build()
