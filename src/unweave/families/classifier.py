"""The family of classifiers in a recipe."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from unweave.audits.classifier.exam import Classified
from unweave.audits.exam import Exam
from unweave.data import Source
from unweave.families.family import Device
from unweave.methods import Method, method_named, methods_for
from unweave.methods.pipeline import Stage
from unweave.space import Range, Tunable
from unweave.split import Split
from unweave.tasks import Task
from unweave.tasks.classifier import Classifier, refuse_unfit
from unweave.tasks.models import build

ASSUMED = 0.1
"""The fraction of examples in the assumed forget set, without a request."""


@dataclass(frozen=True)
class Classification:
    """Models that say which class an example is of."""

    name: ClassVar[str] = Classifier.family

    @property
    def methods(self) -> Mapping[str, Method]:
        """All methods that support classifiers."""
        return methods_for(self.name)

    def method_named(self, name: str) -> Method:
        """The method with the settings of the registry."""
        return method_named(name, self.name)

    def space(self, name: str, method: Stage, budget: int) -> Mapping[str, Range]:
        """The method's own search space."""
        return method.space(budget) if isinstance(method, Tunable) else {}

    def build(self, name: str, n_classes: int, settings: Mapping[str, int]) -> nn.Module:
        """Builds a fresh classifier."""
        return build(name, n_classes, settings)

    def source(self, data: Source) -> Source:
        """The data, unchanged."""
        return data

    def task(self, n_classes: int, forgotten: tuple[int, ...] = ()) -> Task:
        """Classification, whatever the forget set."""
        return Classifier(n_classes)

    def refuse_unfit(self, model: nn.Module, data: Source, name: str, n_classes: int) -> None:
        """Raises if the model can't be run on the data, or has no output for one of its labels."""
        refuse_unfit(model, data, name)

    def default_forget_set(self, data: Source, seed: int) -> torch.Tensor:
        """A random tenth of the data."""
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
        return order[: max(1, round(ASSUMED * len(data)))]

    def short_exam(self, split: Split, *, cache: Path | None = None) -> Exam[Any]:
        """The whole exam, which is one pass over the data."""
        return Classified(split, None)

    def exam(
        self, split: Split, *, device: Device = None, searching: bool = False, cache: Path | None = None
    ) -> Exam[Any]:
        """The exam: logits, and attacks on features."""
        return Classified(split, device, "calibration" if searching else "test")
