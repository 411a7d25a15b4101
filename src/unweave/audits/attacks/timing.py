"""The time of one gradient evaluation, by which a budget is planned."""

import time

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from unweave.audits.classifier.collect import Cut
from unweave.tasks import call, evaluating
from unweave.tasks.classifier import to_device

BATCH = 128
REPEATS = 3


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
            float(
                sum(g.sum() for g in torch.autograd.grad(loss, weights, allow_unused=True) if g is not None)
            )
            times.append(time.perf_counter() - start)
    return min(times)
