"""Data sets by name: the real ones, and the readers on small files written here."""

import gzip
import io
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from pyarrow import parquet
from sklearn.datasets import load_digits

from folders import write_idx
from for_each import for_each
from unweave.data import Raw, Source
from unweave.data.datasets import DEBIAN_FASHION_MNIST, as_images, flip_labels, load
from unweave.data.in_memory import Resident

CIFAR10 = os.environ.get("UNWEAVE_CIFAR10")


def first(raw: Raw) -> torch.Tensor:
    assert isinstance(raw.inputs, tuple)
    return raw.inputs[0]


def everything(source: Source) -> torch.Tensor:
    return first(next(source.stream([torch.arange(len(source))])))


@pytest.fixture
def idx_folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for part, n in (("train", 20), ("t10k", 6)):
        write_idx(tmp_path / f"{part}-images-idx3-ubyte", rng.integers(0, 256, (n, 4, 4)))
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte", np.arange(n) % 2)
    return tmp_path


def encode(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def write_parquet(path: Path, images: list[bytes], labels: list[int], column: str = "img") -> None:
    rows = [{"bytes": image, "path": None} for image in images]
    parquet.write_table(pa.table({column: pa.array(rows), "label": pa.array(labels, pa.int64())}), path)


@pytest.fixture
def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (8, 5, 5, 3), dtype=np.uint8)


@pytest.fixture
def parquet_folder(tmp_path: Path, pictures: np.ndarray) -> Path:
    images = [encode(picture) for picture in pictures]
    write_parquet(tmp_path / "train-00000-of-00002.parquet", images[:3], [0, 1, 2])
    write_parquet(tmp_path / "train-00001-of-00002.parquet", images[3:6], [3, 4, 5])
    write_parquet(tmp_path / "test-00000-of-00001.parquet", images[6:], [6, 7], column="image")
    return tmp_path


def test_digits_are_stratified_standardised_and_whole() -> None:
    train, held_out = load("digits")
    assert (len(train), len(held_out)) == (1437, 360)
    shares = train.labels.bincount() / 1437 - held_out.labels.bincount() / 360
    assert float(shares.abs().max()) < 1 / 360
    pixels = everything(train)
    assert abs(float(pixels.mean())) < 1e-6
    assert abs(float(pixels.std(correction=0)) - 1) < 1e-6
    # the two parts together are scikit-learn's set, each image once
    levels, _ = load_digits(return_X_y=True)
    all_pixels = torch.cat((pixels, everything(held_out))).double()
    step = float(all_pixels.unique().diff().median())
    ours = ((all_pixels - all_pixels.min()) / step).round().long().tolist()
    assert sorted(ours) == sorted(levels.astype(int).tolist())


def test_digits_are_the_same_at_every_load() -> None:
    assert [source.digest() for source in load("digits")] == [source.digest() for source in load("digits")]


def test_digits_split_is_pinned() -> None:
    # made with scikit-learn 1.9 and numpy 2.4: records are comparable only while this split stays
    expected = [1, 4, 8, 6, 5, 9, 9, 1, 3, 2, 2, 2, 0, 7, 4, 8, 1, 5, 3, 9]
    assert load("digits")[1].labels[:20].tolist() == expected


def test_limit_keeps_the_classes_in_proportion_and_the_order() -> None:
    train, held_out = load("digits", limit=500, seed=3)
    full, _ = load("digits")
    assert (len(train), len(held_out)) == (500, 360)
    expected = full.labels.bincount() * 500 / 1437
    assert float((train.labels.bincount() - expected).abs().max()) <= 1
    rows = {tuple(row): place for place, row in enumerate(everything(full).tolist())}
    places = [rows[tuple(row)] for row in everything(train).tolist()]
    assert places == sorted(set(places))
    assert train.digest() != load("digits", limit=500, seed=4)[0].digest()


def test_flipped_labels_are_that_many_and_all_wrong() -> None:
    source, _ = load("digits")
    noisy = flip_labels(source, 0.2, 10, seed=1)
    is_flipped = noisy.labels != source.labels
    assert int(is_flipped.sum()) == round(0.2 * 1437)
    assert set(noisy.labels.tolist()) == set(range(10))
    # uniform over the nine other classes
    steps = ((noisy.labels - source.labels) % 10)[is_flipped].bincount(minlength=10)[1:]
    assert float((steps - steps.sum() / 9).abs().max()) < 4 * (287 / 9) ** 0.5
    assert not torch.equal(noisy.labels, flip_labels(source, 0.2, 10, seed=2).labels)
    assert torch.equal(noisy.labels, flip_labels(source, 0.2, 10, seed=1).labels)


