"""Data sets of other libraries are read as torch's."""

import pytest
import torch

from unweave.cli.project.user_code import source
from unweave.data.other_libraries import OfAnotherLibrary
from unweave.data.user_dataset import dataset_of


class Rows:
    """What a `DataLoader` needs, without torch's base class."""

    def __len__(self):
        return 5

    def __getitem__(self, position):
        return {"x": torch.tensor([float(position)]), "label": position % 2, "id": f"r{position}"}

    def __getitems__(self, positions):
        return [self[position] for position in positions]


def test_its_examples_are_a_source():
    dataset = source(Rows(), "train")
    assert dataset.labels.tolist() == [0, 1, 0, 1, 0] and dataset.names == ("r0", "r1", "r2", "r3", "r4")
    (raw,) = dataset.stream([torch.tensor([3, 1])])
    assert torch.equal(raw.inputs[0], torch.tensor([[3.0], [1.0]]))
    assert [item["id"] for item in OfAnotherLibrary(Rows()).__getitems__([4, 0])] == ["r4", "r0"]


def test_a_part_for_training_is_read_by_int_positions():
    part = dataset_of(source(Rows(), "train"), torch.tensor([4, 2]))
    assert [part[i]["id"] for i in range(2)] == ["r4", "r2"] and type(part.indices[0]) is int


def test_a_list_is_refused():
    with pytest.raises(ValueError, match="'train' must be a torch Dataset, found list"):
        source([1, 2], "train")


def test_hugging_face_data_in_arrow_files(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = {"x": [[float(i)] for i in range(4)], "label": [0, 1, 1, 0], "id": list("abcd")}
    datasets.Dataset.from_dict(rows).save_to_disk(str(tmp_path))
    data = datasets.load_from_disk(str(tmp_path)).with_format("torch", columns=["x"], output_all_columns=True)
    dataset = source(data, "train")
    assert dataset.labels.tolist() == [0, 1, 1, 0] and dataset.names == ("a", "b", "c", "d")
    (raw,) = dataset.stream([torch.tensor([2])])
    assert raw.inputs[0].tolist() == [[2.0]]
