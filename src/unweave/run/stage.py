"""A stage of a benchmark: a recipe in a folder, with its data and its trained models at hand."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from unweave.audit.exam import Exam
from unweave.data import Source
from unweave.data.datasets import flip_labels
from unweave.data.datasets import load as load_data
from unweave.methods.simple import FromScratch
from unweave.problem import Cost, Problem, Split
from unweave.run.classification import Classification
from unweave.run.family import Family
from unweave.run.practice import practised
from unweave.run.recipe import Recipe
from unweave.run.setup import Data
from unweave.train import Trained, train_model

Memory = dict[str, tuple[object, Cost]]


@dataclass(frozen=True)
class Stage:
    """Where a recipe is run.

    Args:
        recipe: What to run.
        folder: The folder of the whole benchmark; holds `models`, `cells` and `tuning`.
        device: Where the models are.
    """

    recipe: Recipe
    folder: Path
    device: str = "cpu"

    def split(self, tuning_seed: int | None = None) -> Split:
        """The data, cut as the recipe says, or as a tuning seed practises; made once per process."""
        recipe = self.recipe
        key = (repr((recipe.data, recipe.generation, recipe.tuning)), tuning_seed, self.device)
        if key not in _splits:
            if tuning_seed is None:
                _splits[key] = split_of(recipe.data, family=recipe.family, device=self.device)
            else:
                _splits[key] = practised(self.split(), recipe.data, recipe.tuning, tuning_seed)
        return _splits[key]

    def trained(self, part: Literal["mixed", "retain"], seed: int, tuning_seed: int | None = None) -> Trained:
        """The original ("mixed") or the retrained reference ("retain") of a seed, trained or read."""
        split, recipe = self.split(tuning_seed), self.recipe
        return train_model(
            recipe.train,
            lambda: recipe.build(split.n_classes),
            split,
            part,
            seed,
            task=recipe.family.task(split.n_classes),
            device=self.device,
            cache=self.folder / MODELS,
            save_every=recipe.save_every,
        )

    def known(self) -> dict[str, object]:
        """What its models depend on beside data, family, device and seed."""
        return {"model": repr(self.recipe.model), "train": repr(self.recipe.train)}

    def retraining(self) -> str:
        """How its references are trained, for people."""
        return repr(FromScratch(self.recipe.train))

    def table(self) -> dict[str, Any]:
        """What a record says of it."""
        return self.recipe.table()

    def build(self, split: Split) -> Callable[[], nn.Module] | None:
        """Makes a fresh model for the classes of a split; None where that is left to the modules."""
        return lambda: self.recipe.build(split.n_classes)

    def problem(
        self, original: nn.Module, seed: int, memory: Memory, tuning_seed: int | None = None
    ) -> Problem:
        """The request to forget, over a copy of the original."""
        split, model = self.split(tuning_seed), copy.deepcopy(original)
        generator = torch.Generator().manual_seed(seed)
        task = self.recipe.family.task(split.n_classes, split.forgotten_classes)
        return Problem(task, model, split, generator, self.build(split), memory=memory)

    def exam(self, tuning_seed: int | None = None) -> Exam[Any]:
        """The questions to its models; to those of a tuning seed without the test part."""
        key = (repr(self), tuning_seed)
        if key not in _exams:
            split, searching = self.split(tuning_seed), tuning_seed is not None
            _exams[key] = self.recipe.family.exam(
                split, device=self.device, searching=searching, cache=self.folder / MODELS
            )
        return _exams[key]


MODELS = "models"
CLASSIFIERS = Classification()
_exams: dict[tuple[str, int | None], Exam[Any]] = {}
_splits: dict[tuple[str, int | None, str], Split] = {}


def split_of(data: Data, *, family: Family = CLASSIFIERS, device: str = "cpu") -> Split:
    """The data, cut four ways.

    Args:
        data: What to load and what to forget.
        family: Whose models take it.
        device: Where batches are handed out.
    """
    loaded = load_data(data.name, folder=data.folder, limit=data.limit, seed=data.seed)
    train, held_out = map(family.source, loaded)
    if data.noise:
        train = flip_labels(train, data.noise, 1 + int(train.labels.max()), data.seed + 1)
    forget = _chosen(data, train, data.seed + 2)
    return Split(train.to(device), forget, held_out.to(device), seed=data.seed)


def _chosen(data: Data, train: Source, seed: int) -> torch.Tensor:
    """Positions of what is to be forgotten."""
    match data.forget:
        case "random":
            order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
            return order[: round(data.fraction * len(train))]
        case "class":
            found = (train.labels == data.label).nonzero()[:, 0]
            if len(found) == 0:
                labels = f"0..{int(train.labels.max())}"
                raise ValueError(f"label must be one of the training data's, {labels}, found {data.label}")
            return found
        case "ids":
            return torch.tensor(data.ids, dtype=torch.long)