def test_flipped_labels_change_targets_and_nothing_else() -> None:
    source = Resident(torch.randn(6, 2), torch.tensor([0, 1, 2, 0, 1, 2]), names=tuple("abcdef"))
    noisy = flip_labels(source, 0.5, 3, seed=0)
    assert isinstance(noisy, Source)
    assert (len(noisy), noisy.names) == (6, source.names)
    (before,), (after,) = (list(each.stream([torch.tensor([5, 0])])) for each in (source, noisy))
    assert torch.equal(first(before), first(after))
    assert torch.equal(after.label, noisy.labels[[5, 0]])
    assert noisy.digest() != source.digest()
    assert source.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert next(noisy.to("meta").stream([torch.tensor([1], device="meta")])).label.device.type == "meta"


def test_fashion_mnist_is_read_plain_and_gzipped(idx_folder: Path) -> None:
    train, held_out = load("fashion-mnist", folder=str(idx_folder))
    content = (idx_folder / "train-images-idx3-ubyte").read_bytes()[16:]
    pixels = torch.tensor(list(content)).view(20, 1, 4, 4)
    torch.testing.assert_close(everything(train), (pixels / 255 - 0.2860) / 0.3530)
    assert held_out.labels.tolist() == [0, 1, 0, 1, 0, 1]
    for path in list(idx_folder.iterdir()):
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert load("fashion-mnist", folder=str(idx_folder))[0].digest() == train.digest()


@pytest.mark.skipif(not Path(DEBIAN_FASHION_MNIST).is_dir(), reason="needs Debian's dataset-fashion-mnist")
def test_the_real_fashion_mnist() -> None:
    train, held_out = load("fashion-mnist", limit=12_000)
    assert train.labels.bincount().tolist() == [1200] * 10
    assert held_out.labels.bincount().tolist() == [1000] * 10
    pixels = everything(train)
    assert pixels.shape == (12_000, 1, 28, 28)
    assert abs(float(pixels.mean())) < 0.01
    assert abs(float(pixels.std()) - 1) < 0.01


def test_cifar10_is_read_from_parquet_in_order(parquet_folder: Path, pictures: np.ndarray) -> None:
    train, held_out = load("cifar10", folder=str(parquet_folder))
    mean, std = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2470, 0.2435, 0.2616])
    by_hand = ((torch.from_numpy(pictures) / 255 - mean) / std).permute(0, 3, 1, 2)
    torch.testing.assert_close(everything(train), by_hand[:6])
    torch.testing.assert_close(everything(held_out), by_hand[6:])
    assert (train.labels.tolist(), held_out.labels.tolist()) == ([0, 1, 2, 3, 4, 5], [6, 7])


def test_cifar10_of_torchvision_is_that_of_the_parquet_files(
    parquet_folder: Path, pictures: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    class CIFAR10:
        """What torchvision downloads: images of shape [n, height, width, channels], and a list of labels."""

        def __init__(self, root: str, *, train: bool, download: bool) -> None:
            part = slice(0, 6) if train else slice(6, 8)
            self.data, self.targets = pictures[part], list(range(8))[part]

    monkeypatch.setitem(sys.modules, "torchvision.datasets", SimpleNamespace(CIFAR10=CIFAR10))
    by_torchvision, by_parquet = load("cifar10"), load("cifar10", folder=str(parquet_folder))
    assert [each.digest() for each in by_torchvision] == [each.digest() for each in by_parquet]


def test_without_augmentation_training_images_are_as_they_are(parquet_folder: Path) -> None:
    crops, plain = (load("cifar10", folder=str(parquet_folder), augment=each)[0] for each in (True, False))
    batches = [
        next(source.stream([torch.arange(6)], generator=torch.Generator())) for source in (crops, plain)
    ]
    torch.testing.assert_close(first(batches[1]), everything(crops))
    assert not torch.equal(first(batches[0]), first(batches[1]))
    assert crops.digest() != plain.digest()


@pytest.mark.skipif(CIFAR10 is None, reason="UNWEAVE_CIFAR10 names no folder with CIFAR-10's parquet files")
def test_the_real_cifar10() -> None:
    train, held_out = load("cifar10", folder=CIFAR10)
    assert train.labels.bincount().tolist() == [5000] * 10
    assert held_out.labels.bincount().tolist() == [1000] * 10
    (raw,) = train.stream([torch.arange(5000)], generator=torch.Generator().manual_seed(0))
    assert first(raw).shape == (5000, 3, 32, 32)
    (plain,) = train.stream([torch.arange(5000)])
    assert float(first(plain).mean((0, 2, 3)).abs().max()) < 0.05


def test_an_unknown_name_gives_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"unknown data set 'digit' .did you mean 'digits'"):
        load("digit")


