"""Images from a user's own files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

from unweave.data.datasets import as_images, load
from unweave.data.images import in_memory, read_images
from unweave.data.user_dataset import UserDataset


def random_images(n: int, *, seed: int = 0, shape: tuple[int, ...] = (4, 4)) -> np.ndarray:
    return np.random.default_rng(seed).integers(256, size=(n, *shape), dtype=np.uint8)


def write_folder(folder: Path, classes: dict[str, np.ndarray], suffix: str = "png") -> Path:
    for name, images in classes.items():
        (folder / name).mkdir(parents=True)
        for i, each in enumerate(images):
            Image.fromarray(each).save(folder / name / f"{i:03}.{suffix}")
    return folder


def archive(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


def test_every_image_is_there_once_under_the_number_of_its_folder(tmp_path):
    classes = {str(label): random_images(10, seed=label) for label in range(11)}
    train, held_out = read_images(write_folder(tmp_path / "own", classes))
    assert (len(train), len(held_out)) == (88, 22) and train.inputs.shape[1:] == (1, 4, 4)
    assert held_out.labels.bincount().tolist() == [2] * 11
    for label in range(11):
        class_images = torch.cat([part.inputs[part.labels == label] for part in (train, held_out)])
        assert {each.numpy().tobytes() for each in class_images} == {
            each.tobytes() for each in classes[str(label)]
        }
    own_data = read_images(tmp_path / "own")
    assert [each.digest() for each in own_data] == [train.digest(), held_out.digest()]
    assert load("images", folder=str(tmp_path / "own"))[0].digest() == train.digest()


def test_what_classes_are_called_and_that_nobody_said_what_is_held_out_is_known(tmp_path):
    folder = write_folder(
        tmp_path / "own", {"dog": random_images(5), "ant": random_images(5), "cat": random_images(5)}
    )
    for part in map(as_images, read_images(folder)):
        assert part.classes == ("ant", "cat", "dog") and part.parted and part.class_name(2) == "2 (dog)"
    for name in ("train", "test"):
        write_folder(tmp_path / "both" / name, {"0": random_images(3), "1": random_images(3)})
    for part in read_images(tmp_path / "both"):
        assert part.classes == () and not part.parted and part.class_name(1) == "1"


def test_folders_that_say_what_is_held_out_are_believed(tmp_path):
    for part, n in (("train", 3), ("test", 2)):
        write_folder(
            tmp_path / part, {"cat": random_images(n), "ant": random_images(n, seed=1, shape=(4, 4, 3))}
        )
    train, held_out = read_images(tmp_path)
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1] and len(held_out) == 4
    assert torch.equal(
        train.inputs[0], torch.from_numpy(random_images(3, seed=1, shape=(4, 4, 3))[0]).permute(2, 0, 1)
    )
    assert torch.equal(train.inputs[3], torch.from_numpy(random_images(3)[0]).expand(3, 4, 4)), (
        "grey among colours"
    )


def test_an_archive_is_read_with_its_own_held_out_images_or_without(tmp_path):
    images, labels = random_images(20), np.arange(20) % 2
    train, held_out = read_images(archive(tmp_path / "a.npz", images=images, labels=labels))
    assert (len(train), len(held_out)) == (16, 4)
    file = archive(tmp_path / "b.npz", images=images, labels=labels, test_images=images, test_labels=labels)
    train, held_out = read_images(file)
    assert torch.equal(train.inputs[:, 0], torch.from_numpy(images)) and held_out.digest() == train.digest()


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        (
            {"images": random_images(4) / 255, "labels": np.arange(4)},
            "must be bytes .*found float64: round",
        ),
        (
            {"images": random_images(4), "labels": np.arange(3)},
            "one whole number per image, found int64 with shape",
        ),
        ({"images": random_images(4), "labels": np.array([0, 0, 2, 2])}, "class 1 has no image"),
        (
            {"images": random_images(4), "labels": np.array([0, 0, -1, 1])},
            "must be at least 0, found label -1",
        ),
        (
            {"images": random_images(3), "labels": np.array([0, 0, 1])},
            "two images, one to hold out, found 1 of class 1",
        ),
        ({"images": random_images(4), "labels": np.array([0, 1, 0, 10**12])}, "class 2 has no image"),
        ({"pictures": random_images(4)}, "must hold the arrays images and labels, found pictures"),
    ],
)
def test_an_archive_that_is_something_else_is_refused(tmp_path, arrays, sentence):
    with pytest.raises(ValueError, match=sentence):
        read_images(archive(tmp_path / "own.npz", **arrays))


def test_a_folder_that_is_something_else_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected a folder of images or an .npz file, found none"):
        read_images(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="must have a sub-folder per class, found none"):
        read_images(tmp_path / "empty")
    with pytest.raises(ValueError, match=r"must be the labels 0\.\.1, found 0, 2"):
        read_images(write_folder(tmp_path / "gap", {"0": random_images(2), "2": random_images(2)}))
    for name in ("ten", "⁹", "½"):
        names = write_folder(
            tmp_path / name, {"0": random_images(2), "1": random_images(2), name: random_images(2)}
        )
        with pytest.raises(ValueError, match=f"all be numbers .*found '{name}' among 0, 1, {name}"):
            read_images(names)
    folder = write_folder(tmp_path / "mixed", {"0": random_images(2), "1": random_images(2, shape=(4, 5))})
    with pytest.raises(ValueError, match=r"of one size, found 4 x 4 in .*000.png and 5 x 4 in .*000.png"):
        read_images(folder)
    (folder / "2").mkdir()
    with pytest.raises(ValueError, match="class '2' has no image"):
        read_images(folder)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_truncated_file_is_named(tmp_path, suffix):
    place = write_folder(tmp_path / "own", {"0": random_images(2), "1": random_images(2)}, suffix)
    image_file = place / "1" / f"001.{suffix}"
    image_file.write_bytes(image_file.read_bytes()[:-30])
    with pytest.raises(ValueError, match=rf"own.1.001.{suffix} is truncated or no image"):
        read_images(place)
    file = archive(tmp_path / "own.npz", images=random_images(4), labels=np.arange(4) % 2)
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(ValueError, match="own.npz is truncated or no .npz file"):
        read_images(file)


def test_an_array_in_the_place_of_an_archive_is_refused(tmp_path):
    with (tmp_path / "own.npz").open("wb") as file:
        np.save(file, random_images(4))
    with pytest.raises(ValueError, match="own.npz is truncated or no .npz file: it holds one array"):
        read_images(tmp_path / "own.npz")


def test_a_data_set_of_bytes_is_read_whole_and_one_of_floats_is_not():
    images, labels = torch.from_numpy(random_images(6, shape=(1, 4, 4))), torch.arange(6) % 2
    image_data = as_images(UserDataset(TensorDataset(images, labels)))
    assert (
        torch.equal(image_data.inputs, images)
        and image_data.mean == (0.5,)
        and torch.equal(image_data.labels, labels)
    )
    with pytest.raises(ValueError, match=r"as bytes \(uint8\), found torch.float32 \[1, 4, 4\]"):
        in_memory(UserDataset(TensorDataset(images / 255, labels)))
