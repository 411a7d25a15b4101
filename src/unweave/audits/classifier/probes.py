"""Attacks on a model that forgot whole classes: outputs can't distinguish a hidden from a lost class.

A model whose head lost the row of a class answers like one that never learned it, while its features still
contain the class. Compare all numbers with those of a retrained model, whose features also separate classes
that it never saw, and which also learns them from ten examples. For examples forgotten at random they show
nothing, because retraining keeps their classes.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice

import torch
from jaxtyping import Float64, Int64
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from unweave.audits.classifier.collect import Cut
from unweave.data import Raw, Source
from unweave.tasks import call, evaluating
from unweave.tasks.classifier import to_device
from unweave.weights.sharded_model import refuse_copy

BATCH = 1024
MOST = 2000
"""The largest number of examples from each part."""
RIDGE = 0.01
RATES = (0.001, 0.01, 0.1)

Features = Float64[Tensor, "_ _"]  # [example, feature]; several sets of examples in one signature
Labels = Int64[Tensor, "_"]


def probe(
    model: nn.Module, parts: Mapping[str, Cut], *, device: torch.device | str, seed: int = 0
) -> dict[str, float]:
    """Runs all probes on one model; results by metric id. The model stays unchanged.

    Args:
        model: The model under audit, or a retrained one.
        parts: The source and the positions of each part; forget and retain are used.
        device: The device of the model.
        seed: Chooses the examples. Use one seed for all models of a comparison.
    """
    steps = relearning(model, parts["forget"], device=device, seed=seed)  # first: it refuses few examples
    values = probe_features(model, parts["forget"], parts["retain"], device=device, seed=seed)
    return {**values, "relearn": steps}


def probe_features(
    model: nn.Module,
    forget: Cut,
    retain: Cut,
    *,
    device: torch.device | str,
    seed: int = 0,
    most: int = MOST,
) -> dict[str, float]:
    """How well the features of half of F show their class, judged by the other half and R.

    "probe" is the accuracy of `classify_linearly` in percent, "silhouette" the mean of `silhouettes`. The
    features are the inputs of the last module with weights.

    Args:
        model: The model whose features are probed.
        forget: The source and positions of the forget set; at least two.
        retain: The source and positions of the retain set.
        device: The device of the model.
        seed: Halves F and samples R.
        most: The largest number of examples from each set.
    """
    generator = torch.Generator().manual_seed(seed)
    retain_part, forget_part = sample(retain, most, generator), sample(forget, most, generator)
    fit_ids, test_ids = forget_part[1].tensor_split(2)
    halves = [(forget_part[0], ids) for ids in (fit_ids, test_ids)]
    retain_features, fit_features, test_features = (
        features_of(model, cut, device) for cut in (retain_part, *halves)
    )
    retain_labels, fit_labels, truth = (source.labels[order] for source, order in (retain_part, *halves))
    fit, labels = torch.cat([retain_features, fit_features]), torch.cat([retain_labels, fit_labels])
    is_right = classify_linearly(fit, labels, test_features) == truth
    return {
        "probe": 100 * float(is_right.double().mean()),
        "silhouette": float(silhouettes(fit, labels, test_features, truth).mean()),
    }


def classify_linearly(fit: Features, labels: Labels, tested: Features) -> Labels:
    """The classes that ridge regression onto one-hot labels gives, see `ridge`."""
    return (tested @ ridge(fit, one_hot(labels).double())).argmax(1)


def silhouettes(fit: Features, labels: Labels, tested: Features, truth: Labels) -> Float64[Tensor, " tested"]:
    """(b - a) / max(a, b) of each example; a: distance from its own class mean, b: from the nearest other.

    From -1 to 1, and 0 if there is no mean of its class or of another one (Rousseeuw, 1987, with class means
    for all pairs). A class that was learned is compact and far from others, even where a linear classifier
    finds any class. Each feature is divided by its range over `fit`, because the scale and the shift of a
    unit can be moved into the next layer without a change of any answer; a constant feature is left out.
    """
    scale = fit.amax(0) - fit.amin(0)
    fit, tested = (each[:, scale > 0] / scale[scale > 0] for each in (fit, tested))
    classes = labels.unique()
    means = torch.stack([fit[labels == label].mean(0) for label in classes])
    distances, is_own = torch.cdist(tested, means), truth[:, None] == classes
    to_own, to_other = (distances.masked_fill(each, torch.inf).min(1).values for each in (~is_own, is_own))
    values = (to_other - to_own) / torch.maximum(to_other, to_own).clamp(min=1e-12)
    return values.where(to_own.isfinite() & to_other.isfinite(), 0.0)


def probe_size(forget_size: int) -> int:
    """The number of forget examples that the probe classifies: half of those it uses, at least one."""
    return max(1, min(forget_size, MOST) // 2)


def relearning(
    model: nn.Module,
    forget: Cut,
    *,
    device: torch.device | str,
    seed: int = 0,
    examples: int = 10,
    test_size: int = 200,
    rates: Sequence[float] = RATES,
    limit: int = 100,
) -> float:
    """1 + steps of fine-tuning on ten examples of F until half of the other examples of F are recognised.

    Plain gradient descent on all weights with the ten examples as one batch, in eval mode. The result is the
    geometric mean over several rates, because no rate suits every architecture; a rate that needs more than
    `limit` steps counts as `limit`.

    Args:
        model: The model; it is copied and stays unchanged.
        forget: The source and positions of the forget set; more than `examples`.
        device: The device of the model.
        seed: Chooses the examples.
        examples: The number of examples to learn.
        test_size: The largest number of other examples to classify.
        rates: Learning rates.
        limit: The largest number of steps at each rate.
    """
    if len(forget[1]) <= examples:
        raise ValueError(f"relearning needs more than {examples} forget examples, found {len(forget[1])}")
    source, order = sample(forget, examples + test_size, torch.Generator().manual_seed(seed))
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
    training, unseen_batch = source.stream(order)
    for step, student in enumerate(islice(train_copy(model, training, device, rate), limit)):
        if correctness(student, unseen_batch, device).mean() >= 0.5:
            return step
    return limit


def train_copy(
    model: nn.Module, training: Raw, device: torch.device | str, rate: float
) -> Iterator[nn.Module]:
    """Yields a copy of a model before training, and again after every step, without an end.

    The steps are plain gradient descent on all trainable weights with one batch, in eval mode.
    """
    refuse_copy(model, "relearning")
    student = copy.deepcopy(model).eval()
    weights = [weight for weight in student.parameters() if weight.requires_grad]
    inputs, target = to_device(training, device), training.label.to(device)
    while True:
        yield student
        loss = cross_entropy(call(student, inputs), target)
        gradient = torch.autograd.grad(loss, weights, allow_unused=True)
        with torch.no_grad():
            for weight, slope in zip(weights, gradient, strict=True):
                if slope is not None:
                    weight.sub_(slope, alpha=rate)


@torch.no_grad()
def correctness(model: nn.Module, batch: Raw, device: torch.device | str) -> Float64[Tensor, " batch"]:
    """1 for each example whose class the model names, else 0, on the CPU."""
    predictions = call(model, to_device(batch, device)).argmax(1)
    return (predictions == batch.label.to(device)).double().cpu()


def features_of(model: nn.Module, cut: Cut, device: torch.device | str) -> Float64[Tensor, "n feature"]:
    """The input of the last module with weights for each example, flat, on the CPU, without gradient."""
    source, order = cut
    with evaluating(model), last_input(model) as record, torch.no_grad():
        rows = []
        for raw in source.stream(order.split(BATCH)):
            call(model, to_device(raw, device))
            rows.append(record[-1].flatten(1).double().cpu())
    return torch.cat(rows)


@contextmanager
def last_input(model: nn.Module) -> Iterator[list[Tensor]]:
    """Yields a list that holds the input of the last module with weights after a forward pass."""
    record: list[Tensor] = []

    def remember(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        record[:] = inputs[:1]

    owners = [module for module in model.modules() if list(module.parameters(recurse=False))]
    handles = [module.register_forward_pre_hook(remember) for module in owners]
    try:
        yield record
    finally:
        for handle in handles:
            handle.remove()


def ridge(
    features: Float64[Tensor, "n feature"], target: Float64[Tensor, "n class"]
) -> Float64[Tensor, "feature class"]:
    """W = (A'A + 0.01 n I)^-1 A'Y: ridge regression on features A scaled to a root mean square of 1."""
    unit_features = features / features.square().mean().sqrt()
    gram = unit_features.T @ unit_features
    gram.diagonal().add_(RIDGE * len(features))
    return torch.linalg.solve(gram, unit_features.T @ target)


def sample(cut: Cut, most: int, generator: torch.Generator) -> Cut:
    """At most that many examples, drawn without replacement."""
    source, order = cut
    return source, order[torch.randperm(len(order), generator=generator)[:most]]
