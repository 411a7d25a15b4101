"""What a search practises on: the request itself, or requests of its kind drawn from what is to stay.

A trial is compared with a model that was retrained without what the trial forgets. Against "retrain" that is
what the recipe forgets: the best case, since whoever has such a model needs no unlearning. Against "proxy"
every tuning seed forgets something else instead, so that no model is retrained without the recipe's own.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from unweave.bench.setup import Data, Tuning
from unweave.data.datasets import select_examples, stratum
from unweave.split import Split


def proxy_split(split: Split, data: Data, tuning: Tuning, seed: int) -> Split:
    """The split that the trials of a tuning seed see: the same held-out halves and data, or a stratum of it.

    Raises:
        ValueError: If what stays is too small for a proxy, or the stratum holds nothing of the request.
    """
    train, gone = split.train, split.is_forget
    if tuning.limit is not None:
        keep = stratum(train, tuning.limit, data.seed)
        train, gone = select_examples(train, keep), gone[keep]
    if tuning.against == "proxy":
        count = max(1, round(len(split.forget) * len(train) / len(split.train)))
        forget = proxy_forget_set(train.labels, gone, whole_classes(split), count, seed)
    elif bool(gone.any()):
        forget = gone.nonzero()[:, 0]
    else:
        raise ValueError(
            f"tuning.limit = {tuning.limit} keeps nothing of the {len(split.forget)} examples to forget: "
            "raise it, or tune against 'proxy'"
        )
    return Split(train, forget, split.held_out, calibration=split.calibration.tolist())


def whole_classes(split: Split) -> tuple[int, ...]:
    """The classes that the request consists of; none where it also names a part of one."""
    gone = split.forgotten_classes
    return gone if set(split.train.labels[split.forget].tolist()) == set(gone) else ()


def proxy_forget_set(
    labels: Int[Tensor, " train"], gone: Bool[Tensor, " train"], whole: Sequence[int], count: int, seed: int
) -> Int[Tensor, " n"]:
    """Positions of a forget set of the request's kind and size, none of which the request forgets.

    For whole classes it is as many others, and consecutive seeds take consecutive ones. Else it is random.

    Args:
        labels: Of the training data.
        gone: What the request forgets of it.
        whole: The classes that the request consists of; none if it is not made of whole ones.
        count: How many examples to take, unless they are classes.
        seed: Of the choice.
    """
    if whole:
        return torch.isin(labels, torch.tensor(other_classes(labels, whole, seed))).nonzero()[:, 0]
    stays = (~gone).nonzero()[:, 0]
    if count > len(stays):
        raise ValueError(
            f"a proxy is as large as the request and drawn from what stays, found {count} examples to "
            f"forget and {len(stays)} that stay: tune against 'retrain'"
        )
    return stays[torch.randperm(len(stays), generator=torch.Generator().manual_seed(seed))[:count]]


def other_classes(labels: Int[Tensor, " train"], whole: Sequence[int], seed: int) -> list[int]:
    """As many classes as the request consists of, but none of those."""
    stay = [label for label in labels.unique().tolist() if label not in whole]
    if len(whole) > len(stay):
        raise ValueError(
            f"a proxy is as many classes as the request and drawn from those that stay, found {len(whole)} "
            f"to forget and {len(stay)} that stay: tune against 'retrain'"
        )
    first = seed * len(whole)
    return [stay[(first + i) % len(stay)] for i in range(len(whole))]
