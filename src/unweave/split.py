"""A user's data in four parts: forget, retain, calibration and test."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.utils.data import Dataset

from unweave.data import Source
from unweave.data.arrow_dataset import read_by_columns
from unweave.data.names import find_names
from unweave.data.positions import read_list, read_positions
from unweave.data.user_dataset import UserDataset
from unweave.record.files import write_atomically

__all__ = ["Split"]

Part = Literal["forget", "retain", "mixed", "calibration", "test"]
PARTS: tuple[Part, ...] = ("forget", "retain", "calibration", "test")
"""`mixed` is forget and retain together, as the original model saw them."""


class Split:
    """A user's data in four parts: forget set, retain set, calibration set and test set.

    Forget set and retain set divide the training data of the model. The calibration set is held out: methods
    may use it for tuning, and membership attacks take their non-members from it. The test set is for the
    final report alone.

    Args:
        train: The training data: any map-style `Dataset` of tuples or dicts, or a `Source`.
        forget: The forget set: positions in `train`, or ids if the examples have ids; no mask.
        test: Held-out data, which the model was not trained on.
        calibration: The fraction of `test` for the calibration set, or the positions in it.
        seed: Chooses the examples of that fraction.

    Raises:
        ValueError: If an id or a position is unknown, out of range, repeated or no whole number; if the
            forget set is empty or all of the training data; if a label is negative; if fewer than two
            examples are held out; or if the calibration set is empty or all of them.
    """

    def __init__(
        self,
        train: Dataset | Source,
        forget: Iterable[int] | Iterable[str] | Int[Tensor, " n"],
        test: Dataset | Source,
        *,
        calibration: float | Iterable[int] = 0.5,
        seed: int = 0,
    ) -> None:
        self.train, self.held_out = as_source(train), as_source(test)
        for name, source in (("training", self.train), ("test", self.held_out)):
            if len(source.labels) and int(source.labels.min()) < 0:
                raise ValueError(f"labels of the {name} data must be >= 0, found {int(source.labels.min())}")
        self.forget = positions(self.train, forget)
        self.calibration, self.test = cut_held_out(len(self.held_out), calibration, seed)

    @cached_property
    def is_forget(self) -> Bool[Tensor, " n"]:
        """Which training examples are in the forget set."""
        return torch.zeros(len(self.train), dtype=torch.bool).index_fill_(0, self.forget, True)

    @cached_property
    def retain(self) -> Int[Tensor, " retain"]:
        """Positions of the retain set in the training data."""
        return (~self.is_forget).nonzero()[:, 0]

    @cached_property
    def n_classes(self) -> int:
        """The largest label plus one."""
        return 1 + int(max(self.train.labels.max(), self.held_out.labels.max()))

    @cached_property
    def forgotten_classes(self) -> tuple[int, ...]:
        """Classes without an example in the retain set, that is, forgotten whole."""
        forgotten, retained = (self.train.labels[ids].unique().tolist() for ids in (self.forget, self.retain))
        return tuple(sorted(set(forgotten) - set(retained)))

    def part(self, name: Part) -> tuple[Source, Int[Tensor, " n"]]:
        """The source of a part, and the positions of the part in it."""
        if name == "mixed":
            return self.train, torch.arange(len(self.train))
        source = self.train if name in ("forget", "retain") else self.held_out
        return source, {"forget": self.forget, "calibration": self.calibration, "test": self.test}.get(
            name, self.retain
        )

    def digest(self, *parts: Part) -> str:
        """A digest of the data and positions of these parts, in any order; of all four by default.

        `digest("mixed")` identifies the training data of an original model, `digest("retain")` that of a
        retrained reference.
        """
        sha = hashlib.sha256()
        for name in sorted(parts or ("forget", "retain", "calibration", "test")):
            source, ids = self.part(name)
            sha.update(f"{source.digest()}:{len(ids)}:".encode())
            sha.update(ids.sort().values.numpy().astype("<i8").tobytes())
        return sha.hexdigest()

    def save(self, path: str | Path) -> None:
        """Writes the digest and the positions of two parts as JSON; retain and test set are the rest."""
        parts: tuple[Part, ...] = ("forget", "calibration")
        content = {"digest": self.digest(), **{name: self.part(name)[1].tolist() for name in parts}}
        write_atomically(Path(path), json.dumps(content))

    @classmethod
    def load(cls, path: str | Path, train: Dataset | Source, test: Dataset | Source) -> "Split":
        """Reads the split that `save` wrote, for the same data.

        Raises:
            ValueError: If the file is no split, or the split was made from other data.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            digest = str(content["digest"])
            forget, calibration = ([int(i) for i in content[part]] for part in ("forget", "calibration"))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"expected a split in {path}, found another file ({error!r})") from error
        other = f"the split in {path} was made from other data"
        try:
            split = cls(train, forget, test, calibration=calibration)
        except ValueError as error:
            raise ValueError(f"{other}: {error}") from error
        if split.digest() != digest:
            raise ValueError(f"{other}: its digest is {digest[:12]}, this data gives {split.digest()[:12]}")
        return split


