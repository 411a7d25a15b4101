"""Notes on a model and its data before unlearning: problems, and facts worth knowing."""

from collections import Counter
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.overrides import TorchFunctionMode

from unweave.cli.project import Project
from unweave.data import Source
from unweave.families.classifier import GLANCE
from unweave.split import Split, first_few
from unweave.tasks import call, evaluating

LOW = (torch.bfloat16, torch.float16)
NOISE = 1e-4
"""The largest difference of two passes that counts as rounding, in logits or in pixels from -1 to 1."""

COMPARED = 1_000_000
"""The largest number of training examples that are compared: each is read, and takes 200 bytes."""


def notes(model: nn.Module, project: Project) -> Iterator[str]:
    """Yields one sentence per note."""
    yield from about_weights(model)
    yield from about_layers(model, project)
    yield from about_data(project)
    if project.retrain is None:
        obstacle = missing_retraining(project)
        yield f"{obstacle}: references can't be retrained, so an audit will be INCONCLUSIVE"


def about_influence(figures: Mapping[str, float], split: Split) -> Iterator[str]:
    """A note if a classifier answers the forget set as it answers held-out data.

    The AUC must be within two standard errors of one half, and the accuracies within two of each other. A
    class forgotten whole has influence all the same: a retrained model would not know it.

    Args:
        figures: The glances of the model, by id.
        split: The request.
    """
    if not {"ua", "ta", "auc"} <= figures.keys() or split.forgotten_classes:
        return
    n, m, k = (min(len(part), GLANCE) for part in (split.forget, split.calibration, split.test))
    error = sqrt((n + m + 1) / (12 * n * m))
    right, held_out = 1 - figures["ua"] / 100, figures["ta"] / 100
    pooled_accuracy = (n * right + k * held_out) / (n + k)
    spread = sqrt(pooled_accuracy * (1 - pooled_accuracy) * (1 / n + 1 / k))
    if abs(figures["auc"] - 0.5) <= 2 * error and abs(right - held_out) <= 2 * spread:
        yield (
            "the model answers the forget set as data that it never saw: probably the forget set has no "
            "measurable influence, and an audit will be INCONCLUSIVE"
        )


def missing_retraining(project: Project) -> str:
    """What a retrain lacks: train() in a project, a recipe for a folder."""
    return "no train(dataset, seed)" if project.source is None else "no --recipe that says how to train"


def about_weights(model: nn.Module) -> Iterator[str]:
    """Notes on frozen weights, and on weights with too few digits."""
    weights = dict(model.named_parameters())
    frozen_names = [name for name, p in weights.items() if not p.requires_grad]
    if frozen_names:
        share = sum(weights[name].numel() for name in frozen_names) / sum(p.numel() for p in weights.values())
        yield f"{share:.0%} of the weights are frozen, first {frozen_names[0]!r}: they keep what they know"
    low_names = [name for name, p in weights.items() if p.requires_grad and p.dtype in LOW]
    if low_names:
        dtype = str(weights[low_names[0]].dtype).removeprefix("torch.")
        which = f"trainable weights in {dtype}, first {low_names[0]!r}"
        yield (
            f"{which}: LUR's virtual step would be rounded away; load the model in float32 (model.float()), "
            "and then how.precision=bf16 runs its passes in bfloat16"
        )


def about_layers(model: nn.Module, project: Project) -> Iterator[str]:
    """Notes on layers that rule out some modes, and on noise."""
    modules = list(model.modules())
    dropout = [each for each in modules if isinstance(each, _DropoutNd) and each.p]
    if dropout:
        layers = "1 dropout layer" if len(dropout) == 1 else f"{len(dropout)} dropout layers"
        yield f"{layers}: off while unlearning; how.dropout=same draws one mask a step; mode exact refuses it"
    if any(isinstance(each, _BatchNorm) for each in modules):
        yield "BatchNorm: its statistics follow the retain set; how.norm=frozen keeps them"
    has_attention, noise, outputs = compare_passes(model, project)
    if outputs.ndim == 2 and are_distributions(outputs):
        yield (
            "the outputs of each example are probabilities, and unweave applies a softmax to outputs: if the "
            "model ends in a softmax, return the logits before it"
        )
    if has_attention or any(isinstance(each, nn.MultiheadAttention) for each in modules):
        yield "attention: mode exact runs it by torch's plain kernel; fused ones have no second derivative"
    if noise > NOISE:
        yield f"two passes in evaluation mode differ by {noise:.2g} in their outputs: figures will not repeat"


