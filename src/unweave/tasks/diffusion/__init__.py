"""Conditional diffusion: the model predicts the noise that was added to an image of a class or a prompt.

A condition is a number: a class, or the place of a prompt in the model's list. Images are pixels or latents.
"""

import logging
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from unweave.choices import refuse_unknown_choices
from unweave.data import Raw
from unweave.data.keyed_draws import draw_key, uniform
from unweave.tasks import Batch, Inputs, Predict
from unweave.tasks.diffusion.keyed_images import DRAWN, images, keyed_latents, keyed_noise, keyed_pixels
from unweave.tasks.diffusion.schedule import Schedule

__all__ = ["Diffusion"]

# diffusers imports image processors that are not used here; without torchvision, transformers warns of each
logging.getLogger("transformers.utils.import_utils").addFilter(
    lambda record: "ImageProcessor` requires torchvision (not installed)" not in record.getMessage()
)

Times = Literal["uniform", "antithetic"]
Reduction = Literal["mean", "sum"]
Space = Literal["pixels", "latents"]
Other = Literal["random", "next", "fixed", "null", "away", "noise"]


@dataclass(frozen=True)
class Diffusion:
    """A model `f(x_t, t, condition)` from noisy images of shape `[batch, channel, height, width]` to theirs.

    Forget examples of a class in `forgotten` keep their condition: dropping it would make the unconditional
    model forget them too. If the condition of another example is dropped, its counterfactual is the null
    condition too, so that a frozen teacher keeps the unconditional model unchanged.

    Args:
        n_classes: The number of classes; labels are `0 .. n_classes - 1`.
        schedule: The noise schedule, with the prediction target of the model.
        null: The index of the null condition; None if the model was trained without one.
        drop: The probability of replacing a condition by `null`; usually 0.1.
        times: "uniform": one independent time per example. "antithetic": the second half of a batch at `T - 1
            - t` of the first, as in the released code of DDPM, Selective Amnesia and SalUn. Pairs are formed
            within this process, so several processes draw other times than one.
        other: The counterfactual target: the output under a random other class, under the next class (SalUn's
            released code), under the class `anchor`, or without a condition ("null"); the output without a
            condition, guided away from that under the condition ("away", negative guidance as in ESD); or
            fresh noise unrelated to the image ("noise").
        anchor: The class for "fixed".
        away: The strength of "away": the scale eta of :func:`guide_away`.
        forgotten: Classes forgotten whole: never a counterfactual, and never dropped. Empty for the training
            of an original.
        reduction: The squared error per example, over channels and pixels: the mean, or the sum, to which the
            loss weights of Selective Amnesia, SalUn and SFRon on CIFAR-10 refer.
        names: The names of the three inputs, if the model takes them by name; by position if None.
        space: Whether the model denoises pixels or latents. A latent is drawn from the distribution that an
            autoencoder gives for the image, once in a batch: all passes of a step see the same.

    Raises:
        ValueError: If these settings do not fit together.
    """

    family: ClassVar[str] = "diffusion"
    n_classes: int
    schedule: Schedule = Schedule()
    null: int | None = None
    drop: float = 0.0
    times: Times = "uniform"
    other: Other = "random"
    anchor: int | None = None
    away: float = 1.0
    forgotten: tuple[int, ...] = ()
    reduction: Reduction = "mean"
    names: tuple[str, str, str] | None = None
    space: Space = "pixels"

    def __post_init__(self) -> None:
        refuse_unknown_choices(self)
        if self.n_classes < 2 or not 0 <= self.drop < 1:
            raise ValueError(
                f"expected two classes and drop in [0, 1), found {self.n_classes} and drop={self.drop}"
            )
        if self.null is None and (self.drop or self.other in ("null", "away")):
            raise ValueError(
                "drop and the counterfactuals 'null' and 'away' need the index that stands for no condition: "
                "pass null="
            )
        if self.null is not None and 0 <= self.null < self.n_classes:
            raise ValueError(f"null must not be one of the {self.n_classes} classes, found {self.null}")
        if self.other == "fixed" and self.anchor not in self.retained_classes:
            raise ValueError(
                f"other='fixed' needs a class that is not forgotten as anchor, found {self.anchor}"
            )
        if not self.retained_classes or not set(self.forgotten) <= set(range(self.n_classes)):
            raise ValueError(
                f"forgotten must name some but not all of {self.n_classes} classes, found {self.forgotten}"
            )

    @property
    def retained_classes(self) -> tuple[int, ...]:
        """The classes that are not forgotten whole."""
        forgotten = set(self.forgotten)
        return tuple(c for c in range(self.n_classes) if c not in forgotten)

    def draw(self, raw: Raw, generator: torch.Generator) -> Batch:
        """Draws time, noise, dropping and counterfactual of each image from its id and the key."""
        condition = raw.label
        refuse_unknown(condition, self.n_classes)
        key = draw_key(generator)
        clean = self.clean_images(raw, key)
        draws = uniform(raw.ids, key, DRAWN)
        noise, time = keyed_noise(raw.ids, key, clean, 0), self.times_from(draws[:, 0])
        is_dropped = (draws[:, 1] < self.drop) & ~isin(raw.label, self.forgotten)
        other = self.other_condition(condition, draws[:, 2])
        if self.null is not None:
            condition, other = (value.masked_fill(is_dropped, self.null) for value in (condition, other))
        inputs = self.named_inputs(self.schedule.add_noise(clean, noise, time), time, condition)
        return Batch(raw.ids, inputs, self.schedule.target(clean, noise, time), other, key=key)

    def clean_images(self, raw: Raw, key: int) -> Float[Tensor, "batch channel height width"]:
        """The images without noise: pixels as they are, or latents drawn by id and key.

        Raises:
            ValueError: If an example is no image, or no distribution of latents.
        """
        return images(raw) if self.space == "pixels" else keyed_latents(raw, key)

    def times_from(self, draw: Float64[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        """Converts uniform numbers to times."""
        times = (draw * self.schedule.steps).long()
        if self.times == "uniform":
            return times
        half = times[: len(times) // 2 + 1]
        return torch.cat([half, self.schedule.steps - 1 - half])[: len(times)]

    def other_condition(
        self, condition: Int[Tensor, " batch"], draw: Float64[Tensor, " batch"]
    ) -> Int[Tensor, " batch"]:
        """Another condition than each, never a forgotten class; `draw` is uniform in [0, 1)."""
        if self.other in ("fixed", "null", "away"):
            replacement = self.anchor if self.other == "fixed" else self.null
            assert replacement is not None
            return torch.full_like(condition, replacement)
        classes = device_integers(self.retained_classes, condition.device)
        choices = len(classes) - isin(condition, self.retained_classes).long()
        offset = 0 if self.other == "next" else (draw * choices).long()
        # counted from the first kept class after the condition, so its own comes last and is never reached
        return classes[(torch.searchsorted(classes, condition, right=True) + offset) % len(classes)]

    def named_inputs(self, noisy: Tensor, time: Tensor, condition: Tensor) -> Inputs:
        """The inputs of the model."""
        values = (noisy, time, condition)
        return values if self.names is None else dict(zip(self.names, values, strict=True))

    def loss(
        self, output: Float[Tensor, "batch *shape"], target: Float[Tensor, "batch *shape"]
    ) -> Float[Tensor, " batch"]:
        """The squared error per example, over channels and pixels."""
        if output.shape != target.shape:
            raise ValueError(
                f"the model must answer in the shape of the images, {list(target.shape)}, found "
                f"{list(output.shape)}: cut off the predicted variance"
            )
        error = (output - target).square().flatten(1)
        return error.mean(1) if self.reduction == "mean" else error.sum(1)

    def divergence(
        self, output: Float[Tensor, "batch *shape"], reference: Float[Tensor, "batch *shape"]
    ) -> Float[Tensor, " batch"]:
        """The squared error between the outputs of two models on the same noisy images."""
        return self.loss(output, reference)

    def mislabel(self, batch: Batch, predict: Predict) -> Tensor:
        """A teacher's output on the same noisy images at the same times under the drawn other condition.

        For "away" the teacher runs without and with the condition. For "noise" it is not used, and examples
        with a dropped condition keep the true target.
        """
        noisy, time, condition = self.parts(batch)
        if self.other == "noise":
            noise = keyed_noise(batch.ids, batch.key, batch.target, 1)
            return torch.where(self.is_unconditional(condition, noise), batch.target, noise)
        plain = predict(self.named_inputs(noisy, time, batch.other))
        if self.other == "away":
            return guide_away(plain, predict(batch.inputs), plain, self.away)
        return plain

    def surrogate(self, batch: Batch) -> Batch:
        r"""The batch with images of independent pixels :math:`\sim U[-1, 1]`, at the same times and noise.

        The surrogate distribution of Selective Amnesia (Heng & Soh, 2023) for pixels; latents are
        :math:`\sim N(0, 1)`, which is ours. An example whose condition is dropped keeps its image: noise
        would teach the model to forget without a condition too.
        """
        noisy, time, condition = self.parts(batch)
        noise = keyed_noise(batch.ids, batch.key, noisy, 0)
        pixels = (
            keyed_pixels(batch.ids, batch.key, noisy)
            if self.space == "pixels"
            else keyed_noise(batch.ids, batch.key, noisy, 2)
        )
        is_unconditional = self.is_unconditional(condition, noisy)
        x = torch.where(is_unconditional, noisy, self.schedule.add_noise(pixels, noise, time))
        target = torch.where(is_unconditional, batch.target, self.schedule.target(pixels, noise, time))
        inputs = self.named_inputs(x, time, condition)
        return Batch(batch.ids, inputs, target, batch.counterfactual, batch.forget, batch.key)

    def parts(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """The noisy images, times and conditions of a batch."""
        inputs = batch.inputs
        noisy, time, condition = (
            inputs if isinstance(inputs, tuple) else (inputs[n] for n in self.names or ())
        )
        return noisy, time, condition

    def is_unconditional(self, condition: Int[Tensor, " batch"], like: Tensor) -> Tensor:
        """Which examples have no condition, shaped to choose among `like`."""
        is_null = torch.zeros_like(condition) if self.null is None else condition == self.null
        return is_null.bool().view(-1, *[1] * (like.ndim - 1))


def guide_away(start: Tensor, conditional: Tensor, unconditional: Tensor, eta: float) -> Tensor:
    r""":math:`\epsilon_\mathrm{start} - \eta\, (\epsilon_c - \epsilon_0)`: negative guidance.

    Gandikota et al., 2023, https://arxiv.org/abs/2303.07345.

    Args:
        start: The output to guide.
        conditional: The output under the condition to avoid.
        unconditional: The output without a condition.
        eta: The strength.
    """
    return start - eta * (conditional - unconditional)


def refuse_unknown(label: Int[Tensor, " batch"], n: int) -> None:
    """Raises if a label is no class; one label too large may be the null condition."""
    is_known = ((label >= 0) & (label < n)).all()
    if label.device.type != "cpu":
        torch._assert_async(is_known)  # reading a value would make every step wait for the device
    elif not bool(is_known):
        raise ValueError(f"labels must be in 0..{n - 1}, found {int(label.min())} to {int(label.max())}")


def isin(label: Int[Tensor, " batch"], classes: tuple[int, ...]) -> Tensor:
    """Which labels are among those classes."""
    return torch.isin(label, device_integers(classes, label.device))


@cache
def device_integers(values: tuple[int, ...], device: torch.device) -> Int[Tensor, " n"]:
    """Integers on a device, cached: a copy at every step would wait for the previous step."""
    return torch.tensor(values, dtype=torch.long, device=device)
