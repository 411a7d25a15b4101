"""A family of models: its methods, and how its models are built, trained and audited."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import nn

from unweave.audits.exam import Exam
from unweave.data import Source
from unweave.methods import Method
from unweave.methods.pipeline import Stage
from unweave.space import Range
from unweave.split import Split
from unweave.tasks import Task

Device = torch.device | str | None


@runtime_checkable
class Family(Protocol):
    """Everything that differs between families of models."""

    name: ClassVar[str]
    """As methods and tasks name it."""

    @property
    def methods(self) -> Mapping[str, Method]:
        """The methods by name, with settings for this family."""
        ...

    def method_named(self, name: str) -> Method:
        """The method, stage or pipeline of a name, with settings for this family.

        Raises:
            ValueError: If this family has none of that name.
        """
        ...

    def space(self, name: str, method: Stage, budget: int) -> Mapping[str, Range]:
        """The search space of a method; empty if it has nothing to search.

        Args:
            name: The method's name.
            method: The method with the first settings of the search.
            budget: The largest number of gradient evaluations that a run may spend.
        """
        ...

    def build(self, name: str, n_classes: int, settings: Mapping[str, int]) -> nn.Module:
        """Builds a fresh model."""
        ...

    def source(self, data: Source) -> Source:
        """Converts data for models of this family."""
        ...

    def task(self, n_classes: int, forgotten: tuple[int, ...] = ()) -> Task:
        """The task of the models, while classes are forgotten or an original is trained."""
        ...

    def refuse_unfit(self, model: nn.Module, data: Source, name: str, n_classes: int) -> None:
        """Raises a ValueError if the model can't be run on the data."""
        ...

    def default_forget_set(self, data: Source, seed: int) -> torch.Tensor:
        """The positions of a forget set to assume without a request."""
        ...

    def short_exam(self, split: Split, *, cache: Path | None = None) -> Exam[Any]:
        """A short exam, before and after unlearning; arguments are those of `exam`.

        Raises:
            ValueError: If the split does not allow an exam of this family.
        """
        ...

    def exam(
        self, split: Split, *, device: Device = None, searching: bool = False, cache: Path | None = None
    ) -> Exam[Any]:
        """The exam of models on a split.

        Args:
            split: The data.
            device: The device of the models; that of each model if None.
            searching: Whether this is a search of settings, which must not use test data.
            cache: The folder that stores models trained for the exam.
        """
        ...
