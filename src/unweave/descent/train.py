"""Trains originals and retrained references from fresh weights; stores them by the digest of their inputs."""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import torch
from torch import nn

from unweave.descent.descend import Descent, Phase, descend
from unweave.descent.objective import nll
from unweave.descent.timing import synchronize, warm_up
from unweave.problem import Problem, add_time
from unweave.record import checkpoint
from unweave.split import Part, Split
from unweave.tasks import Task
from unweave.tasks.classifier import Classifier
from unweave.weights.cost import Cost
from unweave.weights.state_folder import States

TRAINING_FORMAT = 1
"""Format number of trained models: it stands for all code that affects their weights.

Raise it in the commit that changes those weights; stored models are then trained again.
"""

STATE = "state"
"""The folder from which an interrupted training resumes."""


@dataclass(frozen=True)
class TrainedModel:
    """A trained model and the cost of its training, also if it was read from disk.

    Args:
        model: The model, in evaluation mode.
        cost: The cost of its training.
    """

    model: nn.Module
    cost: Cost


def train_model(
    how: Descent,
    build: Callable[[], nn.Module],
    split: Split,
    part: Literal["mixed", "retain"],
    seed: int,
    *,
    task: Task | None = None,
    device: str = "cpu",
    cache: Path | None = None,
    save_every: int | None = None,
) -> TrainedModel:
    """Trains an original ("mixed": forget set and retain set) or a reference ("retain").

    Models of one seed start from the same weights, whatever the part.

    Args:
        how: The training.
        build: Makes a model; its weights come from torch's global generator, seeded here.
        split: The data.
        part: The part to train on.
        seed: The seed of the weights and of the order of the data.
        task: Scores the model; classification if None.
        device: The device to train on.
        cache: The folder of stored models, named by the digest of all they depend on; None stores nothing.
        save_every: The number of steps between two saved states, from which an interrupted training resumes;
            None saves none.

    Raises:
        Failed: If the loss is no longer finite.
        ValueError: If a stored model was trained on other data.
    """
    model = seeded_model(build, seed, device)
    facts = training_facts(how, split, part, seed, task)
    place = None if cache is None else cache / model_key(facts, model, device)
    stored_model = None if place is None else load_trained(place, model, split, part)
    if stored_model is not None:
        return stored_model
    problem = training_problem(model, build, split, seed, task)
    if place is not None and save_every is not None:
        problem.states = States(place / STATE, save_every)
    warm_up()
    with add_time(problem.cost):
        descend(problem, how, Phase([nll(part)]))
        synchronize(device)
    trained_model = TrainedModel(model.eval(), problem.cost)
    if place is not None:
        keep_trained(place, trained_model, facts)
        shutil.rmtree(place / STATE, ignore_errors=True)
    return trained_model


def training_facts(how: Descent, split: Split, part: Part, seed: int, task: Task | None) -> dict[str, object]:
    """The facts about a training that its sidecar states."""
    facts = {"split": split.digest(part), "part": part, "recipe": repr(how), "seed": seed}
    return facts | {"format": TRAINING_FORMAT, "task": repr(task)}


def model_key(facts: Mapping[str, object], model: nn.Module, device: str) -> str:
    """The name of a stored model: a digest of the facts, the architecture and the device."""
    traits = {"model": repr(model), "weights": checkpoint.architecture(model.state_dict()), "device": device}
    return digest({**facts, **traits})[:20]


def load_trained(place: Path, model: nn.Module, split: Split, part: Part) -> TrainedModel | None:
    """Reads a stored model into a fresh one; None if there is none.

    Raises:
        ValueError: If it was trained on other data.
    """
    if not ((place / checkpoint.WEIGHTS).exists() and (place / checkpoint.SIDECAR).exists()):
        return None
    sidecar = checkpoint.load(place, model, split_digest=split.digest(part))
    return TrainedModel(model.eval(), Cost(**cast(Mapping, sidecar["cost"])))


def keep_trained(place: Path, trained_model: TrainedModel, facts: Mapping[str, object]) -> None:
    """Stores a model with its cost and the facts about its training."""
    cost = dataclasses.asdict(trained_model.cost)
    checkpoint.save(place, trained_model.model.state_dict(), {**facts, "cost": cost})


def seeded_model(build: Callable[[], nn.Module], seed: int, device: str) -> nn.Module:
    """The fresh model of a seed; torch's global generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build().to(device)


def training_problem(
    model: nn.Module, build: Callable[[], nn.Module], split: Split, seed: int, task: Task | None
) -> Problem:
    """The problem that a training from fresh weights descends on; its seed gives the order of the data."""
    generator = torch.Generator().manual_seed(seed)
    return Problem(task or Classifier(split.n_classes), model, split, generator, build)


def digest(facts: Mapping[str, object]) -> str:
    """SHA-256 of plain values."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
