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

    def split(self, data_seed: int | None = None) -> Split:
        """The data, as the recipe's seed cuts it or another; loaded once per process."""
        key = (repr((self.recipe.data, self.recipe.generation)), data_seed, self.device)
        if key not in _splits:
            family = self.recipe.family
            _splits[key] = split_of(self.recipe.data, data_seed, family=family, device=self.device)
        return _splits[key]

    def trained(self, part: Literal["mixed", "retain"], seed: int, data_seed: int | None = None) -> Trained:
        """The original ("mixed") or the retrained reference ("retain") of a seed, trained or read."""
        split, recipe = self.split(data_seed), self.recipe
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
        self, original: nn.Module, seed: int, memory: Memory, data_seed: int | None = None
    ) -> Problem:
        """The request to forget, over a copy of the original."""
        split, model = self.split(data_seed), copy.deepcopy(original)
        generator = torch.Generator().manual_seed(seed)
        task = self.recipe.family.task(split.n_classes, split.forgotten_classes)
        return Problem(task, model, split, generator, self.build(split), memory=memory)

    def exam(self, data_seed: int | None = None) -> Exam[Any]:
        """The questions to its models; while settings are searched, where a seed cuts the data anew."""
        key = (repr(self), data_seed)
        if key not in _exams:
            split, searching = self.split(data_seed), data_seed is not None
            _exams[key] = self.recipe.family.exam(
                split, device=self.device, searching=searching, cache=self.folder / MODELS
            )
        return _exams[key]


MODELS = "models"
CLASSIFIERS = Classification()
_exams: dict[tuple[str, int | None], Exam[Any]] = {}
_splits: dict[tuple[str, int | None, str], Split] = {}


def split_of(
    data: Data, data_seed: int | None = None, *, family: Family = CLASSIFIERS, device: str = "cpu"
) -> Split:
    """The data, cut four ways.

    Args:
        data: What to load and what to forget.
        data_seed: Chooses another forget set, other wrong labels and another limited subset, for tuning. The
            held-out halves stay as the recipe's own seed cuts them, so that tuning never sees the test part.
        family: Whose models take it.
        device: Where batches are handed out.
    """
    seed = data.seed if data_seed is None else data_seed
    loaded = load_data(data.name, folder=data.folder, limit=data.limit, seed=seed)
    train, held_out = map(family.source, loaded)
    if data.noise:
        train = flip_labels(train, data.noise, 1 + int(train.labels.max()), seed + 1)
    forget = _chosen(data, train, seed + 2)
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
