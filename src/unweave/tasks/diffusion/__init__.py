"""Class-conditional diffusion: the model says which noise was added to an image, given its class."""

import math
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from unweave.choices import refuse_unknown_choices
from unweave.data import Raw
from unweave.data.keyed_draws import draw_key, normal, uniform
from unweave.tasks import Batch, Inputs, Predict, Task
from unweave.tasks.diffusion.schedule import Schedule

Times = Literal["uniform", "antithetic"]
Reduction = Literal["mean", "sum"]
Other = Literal["random", "next", "fixed", "null", "away", "noise"]

DRAWN = 3
"""Numbers that are drawn for an example before its noise: time, dropping, counterfactual."""


@dataclass(frozen=True)
class Diffusion:
    """A model `f(x_t, t, condition)` from noisy images of shape `[batch, channel, height, width]` to theirs.

    Forget examples of a class in `forgotten` keep their condition: dropping it would make the model forget
    them without a condition as well. Where it is dropped from another example, the counterfactual is no
    condition too, so that a frozen teacher's answer holds the model there and does not move it.

    Args:
        n_classes: The number of classes; labels are `0 .. n_classes - 1`.
        schedule: The noise schedule, with what the model predicts.
        null: The condition that stands for none; None where the model was trained without.
        drop: How often a condition is replaced by `null`; 0.1 is usual where there is one.
        times: One time per example, independent ("uniform"); or, as the released code of DDPM, Selective
            Amnesia and SalUn has it, the second half of a batch at `T - 1 - t` of the first ("antithetic").
            Pairs are made by position among what this process reads, so several processes then draw other
            times than one.
        other: Whose answer a counterfactual is: that of a random other class, of the next one (SalUn's
            released code), of the one class `anchor`, or of no condition ("null"). Or the answer without a
            condition, led away from that under the condition ("away", negative guidance as in ESD); or
            nobody's: fresh noise, which has nothing to do with the image ("noise").
        anchor: The class that "fixed" takes.
        away: How far "away" leads: the scale eta of :func:`guide_away`.
        forgotten: Classes that are forgotten altogether: no counterfactual, and never dropped. Empty while an
            original is trained.
        reduction: The squared error per example, over channels and pixels: its mean; or its sum, which is
            what the loss weights of Selective Amnesia, SalUn and SFRon on CIFAR-10 refer to.
        names: What the three inputs are called where the model takes them by name; by position if None.

    Raises:
        ValueError: If these do not fit together.
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
        """The classes that are not forgotten altogether."""
        return tuple(c for c in range(self.n_classes) if c not in self.forgotten)

    def draw(self, raw: Raw, generator: torch.Generator) -> Batch:
        """The images at a time of their own; noise, time, dropping and counterfactual hang on id and key."""
        clean = images(raw)
        refuse_unknown(raw.target, self.n_classes)
        key = draw_key(generator)
        draws = uniform(raw.ids, key, DRAWN)
        noise, time = keyed_noise(raw.ids, key, clean, 0), self.times_from(draws[:, 0])
        dropped = (draws[:, 1] < self.drop) & ~isin(raw.target, self.forgotten)
        condition, other = raw.target, self.other_condition(raw.target, draws[:, 2])
        if self.null is not None:
            condition, other = (value.masked_fill(dropped, self.null) for value in (condition, other))
        inputs = self.named_inputs(self.schedule.add_noise(clean, noise, time), time, condition)
        return Batch(raw.ids, inputs, self.schedule.target(clean, noise, time), other, key=key)

    def times_from(self, draw: Float64[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        """Times from uniform numbers."""
        times = (draw * self.schedule.steps).long()
        if self.times == "uniform":
            return times
        half = times[: len(times) // 2 + 1]
        return torch.cat([half, self.schedule.steps - 1 - half])[: len(times)]

    def other_condition(
        self, label: Int[Tensor, " batch"], draw: Float64[Tensor, " batch"]
    ) -> Int[Tensor, " batch"]:
        """For each label a condition that is another, and no forgotten class; `draw` is uniform in [0, 1)."""
        if self.other in ("fixed", "null", "away"):
            chosen = self.anchor if self.other == "fixed" else self.null
            assert chosen is not None
            return torch.full_like(label, chosen)
        kept = device_integers(self.retained_classes, label.device)
        choices = len(kept) - isin(label, self.retained_classes).long()
        ahead = 0 if self.other == "next" else (draw * choices).long()
        # counted from the first kept class after the label, so that its own comes last and is never reached
        return kept[(torch.searchsorted(kept, label, right=True) + ahead) % len(kept)]

    def named_inputs(self, noisy: Tensor, time: Tensor, condition: Tensor) -> Inputs:
        """What the model is called with."""
        values = (noisy, time, condition)
        return values if self.names is None else dict(zip(self.names, values, strict=True))

    def loss(
        self, output: Float[Tensor, "batch *shape"], target: Float[Tensor, "batch *shape"]
    ) -> Float[Tensor, " batch"]:
        """The squared error per example, over channels and pixels."""
        if output.shape != target.shape:
            raise ValueError(
                f"the model must answer in the shape of the images, {list(target.shape)}, found "
                f"{list(output.shape)}: cut off what it says of the variance"
            )
        error = (output - target).square().flatten(1)
        return error.mean(1) if self.reduction == "mean" else error.sum(1)

    def divergence(
        self, output: Float[Tensor, "batch *shape"], reference: Float[Tensor, "batch *shape"]
    ) -> Float[Tensor, " batch"]:
        """The same between two models' answers to the same noisy images."""
        return self.loss(output, reference)

    def mislabel(self, batch: Batch, predict: Predict) -> Tensor:
        """What a teacher says of the same noisy images at the same times under the drawn other condition.

        For "away" it is asked without and with the condition; for "noise" it is not asked, and where the
        condition is dropped the target stays the true one.
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

        The surrogate distribution of Selective Amnesia (Heng & Soh, 2023) for pixels. An example whose
        condition is dropped keeps its image: noise would teach the model to forget without a condition too.
        """
        noisy, time, condition = self.parts(batch)
        noise, pixels = keyed_noise(batch.ids, batch.key, noisy, 0), keyed_pixels(batch.ids, batch.key, noisy)
        kept = self.is_unconditional(condition, noisy)
        x = torch.where(kept, noisy, self.schedule.add_noise(pixels, noise, time))
        target = torch.where(kept, batch.target, self.schedule.target(pixels, noise, time))
        inputs = self.named_inputs(x, time, condition)
        return Batch(batch.ids, inputs, target, batch.counterfactual, batch.forget, batch.key)

    def parts(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """The noisy images, their times and their conditions."""
        inputs = batch.inputs
        noisy, time, condition = (
            inputs if isinstance(inputs, tuple) else (inputs[n] for n in self.names or ())
        )
        return noisy, time, condition

    def is_unconditional(self, condition: Int[Tensor, " batch"], like: Tensor) -> Tensor:
        """Which examples have no condition, shaped to choose among `like`."""
        none = torch.zeros_like(condition) if self.null is None else condition == self.null
        return none.bool().view(-1, *[1] * (like.ndim - 1))


def denoising(task: Task) -> Diffusion:
    """The task, if it is one of diffusion.

    Raises:
        ValueError: If it is another.
    """
    if not isinstance(task, Diffusion):
        raise ValueError(
            f"this method is for denoisers and needs the task Diffusion, found {type(task).__name__}"
        )
    return task


def guide_away(start: Tensor, said: Tensor, plain: Tensor, eta: float) -> Tensor:
    r""":math:`\epsilon_\mathrm{start} - \eta\, (\epsilon_c - \epsilon_0)`: negative guidance.

    Gandikota et al., 2023, https://arxiv.org/abs/2303.07345.

    Args:
        start: The answer that is led.
        said: The answer under the condition that is led away from.
        plain: The answer without a condition.
        eta: How far.
    """
    return start - eta * (said - plain)


def keyed_noise(ids: Int[Tensor, " batch"], key: int, like: Tensor, number: int) -> Tensor:
    """The noise of that number of each example, in the shape and type of `like`."""
    size = math.prod(like.shape[1:])
    return normal(uniform(ids, key, size, first=DRAWN + number * size)).to(like.dtype).view_as(like)


def keyed_pixels(ids: Int[Tensor, " batch"], key: int, like: Tensor) -> Tensor:
    """Uniform pixels in [-1, 1] for each example, in the shape and type of `like`."""
    size = math.prod(like.shape[1:])
    return (2 * uniform(ids, key, size, first=DRAWN + 2 * size) - 1).to(like.dtype).view_as(like)


def images(raw: Raw) -> Float[Tensor, "batch channel height width"]:
    """The images: bytes as numbers in [-1, 1]; floats, in [-1, 1] or latents, as they are.

    Raises:
        ValueError: If an example is not one image.
    """
    fields = list(raw.inputs.values() if isinstance(raw.inputs, dict) else raw.inputs)
    if len(fields) != 1 or fields[0].ndim != 4:
        shapes = [list(field.shape[1:]) for field in fields]
        raise ValueError(f"an example must be one image [channel, height, width], found {shapes}")
    (found,) = fields
    if found.dtype == torch.uint8:
        return found.float() / 127.5 - 1
    if not found.is_floating_point():
        raise ValueError(f"images must be bytes or floats in [-1, 1], found {found.dtype}")
    return found


def refuse_unknown(label: Int[Tensor, " batch"], n: int) -> None:
    """Raises if a label is no class: the first one beyond may be the index that stands for no condition."""
    known = ((label >= 0) & (label < n)).all()
    if label.device.type != "cpu":
        torch._assert_async(known)  # reading it would make every step wait for the device
    elif not bool(known):
        raise ValueError(f"labels must be in 0..{n - 1}, found {int(label.min())} to {int(label.max())}")


def isin(label: Int[Tensor, " batch"], classes: tuple[int, ...]) -> Tensor:
    """Which labels are among those classes."""
    return torch.isin(label, device_integers(classes, label.device))


@cache
def device_integers(values: tuple[int, ...], device: torch.device) -> Int[Tensor, " n"]:
    """Integers on a device, kept there: a copy at every step would wait for the step before."""
    return torch.tensor(values, dtype=torch.long, device=device)
