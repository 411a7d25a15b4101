"""Two attacks on a model that forgot whole classes: outputs cannot tell a hidden class from a lost one.

A model whose head lost the row of a class answers like one that never learned it, while its features still
hold the class. Both numbers are read beside a retrained model's: its features, too, separate classes that it
never saw, and it, too, learns them from ten examples. For records forgotten at random they say nothing:
retraining keeps their classes.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float64, Int64
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from unweave.audits.classifier.collect import Cut
from unweave.data import Source
from unweave.tasks import call, evaluating
from unweave.tasks.classifier import to_device

BATCH = 1024
MOST = 2000
"""Examples that the probe takes at most, from each part."""
RIDGE = 0.01
RATES = (0.001, 0.01, 0.1)


def probe(
    model: nn.Module, parts: Mapping[str, Cut], *, device: torch.device | str, seed: int = 0
) -> dict[str, float]:
    """Both probes of one model, by metric id; the model is left as it was.

    Args:
        model: The model under audit, or a retrained one.
        parts: Per part, the source and the positions of its examples in it; forget and retain are used.
        device: Where the model is.
        seed: Chooses the examples. Give every model of a comparison the same.
    """
    return {
        "probe": linear_probe(model, parts["forget"], parts["retain"], device=device, seed=seed),
        "relearn": relearning(model, parts["forget"], device=device, seed=seed),
    }


def linear_probe(
    model: nn.Module,
    forget: Cut,
    retain: Cut,
    *,
    device: torch.device | str,
    seed: int = 0,
    most: int = MOST,
) -> float:
    """Accuracy in percent, on half of F, of a linear classifier of the features fitted to the rest and R.

    The features are what the last weight-bearing module is called with. The classifier is ridge regression
    onto one-hot labels, W = (A'A + 0.01 n I)^-1 A'Y, on features scaled to a root mean square of 1.

    Args:
        model: The model whose features are probed.
        forget: The source and positions of the forget part; at least two.
        retain: The same of the retain part.
        device: Where the model is.
        seed: Halves F and chooses from R.
        most: Examples taken at most, from each part.
    """
    generator = torch.Generator().manual_seed(seed)
    kept, gone = _sample(retain, most, generator), _sample(forget, most, generator)
    known, asked = gone[1].tensor_split(2)
    features = [features_of(model, cut, device) for cut in (kept, (gone[0], known), (gone[0], asked))]
    labels = [source.labels[order] for source, order in (kept, (gone[0], known), (gone[0], asked))]
    fitted, truth = torch.cat(features[:2]), torch.cat(labels[:2])
    weights = _ridge(fitted, one_hot(truth, int(max(each.max() for each in labels)) + 1).double())
    return 100 * float(((features[2] @ weights).argmax(1) == labels[2]).double().mean())


def probe_size(gone: int) -> int:
    """How many of the forget examples the probe is asked about: half of those it takes, at least one."""
    return max(1, min(gone, MOST) // 2)


def relearning(
    model: nn.Module,
    forget: Cut,
    *,
    device: torch.device | str,
    seed: int = 0,
    examples: int = 10,
    judged: int = 200,
    rates: Sequence[float] = RATES,
    limit: int = 100,
) -> float:
    """1 + steps of fine-tuning on ten examples of F until half of the others are known.

    Plain gradient descent on all weights with the ten examples as one batch, in eval mode. The result is the
    geometric mean over several rates, because none suits every architecture; a rate at which `limit` steps do
    not suffice counts as `limit`.

    Args:
        model: Copied; stays as it is.
        forget: The source and positions of the forget part; more than `examples`.
        device: Where the model is.
        seed: Chooses the examples.
        examples: How many are learned.
        judged: How many of the others are asked, at most.
        rates: Learning rates.
        limit: Steps tried at each rate.
    """
    if len(forget[1]) <= examples:
        raise ValueError(f"relearning needs more than {examples} forget examples, found {len(forget[1])}")
    source, order = _sample(forget, examples + judged, torch.Generator().manual_seed(seed))
    batches = order.split([examples, len(order) - examples])
    steps = [_steps(model, source, batches, device, rate, limit) for rate in rates]
    return float(torch.tensor(steps).double().add(1).log().mean().exp())


def _steps(
    model: nn.Module,
    source: Source,
    order: Sequence[Int64[Tensor, "_"]],
    device: torch.device | str,
    rate: float,
    limit: int,
) -> int:
    learned, asked = source.stream(order)
    student = copy.deepcopy(model).eval()
    weights = [weight for weight in student.parameters() if weight.requires_grad]
    inputs, questions = to_device(learned, device), to_device(asked, device)
    target, answers = learned.target.to(device), asked.target.to(device)
    for step in range(limit):
        with torch.no_grad():
            if (call(student, questions).argmax(1) == answers).double().mean() >= 0.5:
                return step
        loss = cross_entropy(call(student, inputs), target)
        gradient = torch.autograd.grad(loss, weights, allow_unused=True)
        with torch.no_grad():
            for weight, slope in zip(weights, gradient, strict=True):
                if slope is not None:
                    weight.sub_(slope, alpha=rate)
    return limit


def features_of(model: nn.Module, cut: Cut, device: torch.device | str) -> Float64[Tensor, "n feature"]:
    """What the last module with weights is called with for each example, flat and on the CPU; no gradient."""
    source, order = cut
    with evaluating(model), last_input(model) as seen, torch.no_grad():
        rows = []
        for raw in source.stream(order.split(BATCH)):
            call(model, to_device(raw, device))
            rows.append(seen[-1].flatten(1).double().cpu())
    return torch.cat(rows)


@contextmanager
def last_input(model: nn.Module) -> Iterator[list[Tensor]]:
    """A list that holds, after a forward pass, the input of the last module with weights of its own."""
    seen: list[Tensor] = []

    def remember(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen[:] = inputs[:1]

    owners = [module for module in model.modules() if list(module.parameters(recurse=False))]
    handles = [module.register_forward_pre_hook(remember) for module in owners]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _ridge(
    features: Float64[Tensor, "n feature"], target: Float64[Tensor, "n class"]
) -> Float64[Tensor, "feature class"]:
    scaled = features / features.square().mean().sqrt()
    gram = scaled.T @ scaled
    gram.diagonal().add_(RIDGE * len(features))
    return torch.linalg.solve(gram, scaled.T @ target)


def _sample(cut: Cut, most: int, generator: torch.Generator) -> Cut:
    source, order = cut
    return source, order[torch.randperm(len(order), generator=generator)[:most]]
