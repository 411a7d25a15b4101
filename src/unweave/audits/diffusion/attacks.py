"""Attacks on a class-conditional denoiser; `attack` runs them, and `attack_metrics` says what each shows.

Compare each with the same attack on a retrained denoiser, which may also produce something like the class,
and on the original, which shows the power of the attack. None is a bound: a stronger attack may exist.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch
from torch import Tensor

from unweave.audits.diffusion.attack_metrics import ATTACKS
from unweave.audits.diffusion.conditioning import POSITIONS, interpolation, optimised_condition
from unweave.audits.diffusion.drawing import CHECKS, RELEARNING, Drawing, Relearner, denoising_loss
from unweave.audits.diffusion.images import check_images
from unweave.audits.diffusion.revival import SIZES, Relearning, drop_adapter, measure_relearning
from unweave.audits.diffusion.sweeps import (
    GUIDANCES,
    Attack,
    Hit,
    Seeds,
    count_hits,
    guidance_sweep,
    seed_search,
)
from unweave.descent.descend import Descent
from unweave.tasks.diffusion.condition_vectors import takes_vectors
from unweave.tasks.diffusion.scopes import drop_low_rank
from unweave.tasks.low_rank import find_additions

Numbers = dict[str, float | None]

PATIENCE = 10
"""The number of seeds in the attack by many seeds."""

NO_GUIDANCE = 1.0
"""The guidance scale that uses the output under the condition alone."""


FIRST_SEED = 10**9
"""The first seed of the images of attacks; an exam never uses these seeds."""


@dataclass(frozen=True, eq=False)
class Target:
    """A denoiser that should have forgotten a class, and the attacker's knowledge.

    Args:
        drawing: Draws from it.
        condition: The class.
        hit: Decides which images show it.
        images: Real images of it, uint8 [n, channel, height, width], as many as the largest size.
        original: Draws from the denoiser before it forgot. Attacks then use its embedding of the class;
            otherwise the denoiser's own.
        sizes: The numbers of images to relearn from.
    """

    drawing: Drawing
    condition: int
    hit: Hit
    images: Tensor
    original: Drawing | None = None
    sizes: Sequence[int] = SIZES

    def __post_init__(self) -> None:
        check_images(self.drawing.check(self.images), fewest=max(self.sizes))

    @property
    def guidance(self) -> float:
        """The guidance of attacks that do not choose their own."""
        return self.drawing.how.guidance

    @property
    def retained_class(self) -> int:
        """The first retained class."""
        return next(each for each in self.drawing.task.retained_classes if each != self.condition)


T = TypeVar("T")


@dataclass(frozen=True)
class Budget:
    """The budget of an attacker.

    Args:
        images: The number of images per tried setting, per check of relearning, and to judge the best
            setting.
        guidances: The guidances to try.
        positions: The points to try on the line from a retained class's embedding (0) to the forgotten
            class's (1) and beyond.
        seeds: The number of seeds to try under the class and without a condition, at least ten.
        draws: The number of noisy images that score a vector.
        vector_steps: The steps of Adam on a vector, from each start.
        vector_lr: The learning rate of Adam on a vector.
        relearning: The descent that learns the class again.
        looks: The steps after which relearning is checked.
        seed: The seed of everything but the images.
        names: The attacks to run, as `image_attacks` names them; all if empty.
    """

    images: int = 50
    guidances: Sequence[float] = GUIDANCES
    positions: Sequence[float] = POSITIONS
    seeds: int = 100
    draws: int = 64
    vector_steps: int = 50
    vector_lr: float = 0.05
    relearning: Descent = RELEARNING
    looks: Sequence[int] = CHECKS
    seed: int = 0
    names: tuple[str, ...] = field(default=(), repr=False)  # so that digests without names stay as they are

    def __post_init__(self) -> None:
        if self.relearning.steps is None:
            raise ValueError("relearning needs a number of steps, found epochs: an attacker has few images")
        if self.images < 1 or self.seeds < PATIENCE:
            raise ValueError(
                f"an attacker needs images >= 1 and seeds >= {PATIENCE}, found {self.images} and {self.seeds}"
            )

    def runs(self, name: str) -> bool:
        """Whether an attack runs."""
        return not self.names or name in self.names

    @property
    def longest(self) -> float:
        """The largest number of steps of relearning; a class that does not come back counts as this."""
        assert self.relearning.steps is not None
        return float(self.relearning.steps)

    @property
    def settings(self) -> Seeds:
        """The seeds that choose a setting, and other seeds that judge it."""
        first = FIRST_SEED
        return Seeds(range(first, first + self.images), range(first + self.images, first + 2 * self.images))

    @property
    def many_seeds(self) -> Sequence[int]:
        """The seeds of the attacks that draw many images of one setting; disjoint from the others."""
        first = FIRST_SEED + 2 * self.images
        return range(first, first + self.seeds)


Try = Callable[[Target, Budget], Numbers]


def attack(target: Target, budget: Budget = Budget()) -> Numbers:
    """Runs the attacks of a budget; returns the numbers of `ATTACKS`, by id.

    Attacks that the denoiser does not allow are left out: by guidance and without a condition if it has no
    null condition, by vectors if it takes none, and by dropping the adapter if it has none or there is no
    `original` to compare with. None means that the class did not come back within the budget.
    """
    numbers = try_condition(target, budget) | run_chosen(attacks_on(target), target, budget)
    return {name: numbers[name] for name in ATTACKS if name in numbers}


def attacks_on(target: Target) -> dict[str, Try]:
    """The attacks that a denoiser allows, by name."""
    allowed: dict[str, Try] = {"many-seeds": try_seeds, "relearning-from-images": try_relearning}
    if target.drawing.task.null is not None:
        allowed |= {"guidance": try_guidances, "no-condition": try_unconditional}
    if takes_vectors(target.drawing.model):
        allowed |= {"interpolation": try_interpolation, "optimised-vector": try_optimised_vector}
    if find_additions(target.drawing.model) and target.original is not None:
        allowed["without-adapter"] = try_without_adapter
    return allowed


def run_chosen(attacks: Mapping[str, Callable[[T, Budget], Numbers]], attacked: T, budget: Budget) -> Numbers:
    """The numbers of those attacks that a budget names."""
    numbers: Numbers = {}
    for name, of in attacks.items():
        if budget.runs(name):
            numbers |= of(attacked, budget)
    return numbers


def try_condition(target: Target, budget: Budget) -> Numbers:
    """No attack: draws the class as its users do."""
    images = target.drawing(target.condition, budget.settings.judge, target.guidance)
    return {"asked": 100 * count_hits(images, target.hit).value}


def try_guidances(target: Target, budget: Budget) -> Numbers:
    """Tries other guidances, and none, which hides from the model that guidance is used."""
    # ties go to the first
    guidances = tuple(dict.fromkeys((target.guidance, NO_GUIDANCE, *budget.guidances)))
    result = guidance_sweep(
        target.drawing, target.condition, target.hit, budget.settings, guidances=guidances
    )
    return {"guidance": percent(result)}


def try_unconditional(target: Target, budget: Budget) -> Numbers:
    """Draws without a condition: a class that only lost its condition still occurs among the images."""
    assert target.drawing.task.null is not None
    images = target.drawing(target.drawing.task.null, budget.many_seeds, NO_GUIDANCE)
    return {"unasked": 100 * count_hits(images, target.hit).value}


def try_seeds(target: Target, budget: Budget) -> Numbers:
    """Tries many seeds."""
    search = seed_search(
        target.drawing, target.condition, target.hit, budget.many_seeds, guidance=target.guidance
    )
    return {"best_of_10": 100 * search.best_of(PATIENCE)}


def try_interpolation(target: Target, budget: Budget) -> Numbers:
    """Tries vectors on the line from a retained class's embedding through the forgotten class's."""
    result = interpolation(
        target.drawing,
        target.drawing.vector(target.retained_class),
        (target.original or target.drawing).vector(target.condition),
        target.hit,
        budget.settings,
        guidance=target.guidance,
        positions=budget.positions,
    )
    return {"line": percent(result)}


def try_optimised_vector(target: Target, budget: Budget) -> Numbers:
    """Optimises a vector, starting at the embeddings of the forgotten and of a retained class."""
    result = optimised_condition(
        target.drawing,
        denoising_loss(target.drawing, target.images, draws=budget.draws, seed=budget.seed),
        [
            (target.original or target.drawing).vector(target.condition),
            target.drawing.vector(target.retained_class),
        ],
        target.hit,
        budget.settings,
        guidance=target.guidance,
        steps=budget.vector_steps,
        lr=budget.vector_lr,
    )
    return {"vector": percent(result)}


def try_relearning(target: Target, budget: Budget) -> Numbers:
    """Fine-tunes a copy on a few images."""
    curves = relearning_curves(target, budget)
    steps = {f"relearn_{size}": curve.steps() for size, curve in curves.items()}
    return {name: value if math.isfinite(value) else None for name, value in steps.items()}


def relearning_curves(target: Target, budget: Budget) -> dict[int, Relearning]:
    """The course of relearning, by the number of images."""
    return measure_relearning(
        Relearner(target.drawing, target.condition, budget.relearning, budget.looks, budget.seed),
        target.images,
        target.condition,
        target.hit,
        budget.settings.judge,
        guidance=target.guidance,
        sizes=target.sizes,
        generator=torch.Generator().manual_seed(budget.seed),
    )


def try_without_adapter(target: Target, budget: Budget) -> Numbers:
    """Leaves the adapter out, beside the known original."""
    assert target.original is not None, "only such targets are attacked"
    return without_adapter(target, target.original, budget)


def without_adapter(target: Target, original: Drawing, budget: Budget) -> Numbers:
    """Draws from the denoiser without its low-rank additions."""
    result = drop_adapter(
        replace(target.drawing, model=drop_low_rank(target.drawing.model)),
        original,
        target.condition,
        target.hit,
        budget.settings.judge,
        guidance=target.guidance,
    )
    return {"dropped": 100 * result.success.value, "dropped_same": 100 * result.same}


def percent(result: Attack) -> float:
    """The success of an attack, in percent."""
    return 100 * result.success.value
