"""Several factors of an image at once: one softmax for each, over neighbouring outputs of one model."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from unweave.data import Raw
from unweave.data.keyed_draws import draw_key
from unweave.tasks import Batch, Predict


@dataclass(frozen=True)
class Factors:
    """A model from inputs to the logits of all factors, one factor after the other.

    A label is one number for the values of all factors (see `join_values`).

    Args:
        sizes: The number of values of each factor.
    """

    family: ClassVar[str] = "factors"
    sizes: tuple[int, ...]

    def draw(self, raw: Raw, generator: torch.Generator) -> Batch:
        """Makes a batch; nothing is drawn."""
        return Batch(raw.ids, raw.inputs, raw.label, raw.label, key=draw_key(generator))

    def loss(
        self, output: Float[Tensor, "batch value"], target: Int[Tensor, " batch"]
    ) -> Float[Tensor, " batch"]:
        """The sum of the cross-entropies of the factors, in nats."""
        pairs = zip(output.split(self.sizes, 1), split_values(target, self.sizes), strict=True)
        return torch.stack([F.cross_entropy(*pair, reduction="none") for pair in pairs]).sum(0)

    def divergence(
        self, output: Float[Tensor, "batch value"], reference: Float[Tensor, "batch value"]
    ) -> Float[Tensor, " batch"]:
        """The sum of the divergences KL(reference, output) of the factors, in nats."""
        total = torch.zeros(len(output), dtype=output.dtype, device=output.device)
        for logits, target in zip(output.split(self.sizes, 1), reference.split(self.sizes, 1), strict=True):
            p, q = target.log_softmax(-1), logits.log_softmax(-1)
            total += (p.exp() * (p - q)).sum(-1)
        return total

    def mislabel(self, batch: Batch, predict: Predict) -> Tensor:
        """Raises: a recogniser of factors is trained, never edited."""
        raise ValueError("a model of several factors has no wrong label: forget in a classifier")


def join_values(values: Sequence[Int[Tensor, " n"]], sizes: Sequence[int]) -> Int[Tensor, " n"]:
    """One number for the values of all factors: mixed-radix digits, the last factor varies fastest."""
    number = torch.zeros_like(values[0])
    for value, size in zip(values, sizes, strict=True):
        number = number * size + value
    return number


def split_values(numbers: Int[Tensor, " n"], sizes: Sequence[int]) -> list[Int[Tensor, " n"]]:
    """The values of all factors from one number each."""
    return [numbers // math.prod(sizes[place + 1 :]) % size for place, size in enumerate(sizes)]
