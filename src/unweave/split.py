"""A user's data cut four ways: forget, retain, calibration and test."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.utils.data import Dataset

from unweave.data import Source
from unweave.data.user_dataset import Loaded
from unweave.record.files import write_atomically

Part = Literal["forget", "retain", "mixed", "calibration", "test"]
PARTS: tuple[Part, ...] = ("forget", "retain", "calibration", "test")
"""`mixed` is forget and retain together, as the original model saw them."""


class Split:
    """A user's data cut four ways by position: forget, retain, calibration and test.

    Forget and retain cut the data that the model was trained on. Calibration is held out: methods may use it
    for tuning, and membership attacks take their non-members from it. Test is reported once.

    Args:
        train: The training data: any map-style `Dataset` of tuples or dicts, or a `Source`.
        forget: What to forget: positions in `train`, or names if the examples have ids.
        test: Data that the model never saw.
        calibration: The fraction of `test` that is set aside for it, or the positions there.
        seed: Chooses which part of `test` that is.

    Raises:
        ValueError: If an id or a position is unknown, out of range or named twice, if nothing or everything
            is to be forgotten, if a label is negative, or if fewer than two examples are held out, or none
            is for calibration.
    """

    def __init__(
        self,
        train: Dataset | Source,
        forget: Sequence[int] | Sequence[str] | Int[Tensor, " n"],
        test: Dataset | Source,
        *,
        calibration: float | Sequence[int] = 0.5,
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
        """Which training examples are to be forgotten."""
        return torch.zeros(len(self.train), dtype=torch.bool).index_fill_(0, self.forget, True)

    @cached_property
    def retain(self) -> Int[Tensor, " retain"]:
        """Positions of the training examples that stay."""
        return (~self.is_forget).nonzero()[:, 0]

    @cached_property
    def n_classes(self) -> int:
        """One more than the largest label."""
        return 1 + int(max(self.train.labels.max(), self.held_out.labels.max()))

    @cached_property
    def forgotten_classes(self) -> tuple[int, ...]:
        """Classes of which no training example stays."""
        gone = set(self.train.labels[self.forget].tolist()) - set(self.train.labels[self.retain].tolist())
        return tuple(sorted(gone))

    def part(self, name: Part) -> tuple[Source, Int[Tensor, " n"]]:
        """The source of a part, and its positions there."""
        if name == "mixed":
            return self.train, torch.arange(len(self.train))
        source = self.train if name in ("forget", "retain") else self.held_out
        return source, {"forget": self.forget, "calibration": self.calibration, "test": self.test}.get(
            name, self.retain
        )

    def digest(self, *parts: Part) -> str:
        """A digest of the data and positions of these parts, whatever their order; of all four by default.

        `digest("mixed")` names the data that an original model must have been trained on, `digest("retain")`
        those of a retrained one.
        """
        whole = hashlib.sha256()
        for name in sorted(parts or ("forget", "retain", "calibration", "test")):
            source, ids = self.part(name)
            whole.update(f"{source.digest()}:{len(ids)}:".encode())
            whole.update(ids.sort().values.numpy().astype("<i8").tobytes())
        return whole.hexdigest()

    def save(self, path: str | Path) -> None:
        """Writes the positions of the four parts and the digest as JSON."""
        parts: tuple[Part, ...] = ("forget", "retain", "calibration", "test")
        content = {"digest": self.digest(), **{name: self.part(name)[1].tolist() for name in parts}}
        write_atomically(Path(path), json.dumps(content))

    @classmethod
    def load(cls, path: str | Path, train: Dataset | Source, test: Dataset | Source) -> "Split":
        """The split that `save` wrote, over the same data.

        Raises:
            ValueError: If the file is another one, or the data is not what the split was made from.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            digest = str(content["digest"])
            forget, calibration = ([int(i) for i in content[part]] for part in ("forget", "calibration"))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"expected a split in {path}, found another file ({error!r})") from error
        split = cls(train, forget, test, calibration=calibration)
        if split.digest() != digest:
            raise ValueError(
                f"the split in {path} was made from other data: its digest is {digest[:12]}, "
                f"this data gives {split.digest()[:12]}"
            )
        return split


