"""A stage of a benchmark: a recipe with its folder, data and trained models."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
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
from unweave.descent.train import TRAINING_FORMAT, TrainedModel, digest, train_model
from unweave.methods.simple import FromScratch
from unweave.problem import Problem
from unweave.split import Split
from unweave.weights.cost import Cost

Memory = dict[str, tuple[object, Cost]]

MODELS = "models"

CHOOSING_FORMAT = 1
"""Format number of forget sets chosen by trained models: it stands for the code of the choice.

Raise it in the commit that changes the choice; every such forget set is then chosen again.
"""

CHOOSERS = 2_000_000
"""Added to the seed of the data for the weights of models that choose the forget set."""

_exams: dict[tuple[str, int | None], Exam[Any]] = {}
_splits: dict[tuple[str, int | None, str], Split] = {}


@dataclass(frozen=True)
class Stage:
    """A recipe with the folder and the device of its run.

    Args:
        recipe: The recipe.
        folder: The folder of the whole benchmark; holds `models`, `cells` and `tuning`, and `strata` if
            trained models choose the forget set.
        device: The device of the models.
        storage: The URL of a database for the trials of searches; journals in `tuning` if None.
    """

    recipe: Recipe
    folder: Path
    device: str = "cpu"
    storage: str | None = field(default=None, repr=False)  # it may hold a password

    @property
    def name(self) -> str:
        """Its name in records and folders: the name of the recipe, and the budget if there are several."""
        tuning = self.recipe.tuning
        return f"{self.recipe.name}@{tuning.largest_budget}" if tuning.budgets else self.recipe.name

    def split_by_budget(self) -> list["Stage"]:
        """One stage per budget of the recipe; this one alone without several budgets."""
        budgets = self.recipe.tuning.budgets
        return [replace(self, recipe=self.recipe.with_budget(each)) for each in budgets] or [self]

    def split(self, tuning_seed: int | None = None) -> Split:
        """The split of the recipe, or of the proxy request of a tuning seed; made once per process."""
        recipe = self.recipe
        place = self.folder.absolute()  # its folder stores the chosen forget set
        models = {**self.facts(), "folder": place} if self.has_trained_choice else {}
        practice = recipe.tuning.against, recipe.tuning.limit
        key = (repr((recipe.data, recipe.family, practice, models)), tuning_seed, self.device)
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
        """Whether trained models choose the forget set."""
        return self.recipe.data.forget in strata.TRAINED

    def choose_forget_set(self, train: Source, held_out: Source) -> torch.Tensor:
        """The positions that trained models choose; stores them and every model."""
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
    ) -> TrainedModel:
        """The original ("mixed") or the retrained reference ("retain") of a seed, read or trained."""
        return self.train_on(self.split(tuning_seed), part, seed)

    def train_on(self, split: Split, part: Literal["mixed", "retain"], seed: int) -> TrainedModel:
        """A model of the recipe trained on a part of a split, or read."""
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
        """The facts that its models depend on, without data, family, device and seed."""
        return {"model": repr(self.recipe.model), "train": repr(self.recipe.train)}

    def describe_retraining(self) -> str:
        """A description of how its references are trained."""
        return repr(FromScratch(self.recipe.train))

    def table(self) -> dict[str, Any]:
        """The stage as a record describes it."""
        return self.recipe.table()

    def build(self, split: Split) -> Callable[[], nn.Module] | None:
        """A function that makes a fresh model for a split; None if the modules redraw themselves."""
        return lambda: self.recipe.build(split.n_classes)

    def problem(
        self, original: nn.Module, seed: int, memory: Memory, tuning_seed: int | None = None
    ) -> Problem:
        """The problem of a request, on a copy of the original."""
        split, model = self.split(tuning_seed), copy.deepcopy(original)
        generator = torch.Generator().manual_seed(seed)
        task = self.recipe.family.task(split.n_classes, split.forgotten_classes)
        return Problem(task, model, split, generator, self.build(split), memory=memory, caller_model=original)

    def exam(self, tuning_seed: int | None = None) -> Exam[Any]:
        """The exam of its models; that of a tuning seed does not use the test set."""
        key = (repr(self), tuning_seed)
        if key not in _exams:
            split, searching = self.split(tuning_seed), tuning_seed is not None
            _exams[key] = self.recipe.family.exam(
                split, device=self.device, searching=searching, cache=self.folder / MODELS
            )
        return _exams[key]
