"""Denoisers of users, with their images, written into a folder; and what a folder holds."""

from pathlib import Path

import numpy as np
import torch

from denoisers import UNET
from unweave.record.files import sha256

CLASSES = 4

RECIPE = """
seeds = [0, 1]
calibration_seeds = []

[data]
name = "images"
folder = "{folder}"
forget = "class"
label = 3

[model]
name = "unet"
settings = {{ size = 4, width = 8 }}

[generation]
images = 20
searched = 20
sampler = {{ scheduler = "dpm", steps = 2 }}

[train]
optimizer = "adam"
lr = 1e-3
batch = 32
steps = 3
"""

PROJECT = """
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

HERE = Path(__file__).parent
CLASSES = 4
GENERATION = {"images": 20, "sampler": {"scheduler": "dpm", "steps": 2}}


class Net(nn.Module):
    def __init__(self, rows=CLASSES + 1):
        super().__init__()
        self.table, self.time = nn.Embedding(rows, 8), nn.Linear(1, 8)
        self.first, self.last = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, x, t, condition):
        embedded = self.table(condition) + self.time(t[:, None] / 1000)
        return self.last(torch.relu(self.first(x) + embedded[:, :, None, None]))


class Pictures(Dataset):
    def __init__(self, part, scale=None):
        with np.load(HERE / "images.npz") as arrays:
            images, labels = torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["labels"])
        rows = torch.arange(len(labels)) // CLASSES % 4
        chosen = rows == 3 if part == "test" else rows < 3
        self.images, self.labels, self.scale = images[chosen], labels[chosen], scale

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        image = self.images[i][None]
        return (image if self.scale is None else image / self.scale), int(self.labels[i])


def train(dataset, seed):
    image, label = dataset[0]
    assert image.dtype == torch.uint8 and isinstance(label, int)
    torch.manual_seed(seed)
    return Net()


def given(**changes):
    torch.manual_seed(0)
    made = {"model": Net(), "train": Pictures("train"), "test": Pictures("test"), "generation": GENERATION}
    return {**made, **changes}


def load():
    return given()
"""


def images(path: Path, *, n: int = 120, size: int = 4, classes: int = CLASSES) -> str:
    """Writes noisy images around the pattern of each class; returns the path of the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    labels = np.arange(n * classes) % classes
    patterns = 255 * rng.integers(2, size=(classes, size, size))
    noisy = (patterns[labels] + 20 * rng.normal(size=(len(labels), size, size))).clip(0, 255)
    np.savez(path, images=noisy.astype(np.uint8), labels=labels)
    return str(path)


def named_images(folder: Path, names: tuple[str, ...], *, n: int = 120) -> str:
    """Writes these images into a sub-folder per class; returns the path of the folder."""
    from PIL import Image

    with np.load(images(folder.with_suffix(".npz"), n=n, classes=len(names))) as arrays:
        for i, (pixels, label) in enumerate(zip(arrays["images"], arrays["labels"], strict=True)):
            place = folder / names[label]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(place / f"{i:03}.png")
    return str(folder)


def diffusers_folder(folder: Path, **changes: object) -> str:
    """Writes a pipeline with a tiny U-Net of fresh weights; returns its path."""
    import diffusers

    torch.manual_seed(0)
    model = diffusers.UNet2DModel.from_config({**UNET, **changes})
    diffusers.DDPMPipeline(model, diffusers.DDPMScheduler()).save_pretrained(folder)
    return str(folder)


def recipe(folder: Path) -> str:
    """Writes a recipe over images of its own; returns its path."""
    path = folder / "own.toml"
    path.write_text(RECIPE.format(folder=images(folder / "images.npz")))
    return str(path)


def project(folder: Path, change: str = "") -> str:
    """Writes project.py and its images into a folder, with other code at its end; returns its path."""
    images(folder / "images.npz")
    path = folder / "project.py"
    path.write_text(f"{PROJECT}\n\n{change}\n")
    return str(path)


def write_idx(path: Path, values: np.ndarray) -> None:
    """Writes bytes in the format of MNIST and Fashion-MNIST."""
    header = bytes((0, 0, 8, values.ndim)) + np.array(values.shape, ">u4").tobytes()
    path.write_bytes(header + values.astype(np.uint8).tobytes())


def contents(folder: Path) -> dict[str, str]:
    """The digest of every file below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256(path) for path in files}
