"""Shadow models of a recipe: originals, retrained and unlearned models by digest on disk, and their attacks.

The targets are the forget set of the recipe. Shadow models come in antithetic pairs: the original of model i
trains on the retain set and its half of the targets, and each method then unlearns that half. A model
retrained without any target is the floor, the originals are the ceiling. All three are attacked by the same
code (`unweave.bench.attack_shadows`).

Every model is stored as soon as it is trained, in a folder named by the digest of all that it depends on. So
the same command goes on after an interruption, and another method shares the originals.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float64
from torch import Tensor, nn

from unweave.audits.attacks import ulira
from unweave.audits.classifier.collect import logits_of
from unweave.audits.classifier.logits import confidence, margin
from unweave.bench.cell import METHODS_FORMAT
from unweave.bench.recipe import Recipe
from unweave.bench.split_data import make_split
from unweave.bench.workers import Crew, Job, run_calls, run_serially
from unweave.data.part_of_source import PartOfSource
from unweave.descent.populations.halves import antithetic_halves, half_members
from unweave.descent.populations.population import Member, train_population
from unweave.descent.timing import run_and_time
from unweave.descent.train import (
    TrainedModel,
    keep_trained,
    load_trained,
    model_key,
    seeded_model,
    training_facts,
)
from unweave.errors import Failed
from unweave.problem import Problem
from unweave.record import checkpoint
from unweave.split import Split
from unweave.weights.cost import Cost

FLOOR_SEED = 10_000
"""The first seed of the retrained models, so that none shares its first weights with an original."""

Margins = Float64[np.ndarray, "model target"]
Listener = Callable[[str, int, int], None]
"""Hears what is done: the kind of models, how many there are, and how many there will be."""


@dataclass(frozen=True)
class Population:
    """What the models of one kind answer.

    Args:
        margins: The margin of each target by each model, in nats.
        held_out: The confidence of each calibration example by each model.
        cost: The cost of all models; that of a stored model is what it was.
    """

    margins: Margins
    held_out: Float64[np.ndarray, "model example"]
    cost: Cost


@dataclass(frozen=True)
class ShadowStudy:
    """The shadow models of a recipe.

    Args:
        recipe: The data, the model and the training; the settings of methods.
        models: The number T of originals, of retrained models, and of models of each method; even.
        folder: Where models are stored.
        device: The device of the models.
        crew: The workers that run methods and train the models that can't be trained together; this process
            by default.

    Raises:
        ValueError: If T is odd or too small for U-LiRA, or the recipe's family is not that of classifiers.
    """

    recipe: Recipe
    models: int
    folder: Path
    device: str = "cpu"
    crew: Crew = run_serially

    def __post_init__(self) -> None:
        fewest = 2 * ulira.FEWEST
        if self.models % 2 or self.models < fewest:
            raise ValueError(
                f"shadow models come in pairs, at least {fewest} of them for U-LiRA, found {self.models}"
            )
        if self.recipe.family.name != "classifier":
            raise ValueError(f"shadow models are classifiers, found the family {self.recipe.family.name!r}")

    @cached_property
    def split(self) -> Split:
        """The split of the recipe; its forget set holds the targets."""
        return make_split(self.recipe.data, family=self.recipe.family, device=self.device)

    @cached_property
    def halves(self) -> Bool[Tensor, "model target"]:
        """Which targets each original trains on."""
        generator = torch.Generator().manual_seed(self.recipe.data.seed)
        return antithetic_halves(len(self.split.forget), self.models // 2, generator)

    @property
    def build(self) -> Callable[[], nn.Module]:
        """Makes a fresh model."""
        return partial(self.recipe.build, self.split.n_classes)

    def member(self, kind: str, index: int) -> Member:
        """Model i of a kind, "original" or "retrain", before its training."""
        if kind == "retrain":
            return Member(self.split, "retain", FLOOR_SEED + index)
        return half_members(self.split, self.halves[index : index + 1], seed=index)[0]

    def train(self, kind: str, indices: Sequence[int]) -> list[TrainedModel]:
        """Models of a kind, trained or read."""
        members, cache = [self.member(kind, index) for index in indices], self.folder / "models"

        def run(positions: Sequence[int]) -> None:
            study = replace(self, crew=run_serially)  # without data, models in memory and a crew
            run_calls(self.crew, store_trained, [(study, kind, indices[each]) for each in positions])

        runner = None if self.crew is run_serially else run
        population = train_population(
            self.recipe.train, self.build, members, device=self.device, cache=cache, runner=runner
        )
        return [*population.models]

    @cached_property
    def originals(self) -> list[TrainedModel]:
        """The models before unlearning."""
        return self.train("original", range(self.models))

    @cached_property
    def retrained_models(self) -> list[TrainedModel]:
        """Models trained on the retain set alone, which share no target with any original."""
        return self.train("retrain", range(self.models))

    def original(self, index: int) -> TrainedModel:
        """Model i before unlearning, read if it was trained with the others."""
        return self.train("original", [index])[0]

    def request(self, index: int) -> Split:
        """What a method gets of model i: its training data, with its half of the targets to forget."""
        split, targets = self.split, self.split.forget[self.halves[index]]
        positions = torch.cat([split.retain, targets])
        forget = torch.arange(len(split.retain), len(positions))
        part = PartOfSource(split.train, positions)
        return Split(part, forget, split.held_out, calibration=split.calibration.tolist())

    def unlearn(self, name: str, index: int) -> TrainedModel:
        """Model i after a method, run or read.

        Raises:
            Failed: If the method failed; the message names it and the model.
        """
        method, request = self.recipe.method(name), self.request(index)
        original = self.original(index).model
        facts = {
            **training_facts(self.recipe.train, request, "mixed", index, None),
            "method": repr(method),
            "methods": METHODS_FORMAT,
            "original": checkpoint.contents(original.state_dict()),
        }
        model = seeded_model(self.build, index, self.device)
        place = self.folder / "models" / model_key(facts, model, self.device)
        stored_model = load_trained(place, model, request, "mixed")
        if stored_model is not None:
            return stored_model
        problem = self.problem(original, request, index)
        try:
            cost = run_and_time(problem, method)
        except (ValueError, Failed) as error:
            raise Failed(f"{name} on model {index}: {error}") from error
        trained_model = TrainedModel(problem.model.eval(), cost)
        keep_trained(place, trained_model, facts)
        return trained_model

    def problem(self, original: nn.Module, request: Split, index: int) -> Problem:
        """The problem of a request, on a copy of the original."""
        task = self.recipe.family.task(self.split.n_classes, request.forgotten_classes)
        generator = torch.Generator().manual_seed(index)
        model = copy.deepcopy(original)
        return Problem(task, model, request, generator, self.build, caller_model=original)

    def population(self, name: str, listener: Listener) -> Population:
        """The answers of the models of one kind: "original", "retrain" or a method."""
        if name in ("original", "retrain"):
            models = self.originals if name == "original" else self.retrained_models
            listener(name, len(models), self.models)
            return self.answers(models)
        originals = self.originals  # trained together here, before a worker reads one of them
        study = replace(self, crew=run_serially)  # without models in memory and a crew
        jobs = [Job(f"{name} on model {i}", store_unlearned, (study, name, i)) for i in range(len(originals))]
        for done, _ in enumerate(self.crew(jobs), 1):
            listener(name, done, self.models)
        return self.answers([self.unlearn(name, index) for index in range(self.models)])

    def answers(self, models: Sequence[TrainedModel]) -> Population:
        """What models answer about the targets and the calibration set."""
        parts = {name: self.split.part(name) for name in ("forget", "calibration")}
        labels = {name: source.labels[order].numpy() for name, (source, order) in parts.items()}
        rows: dict[str, list[np.ndarray]] = {"forget": [], "calibration": []}
        for each in models:
            for name, number in (("forget", margin), ("calibration", confidence)):
                logits = logits_of(each.model.eval(), parts[name], self.device, self.split.n_classes)
                rows[name].append(number(logits, labels[name]))
        cost = Cost(
            gradients=sum(each.cost.gradients for each in models),
            seconds=sum(each.cost.seconds for each in models),
        )
        return Population(np.stack(rows["forget"]), np.stack(rows["calibration"]), cost)


def store_trained(study: ShadowStudy, kind: str, index: int) -> None:
    """Trains one model of a study and stores it, for the process that reads it."""
    study.train(kind, [index])


def store_unlearned(study: ShadowStudy, name: str, index: int) -> None:
    """Runs a method on one model of a study and stores the result, for the process that reads it."""
    study.unlearn(name, index)
