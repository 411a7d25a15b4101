"""What a search practises on: the request itself, or requests of its kind drawn from what is to stay.

A trial is compared with a model that was retrained without what the trial forgets. Against "retrain" that is
what the recipe forgets: the best case, since whoever has such a model needs no unlearning. Against "proxy"
every tuning seed forgets something else instead, so that no model is retrained without the recipe's own.
"""

import torch
from jaxtyping import Int
from torch import Tensor

from unweave.problem import Split
from unweave.run.setup import Data, Tuning


def practised(split: Split, data: Data, tuning: Tuning, seed: int) -> Split:
    """The split that the trials of a tuning seed see: the same data and held-out halves.

    Raises:
        ValueError: If what stays is too small for a proxy.
    """
    if tuning.against == "retrain":
        return split
    halves = split.calibration.tolist()
    return Split(split.train, proxy(split, data, seed), split.held_out, calibration=halves)


def proxy(split: Split, data: Data, seed: int) -> Int[Tensor, " n"]:
    """Positions of a forget set of the request's kind and size, none of which the request forgets.

    For a class it is another class: consecutive seeds take consecutive ones. For all else it is random.
    """
    if data.forget == "class":
        others = [label for label in split.train.labels.unique().tolist() if label != data.label]
        return (split.train.labels == others[seed % len(others)]).nonzero()[:, 0]
    count, stays = len(split.forget), len(split.retain)
    if count > stays:
        raise ValueError(
            f"a proxy is as large as the request and drawn from what stays, found {count} examples to "
            f"forget and {stays} that stay: tune against 'retrain'"
        )
    return split.retain[torch.randperm(stays, generator=torch.Generator().manual_seed(seed))[:count]]
