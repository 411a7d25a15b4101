"""Denoisers of 4 x 4 images that are trained in seconds, on all of four classes or on three of them."""

from functools import cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

import every_family
from trained_once import train_once
from unweave.audits.diffusion.drawing import Drawing
from unweave.data.datasets import as_images
from unweave.data.in_memory import Resident
from unweave.descent.descend import Descent
from unweave.descent.train import train_model
from unweave.split import Split
from unweave.tasks.diffusion import Diffusion
from unweave.tasks.diffusion.sampler import Sampler
from unweave.tasks.diffusion.schedule import Schedule

GONE = 3
SHAPE = (1, 4, 4)
TASK = Diffusion(4, schedule=Schedule(steps=50, end=0.3), null=4, drop=0.1)
HOW = Descent(lr=0.02, steps=200, batch=64, optimizer="adam", schedule="cosine")
# half of the pixels are bright, and each pair of classes differs in eight: rows of a Hadamard matrix
PATTERNS = torch.tensor([[(-1) ** (row & i).bit_count() for i in range(16)] for row in (1, 2, 4, 8)])


def source(n: int, seed: int) -> Resident:
    """Noisy images around the pattern of their class, as bytes."""
    labels = torch.arange(n) % 4
    noise = torch.randn(n, 16, generator=torch.Generator().manual_seed(seed))
    levels = (0.6 * PATTERNS[labels] + 0.1 * noise + 1) * 127.5
    return as_images(Resident(levels.clamp(0, 255).round().to(torch.uint8).view(-1, *SHAPE), labels))


def hit(images: Tensor) -> np.ndarray:
    """Which images correlate with the pattern of the forgotten class by more than 0.8."""
    levels = images.flatten(1).double() - 127.5
    return (torch.cosine_similarity(levels, PATTERNS[GONE].double()) > 0.8).numpy()


TRAIN, HELD_OUT = source(400, 1), source(40, 2)
IMAGES = TRAIN.inputs[TRAIN.labels == GONE]


@cache
def drawing(part: Literal["mixed", "retain"]) -> Drawing:
    """Draws from a denoiser that was trained on everything ("mixed") or without one class ("retain")."""
    split = Split(TRAIN, (TRAIN.labels == GONE).nonzero()[:, 0].tolist(), HELD_OUT)

    def train(model: nn.Module) -> None:
        trained = train_model(HOW, every_family.unet, split, part, 0, task=TASK).model
        model.load_state_dict(trained.state_dict())

    model = train_once(f"denoiser of {part} images", every_family.unet(), train).eval()
    return Drawing(model, TASK, SHAPE, Sampler("dpm", steps=8))