class Attention(TorchFunctionMode):
    """Records whether the body uses torch's fused attention."""

    was_called = False

    def __torch_function__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204  # torch's own signature
        """Calls the function and records whether it is fused attention."""
        self.was_called |= func is torch.nn.functional.scaled_dot_product_attention
        return func(*args, **(kwargs or {}))


def are_distributions(outputs: Tensor) -> bool:
    """Whether no row has a negative number, and each adds up to 1, as after a softmax."""
    sums = outputs.float().sum(-1)
    return bool((outputs >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-2)


def compare_passes(model: nn.Module, project: Project) -> tuple[bool, float, Tensor]:
    """Whether a pass over two examples uses fused attention, how far two passes differ, and the outputs."""
    train = project.train.to(next(model.parameters()).device)
    task, generator = project.family.task(1 + int(train.labels.max())), torch.Generator().manual_seed(0)
    (raw,) = train.stream([torch.arange(min(2, len(train)))])
    inputs = task.draw(raw, generator).inputs
    with evaluating(model), torch.no_grad(), Attention() as mode:
        first, second = call(model, inputs), call(model, inputs)
    return mode.was_called, float((first - second).abs().max()), first


def about_data(project: Project) -> Iterator[str]:
    """Notes on labels in only one of training and test data, and on repeated examples."""
    train_set, test_set = (set(source.labels.unique().tolist()) for source in (project.train, project.test))
    if test_set - train_set:
        yield f"labels of the test data that no training example has: {first_labels(test_set - train_set)}"
    if train_set - test_set:
        labels = first_labels(train_set - test_set)
        yield f"labels that no test example has: {labels}; forgetting them can't be audited"
    if len(project.train) > COMPARED:
        yield (
            f"copies among the {len(project.train):,} training examples, and test examples that are training "
            f"examples as well, were not looked for: check compares at most {COMPARED:,} training examples"
        )
        return
    train, test = content_digests(project.train), content_digests(project.test)
    times = Counter(train)
    copies = len(train) - len(times)
    if copies:
        twin = name_of(project.train, next(i for i, content in enumerate(train) if times[content] > 1))
        yield f"{copies} training examples are copies of others, first {twin}: forget all copies or none"
    duplicates = set(train) & set(test)
    if duplicates:
        twin = name_of(project.test, next(i for i, content in enumerate(test) if content in duplicates))
        note = f"{len(duplicates)} test examples are training examples as well, first {twin}"
        yield f"{note}: the model has seen them"


def content_digests(source: Source) -> list[bytes]:
    """The digest of each example's inputs."""
    return [
        digest
        for raw in source.stream(torch.arange(len(source)).split(1024))
        for digest in digests(raw.inputs)
    ]


def digests(inputs: tuple[Tensor, ...] | dict[str, Tensor]) -> list[bytes]:
    """The digest of each example of a batch."""
    fields = list(inputs.values()) if isinstance(inputs, dict) else list(inputs)
    rows = [
        field.detach().cpu().reshape(len(field), -1).contiguous().view(torch.uint8).numpy()
        for field in fields
    ]
    return [
        blake2b(b"".join(field[i] for field in rows), digest_size=16).digest() for i in range(len(rows[0]))
    ]


def name_of(source: Source, position: int) -> str:
    """An example's id, or its position."""
    return repr(source.names[position]) if source.names is not None else f"position {position}"


def first_labels(labels: set[int]) -> str:
    """The first of some labels."""
    return first_few(map(str, sorted(labels)))
