"""Proxy requests: forget sets for a search, of the kind of the request but drawn from its retain set.

A trial is compared with a model retrained without the forget set of the trial. With "retrain" that is the
request itself: the best case, but a user with such a model needs no unlearning. With "proxy" every tuning
seed forgets a proxy request instead, so no model is retrained without the request.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from unweave.bench.setup import Data, Tuning
from unweave.data.datasets import select_examples, stratum
from unweave.split import Split


def proxy_split(split: Split, data: Data, tuning: Tuning, seed: int) -> Split:
    """The split of the trials of a tuning seed: the same data or a stratified part, the same held-out sets.

    Raises:
        ValueError: If the retain set is too small for a proxy request, or the part holds nothing of the
            request.
    """
    train, is_forget = split.train, split.is_forget
    if tuning.limit is not None:
        positions = stratum(train, tuning.limit, data.seed)
        train, is_forget = select_examples(train, positions), is_forget[positions]
    if tuning.against == "proxy":
        count = max(1, round(len(split.forget) * len(train) / len(split.train)))
        forget = proxy_forget_set(train.labels, is_forget, whole_classes(split), count, seed)
    elif bool(is_forget.any()):
        forget = is_forget.nonzero()[:, 0]
    else:
        raise ValueError(
            f"tuning.limit = {tuning.limit} keeps nothing of the {len(split.forget)} examples to forget: "
            "raise it, or tune against 'proxy'"
        )
    return Split(train, forget, split.held_out, calibration=split.calibration.tolist())


def whole_classes(split: Split) -> tuple[int, ...]:
    """The classes that form the request; none if it also contains a part of a class."""
    classes = split.forgotten_classes
    return classes if set(split.train.labels[split.forget].tolist()) == set(classes) else ()


def proxy_forget_set(
    labels: Int[Tensor, " train"],
    is_forget: Bool[Tensor, " train"],
    classes: Sequence[int],
    count: int,
    seed: int,
) -> Int[Tensor, " n"]:
    """Positions of a forget set of the request's kind and size, drawn from its retain set.

    For whole classes it is an equal number of other classes; consecutive seeds take consecutive ones.
    Otherwise it is random.

    Args:
        labels: The labels of the training data.
        is_forget: Whether each training example is in the request.
        classes: The classes that form the request; empty if it is not made of whole classes.
        count: The number of examples to draw, if not classes.
        seed: The seed of the choice.
    """
    if classes:
        return torch.isin(labels, torch.tensor(other_classes(labels, classes, seed))).nonzero()[:, 0]
    retain = (~is_forget).nonzero()[:, 0]
    if count > len(retain):
        raise ValueError(
            f"a proxy request is as large as the request and drawn from its retain set, found {count} "
            f"examples to forget and {len(retain)} to retain: tune against 'retrain'"
        )
    return retain[torch.randperm(len(retain), generator=torch.Generator().manual_seed(seed))[:count]]


def other_classes(labels: Int[Tensor, " train"], classes: Sequence[int], seed: int) -> list[int]:
    """As many other classes as the request has."""
    candidates = [label for label in labels.unique().tolist() if label not in classes]
    if len(classes) > len(candidates):
        raise ValueError(
            f"a proxy request has as many classes as the request, all of them retained, found {len(classes)} "
            f"to forget and {len(candidates)} to retain: tune against 'retrain'"
        )
    first = seed * len(classes)
    return [candidates[(first + i) % len(candidates)] for i in range(len(classes))]