def test_a_missing_file_is_named(idx_folder: Path) -> None:
    (idx_folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(ValueError, match=r"expected t10k-labels-idx1-ubyte or t10k-labels-idx1-ubyte\.gz"):
        load("fashion-mnist", folder=str(idx_folder))


@pytest.mark.parametrize("name", ["fashion-mnist", "cifar10"])
def test_a_missing_folder_is_named(name, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"found none at .*nowhere"):
        load(name, folder=str(tmp_path / "nowhere"))


def test_an_empty_folder_has_no_parquet(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected train\*.parquet"):
        load("cifar10", folder=str(tmp_path))


def test_truncated_files_are_refused(idx_folder: Path, parquet_folder: Path) -> None:
    images = idx_folder / "train-images-idx3-ubyte"
    content = images.read_bytes()
    images.write_bytes(content[:-5])
    with pytest.raises(ValueError, match="announces 320 values and holds 315"):
        load("fashion-mnist", folder=str(idx_folder))
    images.write_bytes(b"PK" + content[2:])
    with pytest.raises(ValueError, match="found another format"):
        load("fashion-mnist", folder=str(idx_folder))
    images.unlink()
    images.with_name(images.name + ".gz").write_bytes(gzip.compress(content)[:-20])
    with pytest.raises(ValueError, match="not a whole gzip file"):
        load("fashion-mnist", folder=str(idx_folder))
    table = parquet_folder / "train-00001-of-00002.parquet"
    table.write_bytes(table.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"train-00001-of-00002\.parquet"):
        load("cifar10", folder=str(parquet_folder))


def test_a_row_that_is_no_image_is_named(tmp_path: Path, pictures: np.ndarray) -> None:
    write_parquet(tmp_path / "train.parquet", [encode(pictures[0]), b"not an image"], [0, 1])
    with pytest.raises(ValueError, match=r"row 1 .* is no image"):
        load("cifar10", folder=str(tmp_path))
    write_parquet(tmp_path / "train.parquet", [encode(pictures[0]), encode(pictures[0][1:])], [0, 1])
    with pytest.raises(ValueError, match="must have one size"):
        load("cifar10", folder=str(tmp_path))


def test_another_schema_is_refused(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"pixels": [1], "label": [0]}), tmp_path / "train.parquet")
    with pytest.raises(
        ValueError, match="one struct column of images and a column 'label', found pixels, label"
    ):
        load("cifar10", folder=str(tmp_path))


@for_each("limit", [0, 9, 1428, 5000])
def test_a_limit_outside_the_set_is_refused(limit: int) -> None:
    with pytest.raises(ValueError, match=f"expected 10 to 1427, found {limit}"):
        load("digits", limit=limit)


def test_digits_take_no_folder() -> None:
    with pytest.raises(ValueError, match="need no folder"):
        load("digits", folder="somewhere")


@for_each(
    ("fraction", "n_classes", "message"), [(0.0, 3, "fraction"), (1.0, 3, "fraction"), (0.5, 2, "n_classes")]
)
def test_label_noise_that_cannot_be_is_refused(fraction: float, n_classes: int, message: str) -> None:
    source = Resident(torch.randn(3, 2), torch.tensor([0, 1, 2]))
    with pytest.raises(ValueError, match=message):
        flip_labels(source, fraction, n_classes, seed=0)


def test_digit_images_are_the_digits_as_bytes():
    for images, numbers in zip(load("digit-images"), load("digits"), strict=True):
        assert images.inputs.dtype == torch.uint8 and images.inputs.shape[1:] == (1, 8, 8)
        assert torch.equal(images.labels, numbers.labels)
        levels = images.inputs.view(-1, 64).double() * (16 / 255)
        slope = levels.std() / numbers.inputs.double().std()
        values = (numbers.inputs.double() - numbers.inputs.mean()) * slope + levels.mean()
        torch.testing.assert_close(levels, values, rtol=0, atol=0.04)  # half a byte


def test_images_for_a_generator_lie_between_minus_one_and_one():
    train, _ = load("digit-images")
    (raw,) = as_images(train).stream([torch.arange(len(train))])
    assert float(raw.inputs[0].min()) == -1 and float(raw.inputs[0].max()) == 1
    image_data = as_images(replace(train, crop=4, flip=True, mean=(0.3,), std=(0.2,)))
    assert (image_data.mean, image_data.std, image_data.crop, image_data.flip) == ((0.5,), (0.5,), 0, True)


def test_numbers_are_no_images_for_a_generator():
    with pytest.raises(ValueError, match=r"images as bytes \(uint8\), found torch.float32"):
        as_images(load("digits")[0])
    with pytest.raises(ValueError, match=r"images as bytes \(uint8\), found torch.float32"):
        as_images(flip_labels(load("digits")[0], 0.1, 10, 0))
