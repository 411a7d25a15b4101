"""A user's data set with separate ids."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

from unweave.data.names import Names
from unweave.data.user_dataset import UserDataset
from unweave.data.user_items import refuse_repeated_names


@dataclass(frozen=True, eq=False)
class NamedDataset(UserDataset):
    """A data set with names from a separate list.

    Args:
        ids: One unique string per example, in order.
    """

    ids: Sequence[object] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.ids) != len(self):
            raise ValueError(f"'ids' must name the {len(self)} training examples, found {len(self.ids)}")
        refuse_repeated_names(self.names)

    @property
    def names(self) -> Names:
        """The names, in order."""
        return self._names

    def digest(self) -> str:
        """SHA-256 of the examples and their names."""
        sha = sha256(super().digest().encode())
        for name in self.names:
            sha.update(f"\0{name}".encode())
        return sha.hexdigest()

    @cached_property
    def _names(self) -> Names:
        return Names(map(require_string, self.ids))


def require_string(name: object) -> str:
    """Returns an id; raises if it is no string."""
    if not isinstance(name, str):
        raise ValueError(f"'ids' must be strings, found {name!r}: use str()")
    return name
