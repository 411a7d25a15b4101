"""The proxy requests of a qualification, drawn in strata."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from unweave.audits.like_requests import FEWEST
from unweave.bench.strata import deal
from unweave.split import Split

STRATA = ("random", "memorized", "generalized", "entangled", "class", "single")

LARGEST_POOL = 1 / 3
"""A stratum of extreme examples takes at most this share of the training data."""

FEWEST_OF_CLASS = 20
"""A class with fewer training examples is no proxy request: its probes learn ten of them."""


@dataclass(frozen=True)
class Plan:
    """The proxy requests of a qualification.

    Args:
        strata: The strata.
        requests: The number of proxy requests of each.
        fraction: The size of a request, as a fraction of the training data; a class and a single record have
            their own.
        folds: The number of folds of the training data; each model is trained without one.
        repeats: The number of models that are trained without each example.
        seed: Chooses the folds and the requests.
    """

    strata: tuple[str, ...] = STRATA
    requests: int = 5
    fraction: float = 0.05
    folds: int = 5
    repeats: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        unknown = [name for name in self.strata if name not in STRATA]
        if unknown or not self.strata:
            actual = f"{unknown[0]!r}" if unknown else "none"
            raise ValueError(f"--strata must be of {', '.join(STRATA)}, found {actual}")
        if self.requests <= FEWEST:
            reason = f"{FEWEST} others judge each"
            raise ValueError(f"--requests must be at least {FEWEST + 1}: {reason}, found {self.requests}")
        if not 0 < self.fraction < 1:
            raise ValueError(f"--fraction must be in (0, 1), found {self.fraction}")


@dataclass(frozen=True)
class ProxyRequests:
    """The proxy requests.

    Args:
        positions: The positions of each request's examples, by its name.
        strata: The stratum of each request, by its name.
        skipped: Why a stratum has no requests, by its name.
    """

    positions: Mapping[str, Int64[Tensor, "_"]]
    strata: Mapping[str, str]
    skipped: Mapping[str, str]


def draw_requests(
    split: Split, hardness: Float64[Tensor, " n"], entanglement: Float64[Tensor, " n"], plan: Plan
) -> ProxyRequests:
    """Draws the proxy requests of each stratum.

    Args:
        split: The data.
        hardness: The held-out loss of each training example, in nats.
        entanglement: The silhouette of each training example.
        plan: The strata, and the number and size of their requests.
    """
    generator = torch.Generator().manual_seed(plan.seed)
    n, size = len(split.train), round(plan.fraction * len(split.train))
    order, single_order = (torch.rand(n, generator=generator, dtype=torch.float64) for _ in range(2))
    is_kept = keep_classes(split.train.labels, order, size)
    scores = {"random": order, "memorized": -hardness, "generalized": hardness, "entangled": entanglement}
    scores["single"] = single_order
    scores = {name: score.masked_fill(is_kept, torch.inf) for name, score in scores.items()}
    positions: dict[str, Tensor] = {}
    strata, reasons = {}, {}
    for name in plan.strata:
        requests: list[Tensor]
        if name == "class":
            requests, reason = deal_classes(split, plan.requests, generator)
        else:
            request_size = 1 if name == "single" else size
            reason = why_no_requests(name, request_size, n - int(is_kept.sum()), plan.requests)
            requests = [] if reason else deal(scores[name], request_size, plan.requests, generator)
        if reason:
            reasons[name] = reason
        for i, places in enumerate(requests, 1):
            positions[f"{name}-{i}"], strata[f"{name}-{i}"] = places, name
    return ProxyRequests(positions, strata, reasons)


def keep_classes(labels: Int64[Tensor, " n"], order: Float64[Tensor, " n"], size: int) -> Bool[Tensor, " n"]:
    """One example of every class that a request could hold whole, which no request of records takes.

    A request with a whole class and other records is like no other, and says nothing about its stratum.

    Args:
        labels: The class of each training example.
        order: A number of each, whose smallest in a class is kept.
        size: The number of records of a request.
    """
    is_kept = torch.zeros(len(labels), dtype=torch.bool)
    for label in (labels.bincount() <= max(1, size)).nonzero()[:, 0].tolist():
        members = (labels == label).nonzero()[:, 0]
        if len(members):
            is_kept[members[order[members].argmin()]] = True
    return is_kept


def why_no_requests(stratum: str, size: int, n: int, count: int) -> str:
    """Why a stratum can't have requests of a size; empty if it can."""
    part = 1 if stratum in ("random", "single") else LARGEST_POOL
    if size < 2 and stratum != "single":
        return f"{stratum}: a request of {size} of {n} records is no stratum: give a larger --fraction"
    if size * count > part * n:
        limit = f"at most {int(part * n)} of {n} records"
        return f"{stratum}: {count} requests of {size} records need {limit}: lower --fraction or --requests"
    return ""


def deal_classes(
    split: Split, count: int, generator: torch.Generator
) -> tuple[list[Int64[Tensor, "_"]], str]:
    """A request for each of some classes, and why there are none; empty if there are."""
    labels, unseen_labels = split.train.labels, set(split.held_out.labels[split.calibration].tolist())
    sizes = labels.bincount().tolist()
    classes = [label for label, n in enumerate(sizes) if n >= FEWEST_OF_CLASS and label in unseen_labels]
    if len(classes) <= FEWEST:
        needs = f"{FEWEST_OF_CLASS} training examples and one for calibration"
        return [], f"class: {len(classes)} classes have {needs}, {FEWEST + 1} needed"
    order = torch.randperm(len(classes), generator=generator)[:count].tolist()
    return [(labels == classes[i]).nonzero()[:, 0] for i in order], ""
