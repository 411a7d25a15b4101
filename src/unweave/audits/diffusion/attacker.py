"""What an attacker has: a denoiser, real images of the class that it should have forgotten, and a budget."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from unweave.audits.diffusion.conditioning import POSITIONS
from unweave.audits.diffusion.drawing import CHECKS, RELEARNING, Drawing
from unweave.audits.diffusion.images import check_images
from unweave.audits.diffusion.relearning import SIZES
from unweave.audits.diffusion.sweeps import GUIDANCES, Hit, Seeds
from unweave.descent.descend import Descent

PATIENCE = 10
"""The number of seeds in the attack by many seeds."""

FIRST_SEED = 10**9
"""The first seed of the images of attacks; an exam never uses these seeds."""


@dataclass(frozen=True, eq=False)
class Target:
    """A denoiser that should have forgotten a class, and the attacker's knowledge.

    Args:
        drawing: Draws from it.
        condition: The class.
        hit: Decides which images show it.
        images: Real images of it, uint8 [n, channel, height, width], at least as many as the largest size.
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
