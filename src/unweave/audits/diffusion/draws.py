"""The models that an audit of a concept takes."""

from typing import Protocol, runtime_checkable

from torch import nn

from unweave.audits.diffusion.drawing import Drawing
from unweave.audits.diffusion.text_attacks import TextEncoder
from unweave.tasks.diffusion.sampler import Sampler


@runtime_checkable
class Draws(Protocol):
    """A model that draws images of its prompts."""

    encoder: TextEncoder

    def drawing(self, how: Sampler) -> Drawing:
        """What draws from it."""
        ...


def require_draws(model: nn.Module) -> Draws:
    """Returns the model if it draws images of its prompts.

    Raises:
        ValueError: If it does not.
    """
    if not isinstance(model, Draws):
        kind = type(model).__name__
        raise ValueError(f"an audit of a concept needs a PromptedPipeline, found {kind}: make one of it")
    return model
