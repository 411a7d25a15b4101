"""Trains the models of a population, together where that is possible, and keeps each by its digest."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import nn

from unweave.descent.descend import Descent
from unweave.descent.populations.limits import why_alone
from unweave.descent.populations.together import descend_together
from unweave.descent.timing import synchronize, warm_up
from unweave.descent.train import (
    TrainedModel,
    keep_trained,
    load_trained,
    model_key,
    seeded_model,
    train_model,
    training_facts,
    training_problem,
)
from unweave.problem import Problem, add_time
from unweave.record import checkpoint
from unweave.split import Part, Split
from unweave.tasks import Task
from unweave.weights.cost import Cost

log = logging.getLogger(__name__)

TOGETHER = 32
"""Models trained at once: fewer pay more for the overhead of a step, more gain nothing."""

TOGETHER_FORMAT = 1
"""Format number of models trained together: it stands for the code of this room.

Raise it in the commit that changes their weights by more than rounding; they are then trained again.
"""

Runner = Callable[[Sequence[int]], None]
"""Trains the members at some positions, in other processes if it has any, and stores them in the cache."""


@dataclass(frozen=True)
class Member:
    """One model of a population, before its training.

    Args:
        split: Its data.
        part: The part that it trains on.
        seed: The seed of its weights and of the order of its data.
    """

    split: Split
    part: Literal["mixed", "retain"]
    seed: int


@dataclass(frozen=True)
class Population:
    """Trained models, in the order of their members.

    Args:
        models: The models with their costs; one that was trained together has its share of the seconds.
        alone: Why models were trained one by one, each reason once; empty if none was.
    """

    models: tuple[TrainedModel, ...]
    alone: tuple[str, ...] = ()


def train_population(
    how: Descent,
    build: Callable[[], nn.Module],
    members: Sequence[Member],
    *,
    task: Task | None = None,
    device: str = "cpu",
    cache: Path | None = None,
    together: int = TOGETHER,
    runner: Runner | None = None,
) -> Population:
    """Trains every member as `train.train_model` would, up to rounding.

    Members with one source and as many examples are trained as one batched model, in groups. What can't be
    batched is trained one by one; the population says why, and so does the logger of this module.

    Args:
        how: The training.
        build: Makes a model; its weights come from torch's global generator, seeded here.
        members: The models to train.
        task: Scores the models; classification if None.
        device: The device to train on.
        cache: The folder of stored models, one folder per model, named by the digest of all it depends on;
            None stores nothing. An interruption loses at most the running group.
        together: The largest number of models trained at once; 1 trains one by one.
        runner: Trains what can't be batched; None trains in this process.

    Raises:
        Failed: If a loss is no longer finite.
        ValueError: If a stored model was trained on other data, `together` is below 1, or there is a runner
            and no cache.
    """
    if together < 1:
        raise ValueError(f"together must be at least 1 model at once, found {together}")
    if runner is not None and cache is None:
        raise ValueError("a runner hands models over in the cache, found none: give `cache`")
    models: dict[int, TrainedModel] = {}
    fresh: dict[int, Problem] = {}
    for position, member in enumerate(members):
        model = seeded_model(build, member.seed, device)
        stored_model = None if cache is None else load_member(cache, how, member, model, task, device)
        if stored_model is None:
            fresh[position] = training_problem(model, build, member.split, member.seed, task)
        else:
            models[position] = stored_model
    groups, single, reasons = divide(members, fresh, how, together)
    for group in groups:
        problems, part = [fresh[position] for position in group], members[group[0]].part
        for position, trained_model in zip(group, train_group(how, problems, part, device), strict=True):
            models[position] = trained_model
            if cache is not None:
                facts = together_facts(how, members[position], task)
                keep_trained(cache / model_key(facts, trained_model.model, device), trained_model, facts)
    if runner is not None and len(single) > 1:
        runner(single)
    for position in single:
        split, part, seed = members[position].split, members[position].part, members[position].seed
        models[position] = train_model(how, build, split, part, seed, task=task, device=device, cache=cache)
    return Population(tuple(models[position] for position in range(len(members))), reasons)


def divide(
    members: Sequence[Member], fresh: Mapping[int, Problem], how: Descent, together: int
) -> tuple[list[list[int]], list[int], tuple[str, ...]]:
    """The groups that are trained together, the members that are trained one by one, and why these are."""
    groups: list[list[int]] = []
    singles: list[int] = []
    reasons: list[str] = []
    for group in group_members(members, fresh, together):
        problems = [fresh[position] for position in group]
        reason = why_alone(problems, how, members[group[0]].part) if len(group) > 1 else ""
        if reason and reason not in reasons:
            log.warning("models are trained one by one: %s", reason)
            reasons.append(reason)
        if reason or len(group) == 1:
            singles += group
        else:
            groups.append(group)
    return groups, singles, tuple(reasons)


def load_member(
    cache: Path, how: Descent, member: Member, model: nn.Module, task: Task | None, device: str
) -> TrainedModel | None:
    """Reads a stored member into a fresh model, trained alone or together; None if there is none."""
    split, part = member.split, member.part
    for facts in (training_facts(how, split, part, member.seed, task), together_facts(how, member, task)):
        stored_model = load_trained(cache / model_key(facts, model, device), model, split, part)
        if stored_model is not None:
            return stored_model
    return None


def together_facts(how: Descent, member: Member, task: Task | None) -> dict[str, object]:
    """The facts about a training together: the bits of its weights differ from those of training alone."""
    return {**training_facts(how, member.split, member.part, member.seed, task), "together": TOGETHER_FORMAT}


def group_members(
    members: Sequence[Member], fresh: Mapping[int, Problem], together: int
) -> Iterator[list[int]]:
    """Yields the positions of members that can share their steps: one source, part, size and architecture."""
    alike: dict[tuple[object, ...], list[int]] = {}
    for position, problem in fresh.items():
        source, ids = members[position].split.part(members[position].part)
        shape = checkpoint.architecture(problem.model.state_dict())
        alike.setdefault((id(source), members[position].part, len(ids), shape), []).append(position)
    for positions in alike.values():
        for start in range(0, len(positions), together):
            yield positions[start : start + together]


def train_group(how: Descent, problems: Sequence[Problem], part: Part, device: str) -> list[TrainedModel]:
    """Trains models together; each is charged its share of the seconds."""
    warm_up()
    cost = Cost()
    with add_time(cost):
        descend_together(problems, how, part)
        synchronize(device)
    for problem in problems:
        problem.cost.seconds += cost.seconds / len(problems)
    return [TrainedModel(problem.model.eval(), problem.cost) for problem in problems]
