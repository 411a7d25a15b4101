"""The data of a recipe, split as it specifies."""

from collections.abc import Callable

import torch

from unweave.bench import strata
from unweave.bench.setup import Data
from unweave.data import Source
from unweave.data.datasets import flip_labels
from unweave.data.datasets import load as load_data
from unweave.data.in_memory import Resident
from unweave.data.planted import Planted, plant_backdoor, plant_canaries, plant_swap
from unweave.families import DEFAULT_FAMILY
from unweave.families.family import Family
from unweave.split import Split

Choose = Callable[[Source, Source], torch.Tensor]
"""Returns the positions of the forget set, from training data and held-out data."""


def make_split(
    data: Data,
    *,
    family: Family = DEFAULT_FAMILY,
    device: str = "cpu",
    choose: Choose | None = None,
) -> Split:
    """Loads the data and splits it into four parts.

    Args:
        data: The data and its forget set.
        family: The family of the models.
        device: The device of batches.
        choose: Chooses the forget set, if trained models do.

    Raises:
        ValueError: If there is no such example, or trained models must choose and there are none.
    """
    clean, held_out = load_sources(data, family, device)
    if data.plant.kind != "none":
        planted_data = plant(data, clean)
        return Split(planted_data.source, planted_data.known, held_out, seed=data.seed)
    train = clean
    if data.noise:
        train = flip_labels(clean, data.noise, 1 + int(clean.labels.max()), data.seed + 1)
    if data.forget not in strata.TRAINED:
        forget = _forget_positions(data, clean, train, data.seed + 2)
    elif choose is None:
        raise ValueError(
            f"forget = {data.forget!r} needs models that only a benchmark trains: use unweave bench, or "
            "forget the ids in its record"
        )
    else:
        forget = choose(train, held_out)
    return Split(train, forget, held_out, seed=data.seed)


def load_sources(data: Data, family: Family, device: str) -> tuple[Source, Source]:
    """The training data before any change, and the held-out data."""
    sources = load_data(data.name, folder=data.folder, limit=data.limit, seed=data.seed, augment=data.augment)
    train, held_out = (family.source(each).to(device) for each in sources)
    return train, held_out


def plant(data: Data, clean: Source) -> Planted:
    """The training data with the planted examples of a recipe.

    Raises:
        ValueError: If they can't be planted into this data.
    """
    assert isinstance(clean, Resident), "data sets that have a name are in memory"
    how, seed = data.plant, data.seed + 3
    match how.kind:
        case "backdoor":
            return plant_backdoor(
                clean, how.fraction, target=how.target, size=how.size, known=how.known, seed=seed
            )
        case "swap":
            one, other = how.classes
            return plant_swap(clean, how.fraction, classes=(one, other), known=how.known, seed=seed)
        case _:
            return plant_canaries(clean, how.fraction, sigma=how.sigma, known=how.known, seed=seed)


def _forget_positions(data: Data, clean: Source, train: Source, seed: int) -> torch.Tensor:
    """Positions of the forget set; `clean` has the labels before the noise."""
    size, generator = round(data.fraction * len(train)), torch.Generator().manual_seed(seed)
    match data.forget:
        case "random":
            return torch.randperm(len(train), generator=generator)[:size]
        case "mislabelled":
            flipped_positions = (train.labels != clean.labels).nonzero()[:, 0]
            return flipped_positions[torch.randperm(len(flipped_positions), generator=generator)[:size]]
        case "class":
            positions = (train.labels == data.label).nonzero()[:, 0]
            if len(positions) == 0:
                labels = f"0..{int(train.labels.max())}"
                raise ValueError(
                    f"label must be one of the training data's, {labels}, found {data.label}: set it in "
                    "[data] of the recipe"
                )
            return positions
        case _:
            return torch.tensor(data.ids, dtype=torch.long)
