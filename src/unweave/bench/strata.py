"""Strata of a training set as forget sets: memorised, generalised, entangled or hard examples.

The models that choose are trained like those of the recipe, with a separate seed. That strata differ in how
hard they are to forget is from "What makes unlearning hard and what to do about it" (RUM, Zhao et al.,
NeurIPS 2024), https://arxiv.org/abs/2406.01257; the scores here are cheaper than theirs, and ours.
"""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float64, Int64
from torch import Tensor, nn

from unweave.audits.classifier.collect import logits_of
from unweave.audits.classifier.probes import features_of
from unweave.bench.setup import Data
from unweave.data import Source
from unweave.split import Split
from unweave.tasks import evaluating

TRAINED = ("memorized", "generalized", "entangled", "worst-case")
"""The strata that trained models choose."""

NEIGHBOURS = 10
ROUNDS = 3
ROWS = 256
"""The number of rows of a distance matrix held at once."""

Learn = Callable[[Split, Literal["mixed", "retain"]], nn.Module]
"""Trains a model on a part of a split, or reads it."""


def choose(data: Data, train: Source, held_out: Source, *, seed: int, learn: Learn) -> Int64[Tensor, " n"]:
    """Sorted positions of a recipe's forget set, chosen by trained models.

    Args:
        data: Names the stratum, its size and the number of folds.
        train: The training data; all of it is ranked.
        held_out: The other data of the splits; no model or score sees it.
        seed: Chooses the folds.
        learn: Trains the models.

    Raises:
        ValueError: If the stratum would be empty, or a fold would.
    """
    size = round(data.fraction * len(train))
    if size == 0 or data.folds > len(train):
        raise ValueError(
            f"a stratum needs an example, and so does each of {data.folds} folds: fraction = {data.fraction} "
            f"of {len(train)} training examples is {size}"
        )
    folds = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed)).tensor_split(data.folds)
    match data.forget:
        case "entangled":
            model = learn(Split(train, folds[0], held_out), "mixed")
            features = features_of(model, (train, torch.arange(len(train))), device_of(model))
            return lowest_positions(silhouette(features, train.labels), size)
        case "memorized":
            return lowest_positions(-held_out_loss(train, held_out, folds, learn), size)
        case "generalized":
            return lowest_positions(held_out_loss(train, held_out, folds, learn), size)
        case "worst-case":
            return choose_hardest(train, held_out, held_out_loss(train, held_out, folds, learn), size, learn)
        case other:
            raise ValueError(f"expected one of {', '.join(TRAINED)}, found {other!r}")


def held_out_loss(
    train: Source, held_out: Source, folds: tuple[Tensor, ...], learn: Learn
) -> Float64[Tensor, " n"]:
    """The cross-entropy of every training example, in nats, by the model that was trained without its fold.

    It is high if an example is known only by memorisation: a proxy of memorisation as Feldman (2020),
    https://arxiv.org/abs/1906.05271, defines it, with one model for each example instead of many.
    """
    losses = torch.zeros(len(train), dtype=torch.float64)
    for fold in folds:
        losses[fold] = losses_of(learn(Split(train, fold, held_out), "retain"), train, fold)
    return losses


def losses_of(model: nn.Module, train: Source, positions: Int64[Tensor, " n"]) -> Float64[Tensor, " n"]:
    """The cross-entropy of some examples, in nats; in float64, or confident outputs would tie."""
    with evaluating(model):
        logits = torch.from_numpy(logits_of(model, (train, positions), device_of(model))).double()
    return torch.nn.functional.cross_entropy(logits, train.labels[positions], reduction="none")


def silhouette(
    features: Float64[Tensor, "n feature"],
    labels: Int64[Tensor, " n"],
    neighbours: int = NEIGHBOURS,
    *,
    of: Int64[Tensor, " of"] | None = None,
) -> Float64[Tensor, " of"]:
    r""":math:`(b - a) / \max(a, b)`, from -1, deep among other classes, to 1, deep in its own.

    With a and b the mean Euclidean distances to the nearest examples, at most `neighbours`, of the same and
    of other classes. RUM measures how entangled a whole set is by its variance and that of the rest against
    the distance of their means; this one ranks single examples.

    Args:
        features: The features of all examples.
        labels: Their labels.
        neighbours: The largest number of nearest examples.
        of: The positions of the examples to rank; all if None.
    """
    values = []
    for rows in (torch.arange(len(labels)) if of is None else of).split(ROWS):
        distance = torch.cdist(features[rows], features)
        is_own = labels[rows, None] == labels
        same_class, other = distance.masked_fill(~is_own, torch.inf), distance.masked_fill(is_own, torch.inf)
        same_class[torch.arange(len(rows)), rows] = torch.inf  # no row is its own neighbour
        a, b = mean_nearest_distance(same_class, neighbours), mean_nearest_distance(other, neighbours)
        # rows at equal distances are entangled
        values.append(torch.where(a < b, 1 - a / b, b / a.clamp_min(1e-300) - 1))
    return torch.cat(values)


def mean_nearest_distance(distance: Float64[Tensor, "row n"], neighbours: int) -> Float64[Tensor, " row"]:
    """The mean of the smallest finite distances of each row, at most `neighbours`; infinite without any."""
    nearest = distance.topk(min(neighbours, distance.shape[1]), largest=False).values
    is_finite = nearest.isfinite()
    mean = nearest.masked_fill(~is_finite, 0).sum(1) / is_finite.sum(1).clamp_min(1)
    return mean.masked_fill(~is_finite.any(1), torch.inf)


def choose_hardest(
    train: Source, held_out: Source, losses: Float64[Tensor, " n"], size: int, learn: Learn
) -> Int64[Tensor, " size"]:
    """Examples that a model trained without all of them still knows, so that forgetting them shows least.

    "Challenging Forgets" (Fan et al., ECCV 2024), https://arxiv.org/abs/2403.07362, looks for the set with
    the lowest loss after unlearning, by bi-level optimisation. This is a greedy proxy, with retraining
    instead of unlearning: it starts from the examples with the lowest held-out losses, trains a model without
    the set, replaces the losses of the set by the model's, and chooses the lowest again; it keeps the best of
    a few rounds.

    Args:
        train: The training data.
        held_out: The other data of the splits.
        losses: The held-out loss of every training example.
        size: The number of examples to choose.
        learn: Trains the models.
    """
    positions = best = lowest_positions(losses, size)
    least = torch.inf
    for _ in range(ROUNDS):
        set_losses = losses_of(learn(Split(train, positions, held_out), "retain"), train, positions)
        if float(set_losses.mean()) < least:
            best, least = positions, float(set_losses.mean())
        losses = losses.index_put((positions,), set_losses)
        previous, positions = positions, lowest_positions(losses, size)
        if torch.equal(previous, positions):
            break
    return best


def lowest_positions(scores: Float64[Tensor, " n"], size: int) -> Int64[Tensor, " size"]:
    """Sorted positions of the lowest scores; ties go to the first."""
    return scores.argsort(stable=True)[:size].sort().values


def deal(
    scores: Float64[Tensor, " n"], size: int, count: int, generator: torch.Generator
) -> list[Int64[Tensor, " size"]]:
    """`count` forget sets of `size` examples each, dealt at random from those with the lowest scores."""
    pool = lowest_positions(scores, size * count)
    parts = pool[torch.randperm(len(pool), generator=generator)].split(size)
    return [each.sort().values for each in parts]


def device_of(model: nn.Module) -> torch.device:
    """The device of a model."""
    return next(model.parameters()).device
