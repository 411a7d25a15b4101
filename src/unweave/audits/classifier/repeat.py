"""Asks a classifier some questions again: its answer to an example must not depend on the batch or on chance.

An audit asks for all answers once, in large batches of one part each. A model that answers otherwise in other
batches has no figures that a user would see; a model that does so on purpose hides from the audit.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from unweave.audits.classifier.collect import Cut, logits_of_batches
from unweave.audits.classifier.evidence import Evidence
from unweave.audits.classifier.logits import probabilities
from unweave.errors import Failed

PARTS = ("forget", "retain")
MOST = 64
"""The most examples of each part."""
SIZES = (1, 1, 1, 5)
"""The sizes of batches, in turn: users ask for single answers, which a model could answer otherwise."""
TOLERANCE = 0.1
"""The largest total variation of two answers to one example: rounding in half precision stays far below."""


def refuse_varying_answers(
    model: nn.Module, cuts: Mapping[str, Cut], evidence: Evidence, *, device: torch.device | str
) -> None:
    """Raises if forget or retain examples get other answers in small, mixed batches.

    Args:
        model: The model, in the mode in which it was asked before.
        cuts: The training source, with the positions of forget set and retain set.
        evidence: The answers to compare with.
        device: The device of the model.

    Raises:
        Failed: If an answer differs by more than `TOLERANCE`, or the model can't answer one example alone.
    """
    generator = torch.Generator().manual_seed(0)
    rows = {part: torch.randperm(len(cuts[part][1]), generator=generator)[:MOST] for part in PARTS}
    order = torch.cat([cuts[part][1][rows[part]] for part in PARTS])
    logits = np.concatenate([evidence.logits[part][rows[part].numpy()] for part in PARTS])
    permutation = torch.randperm(len(order), generator=generator)
    batches = order[permutation].split(split_sizes(len(order)))
    try:
        repeat_logits = logits_of_batches(model, cuts["forget"][0], batches, device, logits.shape[1])
    except ValueError as error:
        raise Failed(f"the model must answer one example alone, as a user asks: {error}") from error
    distances = (
        np.abs(probabilities(repeat_logits) - probabilities(logits[permutation.numpy()])).sum(axis=1) / 2
    )
    count = int((~(distances <= TOLERANCE)).sum())  # NaN is different as well
    if count:
        raise Failed(
            f"the same example got another answer in another batch: {count} of {len(order)} differ "
            f"by over {TOLERANCE:g} of the probability; an audit needs a model whose answer depends on the "
            "example alone: switch off what draws random numbers or mixes the examples of a batch"
        )


def split_sizes(n: int) -> list[int]:
    """Sizes of batches that add up to n."""
    ends = np.cumsum(np.resize(SIZES, n)).clip(max=n)
    return [int(size) for size in np.diff(ends, prepend=0) if size]
