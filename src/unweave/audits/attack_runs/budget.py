"""Turns a budget of time for attacks into gradient evaluations for each model that they examine."""

import re
import time
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from unweave.audits.classifier.collect import Cut
from unweave.tasks import call, evaluating
from unweave.tasks.classifier import to_device

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
BATCH, REPEATS = 128, 3


@dataclass(frozen=True)
class Duration:
    """A budget of time for all models of an audit together.

    Args:
        seconds: The time.
    """

    seconds: float


def parse_budget(text: str) -> int | Duration:
    """A time such as 90s, 10m or 1.5h, or gradient evaluations for each model, such as 200.

    Raises:
        ValueError: If it is neither.
    """
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)([smh])", text.strip())
    if match and float(match[1]) > 0:
        return Duration(float(match[1]) * UNITS[match[2]])
    if re.fullmatch(r"\d+", text.strip()):
        return int(text)
    raise ValueError(
        "a budget must be a time such as 90s, 10m or 1h, or gradient evaluations per model such as 200, "
        f"found {text!r}"
    )


def gradients_within(
    duration: Duration, models: int, model: nn.Module, forget: Cut, device: torch.device | str
) -> int:
    """The gradient evaluations that a time allows for each of some models, by the speed of one."""
    return int(duration.seconds / models / seconds_per_gradient(model, forget, device))


def seconds_per_gradient(model: nn.Module, forget: Cut, device: torch.device | str) -> float:
    """The shortest time of a forward and a backward pass over one batch; the model stays unchanged."""
    source, order = forget
    (raw,) = source.stream([order[:BATCH]])
    inputs, target = to_device(raw, device), raw.label.to(device)
    weights = [p for p in model.parameters() if p.requires_grad]
    times = []
    with evaluating(model):
        for _ in range(REPEATS):
            start = time.perf_counter()
            loss = cross_entropy(call(model, inputs), target)
            slopes = torch.autograd.grad(loss, weights, allow_unused=True)
            float(sum(g.sum() for g in slopes if g is not None))  # waits for the device
            times.append(time.perf_counter() - start)
    return min(times)
