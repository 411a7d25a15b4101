"""Collects the evidence of an audit in one pass of a model over its split."""

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from jaxtyping import Float32, Int64, Shaped
from torch import Tensor, nn

from unweave.audits.classifier.evidence import Evidence
from unweave.data import Source
from unweave.tasks import call, evaluating
from unweave.tasks.classifier import to_device

Cut = tuple[Source, Int64[Tensor, "_"]]  # a source and the positions of a part in it


def collect(
    model: nn.Module,
    parts: Mapping[str, Cut],
    *,
    device: torch.device | str,
    n_classes: int | None = None,
    batch_size: int = 1024,
    forgotten_classes: tuple[int, ...] = (),
) -> Evidence:
    """Collects the logits of every example: eval mode, fp32, no augmentation; the model stays unchanged.

    Args:
        model: Called as `model(*inputs)` or `model(**inputs)`; returns logits `[batch, class]` or an object
            with `.logits`.
        parts: The source and the positions of each part.
        device: The device of the model.
        n_classes: The expected number of logits per example; any number if None.
        batch_size: Examples per forward pass; it changes no logit beyond rounding.
        forgotten_classes: Classes forgotten whole (see `Evidence`).

    Raises:
        ValueError: If the model does not return one row of `n_classes` logits per example.
    """
    with evaluating(model):
        logits = {part: logits_of(model, cut, device, n_classes, batch_size) for part, cut in parts.items()}
    has_names = any(source.names is not None for source, _ in parts.values())
    return Evidence(
        logits=logits,
        labels={part: source.labels[order].numpy() for part, (source, order) in parts.items()},
        ids={part: _ids(*cut, has_names=has_names) for part, cut in parts.items()},
        forgotten_classes=forgotten_classes,
    )


def logits_of(
    model: nn.Module,
    cut: Cut,
    device: torch.device | str,
    n_classes: int | None = None,
    batch_size: int = 1024,
) -> Float32[np.ndarray, "n class"]:
    """The logits of some examples, in the present mode of the model; see `collect`."""
    source, order = cut
    return logits_of_batches(model, source, order.split(batch_size), device, n_classes)


def logits_of_batches(
    model: nn.Module,
    source: Source,
    batches: Iterable[Int64[Tensor, "_"]],
    device: torch.device | str,
    n_classes: int | None = None,
) -> Float32[np.ndarray, "n class"]:
    """The logits of batches of examples, one after the other; see `collect`."""
    rows = []
    with torch.no_grad(), torch.autocast(torch.device(device).type, enabled=False):
        for raw in source.stream(batches):
            output = call(model, to_device(raw, device))
            if output.ndim != 2 or len(output) != len(raw.ids) or n_classes not in (None, output.shape[1]):
                expected_shape, shape = f"[{len(raw.ids)}, {n_classes or 'class'}]", list(output.shape)
                raise ValueError(f"expected logits of shape {expected_shape} from the model, found {shape}")
            rows.append(output.float().cpu())
    return torch.cat(rows).numpy()


def _ids(source: Source, order: Int64[Tensor, " n"], *, has_names: bool) -> Shaped[np.ndarray, " n"]:
    """Ids, or positions: as text if another part has ids, because a file has one column for both."""
    if source.names is not None:
        return np.array([source.names[position] for position in order.tolist()])
    return order.numpy().astype(str) if has_names else order.numpy()
