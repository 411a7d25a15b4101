"""The family of classifiers: recipes and projects without a table of another family."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from unweave.audits.classifier.exam import ClassifierExam
from unweave.audits.exam import Exam, Glancing
from unweave.audits.metrics import Metric
from unweave.data import Source
from unweave.families.family import Device, Family
from unweave.split import Split
from unweave.tasks.classifier import Classifier, refuse_unfit
from unweave.tasks.models import build

__all__ = ["ClassifierFamily"]

GLANCE = 60_000
"""The largest number of examples of a part in a short exam: all of CIFAR-10's or MNIST's."""

ASSUMED = 0.1
"""The fraction of examples in the assumed forget set, without a request."""


@dataclass(frozen=True)
class ClassifierFamily(Family):
    """Models that say which class an example is of."""

    name: ClassVar[str] = Classifier.family
    noun: ClassVar[str] = "classifier"
    metrics: ClassVar[Mapping[str, Metric[Any]]] = ClassifierExam.metrics
    former_class: ClassVar[str | None] = "Classification"
    protocols: ClassVar[tuple[str, ...]] = ("deep-unlearn",)

    def build(self, name: str, n_classes: int, settings: Mapping[str, int]) -> nn.Module:
        """Builds a fresh classifier."""
        return build(name, n_classes, settings)

    def task(self, n_classes: int, forgotten: tuple[int, ...] = ()) -> Classifier:
        """Classification, whatever the forget set."""
        return Classifier(n_classes)

    def refuse_unfit(self, model: nn.Module, data: Source, name: str, n_classes: int) -> None:
        """Raises if the model can't be run on the data, or has no output for one of its labels."""
        refuse_unfit(model, data, name)

    def default_forget_set(self, data: Source, seed: int) -> torch.Tensor:
        """A random tenth of the data."""
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
        return order[: max(1, round(ASSUMED * len(data)))]

    def exam(
        self, split: Split, *, device: Device = None, searching: bool = False, cache: Path | None = None
    ) -> Exam[Any]:
        """The exam: logits, and attacks on features."""
        return ClassifierExam(split, device, "calibration" if searching else "test")

    def short_exam(self, split: Split, *, cache: Path | None = None) -> Glancing[Any]:
        """The exam of some examples of large parts."""
        return ClassifierExam(split, None, max_examples=GLANCE)