def as_source(data: Dataset | Source) -> Source:
    """The data itself, or a DataLoader's view of a user's data set."""
    return data if isinstance(data, Source) else Loaded(data)


def positions(source: Source, ids: Sequence[int] | Sequence[str] | Tensor) -> Int[Tensor, " n"]:
    """Sorted positions of the named examples, checked."""
    found = source_positions(source, ids.tolist() if isinstance(ids, Tensor) else ids)
    refuse_repeated(source, found)
    if not found or len(found) == len(source):
        raise ValueError(
            f"forget must name some but not all of the {len(source)} training examples, found {len(found)}"
        )
    return torch.tensor(sorted(found), dtype=torch.long)


def refuse_repeated(source: Source, places: Sequence[int]) -> None:
    """Raises if a position is there twice; says the ids where examples have some."""
    again = [place for place, times in Counter(places).items() if times > 1]
    if not again:
        return
    known = source.names
    names = [f"position {place}" if known is None else repr(known[place]) for place in again]
    found = (
        f"{names[0]} twice" if len(names) == 1 else f"{len(names)} of {len(places)} again: {first_few(names)}"
    )
    raise ValueError(f"each example can be forgotten once, found {found}")


def source_positions(source: Source, examples: Sequence[int | str | np.integer]) -> list[int]:
    """The position of each example, given that or its name.

    Raises:
        ValueError: If some are not there; says how many, and the first of them.
    """
    ids = [example for example in examples if isinstance(example, str)]
    # names are asked for once, and only where they are needed: that may read the whole data set
    names = source.names if ids else ()
    if names is None:
        raise ValueError(f"expected positions, found the id {ids[0]!r}: the training data has no ids")
    places = {name: place for place, name in enumerate(names)}
    unknown = [name for name in ids if name not in places]
    if unknown:
        found = f"{count_of(unknown, examples)} not: {first_few(map(repr, unknown))}"
        raise ValueError(f"ids must be those of training examples, found {found}")
    found = [places[example] if isinstance(example, str) else int(example) for example in examples]
    outside = [place for place in found if not 0 <= place < len(source)]
    if outside:
        several = f"{count_of(outside, examples)} not: " if len(outside) > 1 else ""
        raise ValueError(
            f"positions must be in 0..{len(source) - 1}, found {several}{first_few(map(str, outside))}"
        )
    return found


def count_of(some: Sequence[object], of: Sequence[object]) -> str:
    """How many of all these are, as the beginning of what they are."""
    return f"{len(some)} of {len(of)} that {'is' if len(some) == 1 else 'are'}"


def first_few(names: Iterable[str]) -> str:
    """The first five names, and whether there are more."""
    shown = list(names)
    return ", ".join(shown[:5]) + (", ..." if len(shown) > 5 else "")


def cut_held_out(n: int, calibration: float | Sequence[int], seed: int) -> tuple[Tensor, Tensor]:
    """Positions of the calibration and the test part among `n` held-out examples."""
    if n < 2:
        raise ValueError(
            "the test data must hold at least two examples, one for calibration and one for test, "
            f"found {n}: give more"
        )
    if isinstance(calibration, int | float):
        if not 0 < calibration < 1:
            raise ValueError(f"calibration must be a fraction in (0, 1) or positions, found {calibration}")
        order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
        first = max(1, min(n - 1, round(calibration * n)))
        return order[:first].sort().values, order[first:].sort().values
    if not len(calibration) or len(set(calibration)) < len(calibration):
        raise ValueError(
            "calibration must be a fraction or positions, at least one and each once, found "
            f"{len(calibration)} positions, {len(set(calibration))} of them different"
        )
    if not 0 <= min(calibration) <= max(calibration) < n:
        found = f"{min(calibration)}..{max(calibration)}"
        raise ValueError(f"calibration must be positions in 0..{n - 1} of the test data, found {found}")
    chosen = torch.tensor(sorted(calibration), dtype=torch.long)
    rest = torch.ones(n, dtype=torch.bool).index_fill_(0, chosen, False).nonzero()[:, 0]
    return chosen, rest
