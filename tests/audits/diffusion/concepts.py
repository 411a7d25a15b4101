"""Images of squares in three objects (levels of brightness) and two colours, and their exact recogniser."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from unweave.audits.diffusion.concept_prompts import ConceptPrompts, Prompt
from unweave.audits.diffusion.factor_recogniser import FactorRecogniser, RecognisedImages
from unweave.audits.score import Share

VALUES = {"object": ("two", "three", "four"), "colour": ("red", "blue")}
LEVELS = torch.tensor([60, 140, 220])
"""The brightness of each object."""


def one(name: str, colour: str) -> Prompt:
    return Prompt(f"a {colour} {name}", {"object": name, "colour": colour})


PROMPTS = ConceptPrompts(
    {"object": "three"},
    trained=(Prompt("a three"), Prompt("a red three")),
    paraphrased=(Prompt("two plus one"),),
    combined=(Prompt("a three beside a four"),),
    neighbours=(one("two", "red"), one("four", "red")),
    others=(one("two", "blue"), one("four", "blue")),
)


def squares(objects: Tensor, colours: Tensor, seed: int = 0) -> Tensor:
    """Images [n, 3, 8, 8]: the red or the blue channel has the brightness of the object, with some noise."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.zeros(len(objects), 3, 8, 8, dtype=torch.int64)
    noise = torch.randint(-20, 21, (len(objects), 8, 8), generator=generator)
    images[torch.arange(len(objects)), 2 * colours] = LEVELS[objects][:, None, None] + noise
    return images.to(torch.uint8)


@dataclass(frozen=True, eq=False)
class Exact(FactorRecogniser):
    """Recognises squares without error."""

    model: nn.Module = field(default_factory=nn.Identity)
    names: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: VALUES)
    shape: tuple[int, int, int] = (3, 8, 8)
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    scale: float = 100.0
    errors: Mapping[str, Share] = field(
        default_factory=lambda: {"object": Share(0, 100), "colour": Share(1, 100)}
    )

    def recognise(self, images: Tensor) -> RecognisedImages:
        means = images.double().mean(dim=(2, 3))
        level, colour = means.max(dim=1).values, (means[:, 2] > means[:, 0]).long()
        nearest = (level[:, None] - LEVELS.double()).abs()
        logits = {"object": -nearest.numpy(), "colour": 20 * np.eye(2)[colour.numpy()]}
        return RecognisedImages(logits, images.flatten(1).double().numpy() / self.scale, self.names)
