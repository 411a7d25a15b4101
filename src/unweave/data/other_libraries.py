"""Map-style data sets that are not torch's, such as those of Hugging Face's `datasets`."""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch.utils.data import Dataset


@runtime_checkable
class ReadInBatches(Protocol):
    """The methods by which a `DataLoader` reads a data set of any library."""

    def __len__(self) -> int: ...

    def __getitem__(self, position: int) -> Any: ...

    def __getitems__(self, positions: list[int]) -> list[Any]:
        """Several items at once."""
        ...


@dataclass(frozen=True, eq=False)
class OfAnotherLibrary(Dataset[Any]):
    """A data set of another library as torch's.

    Args:
        rows: The data set.
    """

    rows: ReadInBatches

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> Any:
        return self.rows[position]

    def __getitems__(self, positions: list[int]) -> list[Any]:
        """Several items at once."""
        return self.rows.__getitems__(positions)
