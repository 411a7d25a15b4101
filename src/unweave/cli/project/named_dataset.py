"""A user's data set with separate ids."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

from unweave.data.user_dataset import UserDataset
from unweave.data.user_items import check_names


@dataclass(frozen=True, eq=False)
class NamedDataset(UserDataset):
    """A data set with names from a separate list.

    Args:
        given: One unique string per example, in order.
    """

    given: Sequence[object] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.given) != len(self):
            raise ValueError(f"'ids' must name the {len(self)} training examples, found {len(self.given)}")
        check_names(self.names)

    @property
    def names(self) -> tuple[str, ...]:
        """The names, in order."""
        return self._names

    def digest(self) -> str:
        """SHA-256 of the examples and their names."""
        return sha256("\0".join((super().digest(), *self.names)).encode()).hexdigest()

    @cached_property
    def _names(self) -> tuple[str, ...]:
        strange = next((name for name in self.given if not isinstance(name, str)), None)
        if strange is not None:
            raise ValueError(f"'ids' must be strings, found {strange!r}: use str()")
        return tuple(str(name) for name in self.given)
