"""A family of models: its methods, and how its models are built, trained and audited."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import nn

from unweave.audits.exam import Exam, Glancing
from unweave.audits.metrics import Metric
from unweave.data import Source
from unweave.methods import DEFAULT, Method, method_named, methods_for
from unweave.methods.pipeline import Stage
from unweave.space import Range, Tunable
from unweave.split import Split
from unweave.tasks import Task

__all__ = ["Family"]

Device = torch.device | str | None
Write = Callable[[nn.Module, Path, Mapping[str, object]], object]
"""Writes a model into a folder, with facts about it."""


@runtime_checkable
class Family(Protocol):
    """Everything that differs between families of models.

    A family is a frozen dataclass of settings that inherits from this class. Each setting has a default.
    """

    name: ClassVar[str]
    """The word for the family, as methods and tasks use it."""
    noun: ClassVar[str]
    """What such a model is called, in messages: "classifier"."""
    table: ClassVar[str | None] = None
    """The key of its table in recipes and projects; None for the family of those without a table."""
    metrics: ClassVar[Mapping[str, Metric[Any]]]
    """All metrics of its exam, by id."""
    aim: ClassVar[str] = "Retrain is the target of every column; none is better when larger."
    """A sentence on good values, below a table."""
    usual_methods: ClassVar[tuple[str, ...]] = (DEFAULT, "joint:recover", "neggrad+:recover", "finetune")
    """The methods that `check` prices if none are named; the first is the default of `forget`."""
    whole_classes: ClassVar[bool] = False
    """Whether a forget set must be made of whole classes."""
    protocols: ClassVar[tuple[str, ...]] = ()
    """The published benchmarks whose figures its exam has (see `unweave.report.protocol`)."""

    former_class: ClassVar[str | None] = None
    """The class name that keys of caches keep after the class was renamed; subclasses do not share it."""

    @property
    def key(self) -> str:
        """The family and its settings, for keys of caches."""
        former_name = vars(type(self)).get("former_class")
        return repr(self).replace(type(self).__name__, former_name, 1) if former_name else repr(self)

    @property
    def methods(self) -> Mapping[str, Method]:
        """The methods by name, with settings for this family; by default those of the registry."""
        return methods_for(self.name)

    def method_named(self, name: str) -> Method:
        """The method, stage or pipeline of a name, with settings for this family.

        Raises:
            ValueError: If this family has none of that name.
        """
        return method_named(name, self.name)

    def space(self, name: str, method: Stage, budget: int) -> Mapping[str, Range]:
        """The search space of a method, by default its own; empty if it has nothing to search.

        Args:
            name: The method's name.
            method: The method with the first settings of the search.
            budget: The largest number of gradient evaluations that a run may spend.
        """
        return method.space(budget) if isinstance(method, Tunable) else {}

    @abstractmethod
    def build(self, name: str, n_classes: int, settings: Mapping[str, int]) -> nn.Module:
        """Builds a fresh model."""
        ...

    def source(self, data: Source) -> Source:
        """Converts data for models of this family; by default it stays unchanged."""
        return data

    @abstractmethod
    def task(self, n_classes: int, forgotten: tuple[int, ...] = ()) -> Task:
        """The task of the models, while classes are forgotten or an original is trained."""
        ...

    @abstractmethod
    def refuse_unfit(self, model: nn.Module, data: Source, name: str, n_classes: int) -> None:
        """Raises a ValueError if the model can't be run on the data."""
        ...

    @abstractmethod
    def default_forget_set(self, data: Source, seed: int) -> torch.Tensor:
        """The positions of a forget set to assume without a request."""
        ...

    def default_exam(self, split: Split) -> Exam[Any]:
        """The exam of models of which only task and data are known.

        Raises:
            ValueError: If the exam depends on more; the message says what to pass.
        """
        return self.exam(split)

    def short_exam(self, split: Split, *, cache: Path | None = None) -> Glancing[Any]:
        """A short exam, before and after unlearning; by default the whole one. Arguments are those of `exam`.

        Raises:
            ValueError: If the split does not allow an exam of this family.
        """
        return self.exam(split, cache=cache)

    @abstractmethod
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

    def writer(self, n_classes: int) -> Write | None:
        """A function that writes a recipe's model in the family's own format; None if it has none."""
        return None

    def refuse_other_written(self, folder: Path, model: nn.Module) -> None:
        """Raises a ValueError if a folder in the format of the family holds another model."""