def as_source(data: Dataset | Source) -> Source:
    """The data itself if it is a `Source`, otherwise a `Source` that reads it by columns or a DataLoader."""
    return data if isinstance(data, Source) else read_by_columns(data) or UserDataset(data)


def positions(source: Source, ids: Iterable[int] | Iterable[str] | Tensor) -> Int[Tensor, " n"]:
    """Checks the examples and returns their positions, sorted."""
    places = source_positions(source, ids)
    refuse_repeated(source, places)
    if not 0 < len(places) < len(source):
        raise ValueError(
            f"forget must name some but not all of the {len(source)} training examples, found {len(places)}"
        )
    return places.sort().values


def refuse_repeated(source: Source, places: Int[Tensor, " n"]) -> None:
    """Raises if a position occurs twice; the message gives ids if the examples have them."""
    distinct_places, counts = places.unique(return_counts=True)
    if len(distinct_places) == len(places):
        return
    repeated_places = distinct_places[counts > 1].tolist()
    ids = source.names
    names = [f"position {place}" if ids is None else repr(ids[place]) for place in repeated_places]
    repeats = (
        f"{names[0]} twice" if len(names) == 1 else f"{len(names)} of {len(places)} again: {first_few(names)}"
    )
    raise ValueError(f"each example can be forgotten once, found {repeats}")


def source_positions(
    source: Source, examples: Iterable[int] | Iterable[str] | Iterable[int | str] | Int[Tensor, " n"]
) -> Int[Tensor, " n"]:
    """The position of each example, given by position or id.

    Raises:
        ValueError: If some do not exist; the message gives their number and the first of them.
    """
    entries = [] if isinstance(examples, Tensor) else read_list(examples, "forget")
    ids = [each for each in entries if isinstance(each, str)]
    if ids:
        result = named_positions(source, entries, ids)
    else:
        result = read_positions(examples if isinstance(examples, Tensor) else entries, "forget")
    invalid_positions = result[(result < 0) | (result >= len(source))].tolist()
    if invalid_positions:
        note = f"{count_of(invalid_positions, result)} not: " if len(invalid_positions) > 1 else ""
        raise ValueError(
            f"positions must be in 0..{len(source) - 1}, found {note}{first_few(map(str, invalid_positions))}"
        )
    return result


def named_positions(source: Source, examples: Sequence[object], ids: Sequence[str]) -> Int[Tensor, " n"]:
    """The position of each example, given by position or id, of which some are ids."""
    names = source.names  # only if they are needed: that may read the whole data set
    if names is None:
        raise ValueError(f"expected positions, found the id {ids[0]!r}: the training data has no ids")
    indices = find_names(names, ids).tolist()
    unknown = [name for name, place in zip(ids, indices, strict=True) if place < 0]
    if unknown:
        note = f"{count_of(unknown, examples)} not: {first_few(map(repr, unknown))}"
        raise ValueError(f"ids must be those of training examples, found {note}")
    places = iter(indices)
    return read_positions([next(places) if isinstance(each, str) else each for each in examples], "forget")


def count_of(subset: Sequence[object], total: Sequence[object] | Tensor) -> str:
    """The beginning of a sentence: "2 of 7 that are"."""
    return f"{len(subset)} of {len(total)} that {'is' if len(subset) == 1 else 'are'}"


def first_few(names: Iterable[str]) -> str:
    """The first five names, with an ellipsis if there are more."""
    listing = list(names)
    return ", ".join(listing[:5]) + (", ..." if len(listing) > 5 else "")


def cut_held_out(n: int, calibration: object, seed: int) -> tuple[Tensor, Tensor]:
    """Positions of the calibration set and the test set among `n` held-out examples.

    Args:
        n: The number of held-out examples.
        calibration: A fraction, or positions.
        seed: Chooses the examples of a fraction.
    """
    if n < 2:
        raise ValueError(
            "the test data must hold at least two examples, one for calibration and one for test, "
            f"found {n}: give more"
        )
    if isinstance(calibration, int | float):
        if not 0 < calibration < 1:
            raise ValueError(f"calibration must be a fraction in (0, 1) or positions, found {calibration}")
        order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
        count = max(1, min(n - 1, round(calibration * n)))
        return order[:count].sort().values, order[count:].sort().values
    if isinstance(calibration, str) or not isinstance(calibration, Iterable):
        raise ValueError(
            f"calibration must be a fraction in (0, 1) or positions, found {calibration!r:.80}: give one"
        )
    places = read_positions(calibration, "calibration")
    calibration_part = places.unique()
    if not len(places) or len(calibration_part) < len(places):
        raise ValueError(
            "calibration must be a fraction or positions, at least one and each once, found "
            f"{len(places)} positions, {len(calibration_part)} of them different"
        )
    first, last = int(calibration_part[0]), int(calibration_part[-1])
    if not 0 <= first <= last < n:
        raise ValueError(
            f"calibration must be positions in 0..{n - 1} of the test data, found {first}..{last}"
        )
    if len(places) == n:
        raise ValueError(f"calibration must leave a test example, found all {n} positions")
    test_part = torch.ones(n, dtype=torch.bool).index_fill_(0, calibration_part, False).nonzero()[:, 0]
    return calibration_part, test_part
