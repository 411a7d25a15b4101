"""A request to a tiny Stable Diffusion: to forget "a three" among colours and numbers."""

import copy
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch

from stable_diffusion import COLOURS, NUMBERS, write_pipeline
from unweave.data.latents import Latents
from unweave.problem import Problem
from unweave.split import Split
from unweave.tasks.diffusion.autoencoder import encode
from unweave.tasks.diffusion.scopes import Scope
from unweave.tasks.diffusion.stable_diffusion import StableDiffusion, load
from unweave.tasks.diffusion.text_to_image import Prompts, make_task, number_prompts

CAPTIONS = [f"a {colour} {number}" for number in NUMBERS for colour in COLOURS] * 2
GONE = [each for each in CAPTIONS if "three" in each]


@cache
def pipeline() -> StableDiffusion:
    """The pipeline, as it was read from disk."""
    with tempfile.TemporaryDirectory() as place:
        return load(write_pipeline(Path(place) / "sd"))


def prompts(target: str | None = "a four", kept: Sequence[str] = ()) -> Prompts:
    return number_prompts(CAPTIONS, concepts=["a three"], forgotten=GONE, kept=kept, target=target)


@cache
def split(prompt_list: Prompts, dtype: torch.dtype) -> Split:
    """The latents of random images, six of each part held out."""
    pixels = torch.randint(256, (18, 3, 16, 16), generator=torch.Generator().manual_seed(1)).byte()
    mean, deviation = (each.to(dtype) for each in encode(pipeline().autoencoder, pixels))
    labels = torch.tensor([prompt_list.number(each) for each in (CAPTIONS * 2)[:18]])
    data = Latents(mean, deviation, labels)
    train = data.rows(torch.arange(12))
    return Split(train, [i for i in range(12) if CAPTIONS[i] in GONE], data.rows(torch.arange(12, 18)))


@cache
def given(prompt_list: Prompts, scope: Scope, dtype: torch.dtype) -> torch.nn.Module:
    return pipeline().model(prompt_list, scope, rank=2).to(dtype)


def request(
    scope: Scope = "cross-attention",
    *,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    target: str | None = "a four",
    kept: tuple[str, ...] = (),
) -> Problem:
    """A fresh request."""
    prompt_list = prompts(target, kept)
    model = copy.deepcopy(given(prompt_list, scope, dtype))
    task = make_task(prompt_list, pipeline().schedule)
    return Problem(task, model, split(prompt_list, dtype), torch.Generator().manual_seed(seed))
