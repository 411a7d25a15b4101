"""What a family of models is in a recipe: what its methods are, and how models are trained and examined."""

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
    """What differs between families of models."""

    name: ClassVar[str]
    """As methods and tasks name it."""

    @property
    def methods(self) -> Mapping[str, Method]:
        """The methods by name, with settings that suit."""
        ...

    def method_named(self, name: str) -> Method:
        """The method, stage or pipeline of a name, with settings that suit.

        Raises:
            ValueError: If there is none of that name for this family.
        """
        ...

    def space(self, name: str, method: Stage, budget: int) -> Mapping[str, Range]:
        """What a search of a method's settings chooses from; empty if it has nothing to search.

        Args:
            name: The method's name.
            method: With the settings that the search begins with.
            budget: The largest number of gradient evaluations that a run may spend.
        """
        ...

    def build(self, name: str, n_classes: int, settings: Mapping[str, int]) -> nn.Module:
        """A fresh model."""
        ...

    def source(self, data: Source) -> Source:
        """The data as such models take it."""
        ...

    def task(self, n_classes: int, forgotten: tuple[int, ...] = ()) -> Task:
        """How models are scored: while classes are forgotten, or while an original is trained."""
        ...

    def refuse_unfit(self, model: nn.Module, data: Source, name: str, n_classes: int) -> None:
        """Raises a ValueError if the model can't be run on the data."""
        ...

    def default_forget_set(self, data: Source, seed: int) -> torch.Tensor:
        """The positions of what could be forgotten, where nobody said what."""
        ...

    def short_exam(self, split: Split, *, cache: Path | None = None) -> Exam[Any]:
        """A short exam, for a look before and after; arguments are those of `exam`.

        Raises:
            ValueError: If such models can't be examined about the split.
        """
        ...

    def exam(
        self, split: Split, *, device: Device = None, searching: bool = False, cache: Path | None = None
    ) -> Exam[Any]:
        """The questions to a model about a split.

        Args:
            split: The data.
            device: Where models are; where each is if None.
            searching: Whether settings are searched, which must not see test data.
            cache: A folder that keeps what is trained for it.
        """
        ...
