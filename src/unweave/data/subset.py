"""Some examples of a source as a data set, for a user's `train`."""

from array import array

from torch import Tensor
from torch.utils.data import Dataset, Subset

from unweave.data import Source
from unweave.data.user_dataset import UserDataset


def dataset_of(source: Source, ids: Tensor) -> Dataset:
    """Some examples of a source as a data set: a user's own items, or tuples `(input..., label)`."""
    if not isinstance(source, UserDataset):
        return Examples(source, ids)
    return Subset(source.dataset, array("q", ids.numpy().tobytes()))  # eight bytes each, read as int


class Examples(Dataset):
    """Some examples of a source as a data set of `(input..., label)` tuples.

    Args:
        source: The source; items are the same at every read.
        ids: The positions of the examples in it.
    """

    def __init__(self, source: Source, ids: Tensor) -> None:
        self.source, self.ids = source, ids

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[Tensor | int, ...]:
        (raw,) = self.source.stream([self.ids[index : index + 1]])
        fields = raw.inputs.values() if isinstance(raw.inputs, dict) else raw.inputs
        return (*(field[0] for field in fields), int(raw.label))
