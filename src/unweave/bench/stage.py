"""A stage of a benchmark: a recipe in a folder, with its data and its trained models at hand."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from unweave.audits.exam import Exam
from unweave.bench import strata
from unweave.bench.cache import read_or_make
from unweave.bench.proxy_requests import proxy_split
from unweave.bench.recipe import Recipe
from unweave.bench.split_data import make_split
from unweave.data import Source
from unweave.descent.train import TRAINING_FORMAT, Trained, digest, train_model
from unweave.methods.simple import FromScratch
from unweave.problem import Problem
from unweave.split import Split
from unweave.weights.cost import Cost

Memory = dict[str, tuple[object, Cost]]

MODELS = "models"

CHOOSING_FORMAT = 1
"""Stands for all code that decides which forget set trained models choose, their training apart.

Raise it in the commit that changes the choice: every such forget set is then chosen again.
"""

CHOOSERS = 2_000_000
"""Added to the seed of the data for the weights of models that choose what is forgotten."""

_exams: dict[tuple[str, int | None], Exam[Any]] = {}
_splits: dict[tuple[str, int | None, str], Split] = {}


@dataclass(frozen=True)
class Stage:
    """Where a recipe is run.

    Args:
        recipe: What to run.
        folder: The folder of the whole benchmark; holds `models`, `cells` and `tuning`, and `strata` where
            trained models choose what is forgotten.
        device: Where the models are.
    """

    recipe: Recipe
    folder: Path
    device: str = "cpu"

    @property
    def name(self) -> str:
        """What it is called in records and folders: as its recipe, and where that has several, its budget."""
        tuning = self.recipe.tuning
        return f"{self.recipe.name}@{tuning.largest_budget}" if tuning.budgets else self.recipe.name

    def split_by_budget(self) -> list["Stage"]:
        """A stage for each budget of the recipe; this one where there are not several."""
        budgets = self.recipe.tuning.budgets
        return [replace(self, recipe=self.recipe.with_budget(each)) for each in budgets] or [self]

    def split(self, tuning_seed: int | None = None) -> Split:
        """The data, cut as the recipe says, or as a tuning seed practises; made once per process."""
        recipe = self.recipe
        place = self.folder.absolute()  # which keeps what models choose
        models = {**self.facts(), "folder": place} if self.has_trained_choice else {}
        practice = recipe.tuning.against, recipe.tuning.limit
        key = (repr((recipe.data, recipe.generation, practice, models)), tuning_seed, self.device)
        if key not in _splits:
            if tuning_seed is None:
                _splits[key] = make_split(
                    recipe.data, family=recipe.family, device=self.device, choose=self.choose_forget_set
                )
            else:
                _splits[key] = proxy_split(self.split(), recipe.data, recipe.tuning, tuning_seed)
        return _splits[key]

    @property
    def has_trained_choice(self) -> bool:
        """Whether trained models choose what is forgotten."""
        return self.recipe.data.forget in strata.TRAINED

    def choose_forget_set(self, train: Source, held_out: Source) -> torch.Tensor:
        """The positions that trained models choose; they are kept, and so is every model."""
        data = self.recipe.data
        facts = {**self.facts(), "data": train.digest(), "device": self.device, "seed": data.seed}
        facts |= {"stratum": (data.forget, data.fraction, data.folds)}
        facts |= {"format": [TRAINING_FORMAT, CHOOSING_FORMAT]}

        def learn(split: Split, part: Literal["mixed", "retain"]) -> nn.Module:
            return self.train_on(split, part, CHOOSERS + data.seed).model

        def make() -> dict[str, object]:
            return {"ids": strata.choose(data, train, held_out, seed=data.seed, learn=learn).tolist()}

        place = self.folder / "strata" / self.recipe.name
        return torch.tensor(read_or_make(place, digest(facts), make)["ids"])

    def load_or_train(
        self, part: Literal["mixed", "retain"], seed: int, tuning_seed: int | None = None
    ) -> Trained:
        """The original ("mixed") or the retrained reference ("retain") of a seed, trained or read."""
        return self.train_on(self.split(tuning_seed), part, seed)

    def train_on(self, split: Split, part: Literal["mixed", "retain"], seed: int) -> Trained:
        """A model of the recipe, trained on a part of a split, or read."""
        recipe = self.recipe
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

    def facts(self) -> dict[str, object]:
        """What its models depend on beside data, family, device and seed."""
        return {"model": repr(self.recipe.model), "train": repr(self.recipe.train)}

    def describe_retraining(self) -> str:
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
        return Problem(task, model, split, generator, self.build(split), memory=memory, given=original)

    def exam(self, tuning_seed: int | None = None) -> Exam[Any]:
        """The questions to its models; to those of a tuning seed without the test part."""
        key = (repr(self), tuning_seed)
        if key not in _exams:
            split, searching = self.split(tuning_seed), tuning_seed is not None
            _exams[key] = self.recipe.family.exam(
                split, device=self.device, searching=searching, cache=self.folder / MODELS
            )
        return _exams[key]
