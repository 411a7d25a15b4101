"""Classifiers: one label per example, cross-entropy."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from unweave.data import Raw, Source
from unweave.data.keyed_draws import draw_key, uniform
from unweave.errors import Failed
from unweave.tasks import Batch, Predict, Task, call, evaluating, family_of

__all__ = ["Classifier"]


@dataclass(frozen=True)
class Classifier:
    """A model from inputs to logits of shape `[batch, class]`.

    Args:
        n_classes: The number of classes; labels are `0 .. n_classes - 1`.
    """

    family: ClassVar[str] = "classifier"
    n_classes: int

    def draw(self, raw: Raw, generator: torch.Generator) -> Batch:
        """Draws for each example a uniform class among the wrong ones."""
        key = draw_key(generator)
        return Batch(raw.ids, raw.inputs, raw.label, lambda: self.wrong_labels(raw, key), key=key)

    def wrong_labels(self, raw: Raw, key: int) -> Int[Tensor, " batch"]:
        """A wrong class for each example, determined by the key and its id."""
        return differ(raw.label, self.n_classes, uniform(raw.ids, key)[:, 0])

    def loss(
        self, output: Float[Tensor, "batch class"], target: Int[Tensor, " batch"]
    ) -> Float[Tensor, " batch"]:
        """Cross-entropy in nats."""
        return F.cross_entropy(output, target, reduction="none")

    def divergence(
        self, output: Float[Tensor, "batch class"], reference: Float[Tensor, "batch class"]
    ) -> Float[Tensor, " batch"]:
        r""":math:`KL(\mathrm{softmax}(reference) \,\|\, \mathrm{softmax}(output))` in nats."""
        p, q = reference.log_softmax(-1), output.log_softmax(-1)
        return (p.exp() * (p - q)).sum(-1)

    def mislabel(self, batch: Batch, predict: Predict) -> Tensor:
        """The wrong classes drawn with the batch."""
        return batch.other

    def refuse_unfit(self, model: nn.Module, data: Source, name: str) -> None:
        """Raises if the model can't be run on the data, or has no logit for one of its labels."""
        refuse_unfit(model, data, name)

    def refuse_collapsed(self, model: nn.Module, data: Source, ids: Int[Tensor, " n"]) -> None:
        """Raises if the model predicts one class for those examples, which have several labels."""
        refuse_collapsed(model, data, ids)


def classifies(task: Task) -> bool:
    """Whether the outputs of a task's models are logits of the label."""
    return family_of(task) == Classifier.family


def differ(labels: Int[Tensor, " batch"], n: int, draw: Float[Tensor, " batch"]) -> Int[Tensor, " batch"]:
    """Labels in `range(n)` that differ from `labels`, uniform if `draw` is uniform in [0, 1)."""
    return (labels + 1 + (draw.to(labels.device) * (n - 1)).long()) % n


def margin(logits: Float[Tensor, "batch class"], target: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    r"""The true-class margin :math:`z_y - \log \sum_{k \ne y} e^{z_k} = \log p_y / (1 - p_y)`, in nats."""
    true = target[:, None]
    other_logits = logits.scatter(1, true, float("-inf")).logsumexp(1)
    return logits.gather(1, true)[:, 0] - other_logits


def refuse_unfit(model: nn.Module, data: Source, name: str) -> None:
    """Raises if the model can't be run on the data, or has no output for one of its labels."""
    (raw,) = data.stream([torch.arange(min(2, len(data)))])
    try:
        with evaluating(model), torch.no_grad():
            output = call(model, to_device(raw, next(model.parameters()).device))
    except (Exception, SystemExit) as error:
        raise ValueError(f"the model can't be run on {name!r}: {type(error).__name__}: {error}") from error
    refuse_other_outputs(output, len(raw.ids))
    if int(data.labels.max()) >= output.shape[1]:
        expected, largest = f"0..{output.shape[1] - 1}, the model's outputs", int(data.labels.max())
        raise ValueError(f"labels of {name!r} must be in {expected}, found {largest}")


@torch.no_grad()
def refuse_collapsed(model: nn.Module, data: Source, ids: Int[Tensor, " n"]) -> None:
    """Raises if the model predicts one class for those examples, which have several labels."""
    if len(data.labels[ids].unique()) == 1:
        return
    answers: set[int] = set()
    with evaluating(model):
        for raw in data.stream(ids.split(1024)):
            answers |= set(call(model, raw.inputs).argmax(-1).unique().tolist())
            if len(answers) > 1:  # the rest of the data can't change that
                return
    answer = f"it answers class {answers.pop()} to all retain data"
    raise Failed(f"the model collapsed: {answer}; use a weaker forget loss or a lower learning rate")


def refuse_other_outputs(output: Tensor, n: int) -> None:
    """Raises if a model's outputs for n examples are not those of a classifier: logits [n, class]."""
    shape, expected = list(output.shape), f"unweave is for classifiers, whose logits have shape [{n}, class]"
    if shape in ([n], [n, 1]):
        raise ValueError(
            f"{expected}, found one number per example, of shape {shape}: give two logits, such as [0, z], "
            "where that is the logit z of two classes; a regression is not supported"
        )
    if output.ndim != 2 or len(output) != n:
        raise ValueError(f"{expected}, found {shape}: give one row of logits per example")


def to_device(raw: Raw, device: torch.device | str) -> tuple[Tensor, ...] | dict[str, Tensor]:
    """The inputs of a batch, on a device."""
    if isinstance(raw.inputs, dict):
        return {name: field.to(device) for name, field in raw.inputs.items()}
    return tuple(field.to(device) for field in raw.inputs)
