"""What a search practises on: the request itself, or requests of its kind drawn from what is to stay.

A trial is compared with a model that was retrained without what the trial forgets. Against "retrain" that is
what the recipe forgets: the best case, since whoever has such a model needs no unlearning. Against "proxy"
every tuning seed forgets something else instead, so that no model is retrained without the recipe's own.
"""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from unweave.data.datasets import stratum, taken
from unweave.problem import Split
from unweave.run.setup import Data, Tuning


def practised(split: Split, data: Data, tuning: Tuning, seed: int) -> Split:
    """The split that the trials of a tuning seed see: the same held-out halves and data, or a stratum of it.

    Raises:
        ValueError: If what stays is too small for a proxy, or the stratum holds nothing of the request.
    """
    train, gone = split.train, split.is_forget
    if tuning.limit is not None:
        keep = stratum(train, tuning.limit, data.seed)
        train, gone = taken(train, keep), gone[keep]
    if tuning.against == "proxy":
        count = max(1, round(len(split.forget) * len(train) / len(split.train)))
        forget = proxy(train.labels, gone, data, count, seed)
    elif bool(gone.any()):
        forget = gone.nonzero()[:, 0]
    else:
        raise ValueError(
            f"tuning.limit = {tuning.limit} keeps nothing of the {len(split.forget)} examples to forget: "
            "raise it, or tune against 'proxy'"
        )
    return Split(train, forget, split.held_out, calibration=split.calibration.tolist())


def proxy(
    labels: Int[Tensor, " train"], gone: Bool[Tensor, " train"], data: Data, count: int, seed: int
) -> Int[Tensor, " n"]:
    """Positions of a forget set of the request's kind and size, none of which the request forgets.

    For a class it is another class: consecutive seeds take consecutive ones. For all else it is random.

    Args:
        labels: Of the training data.
        gone: What the request forgets of it.
        data: The request.
        count: How many examples to take, unless it is a class.
        seed: Of the choice.
    """
    if data.forget == "class":
        others = [label for label in labels.unique().tolist() if label != data.label]
        return (labels == others[seed % len(others)]).nonzero()[:, 0]
    stays = (~gone).nonzero()[:, 0]
    if count > len(stays):
        raise ValueError(
            f"a proxy is as large as the request and drawn from what stays, found {count} examples to "
            f"forget and {len(stays)} that stay: tune against 'retrain'"
        )
    return stays[torch.randperm(len(stays), generator=torch.Generator().manual_seed(seed))[:count]]
