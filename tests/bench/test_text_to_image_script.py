"""The script that makes and measures text-to-image models, on a recipe of a few steps."""

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from folders import write_idx
from unweave.data.captions import read_captioned

TINY = """
length = 12
[drawings]
subject = "digits"
copies = 1
limit = 120
[autoencoder]
widths = [8, 8]
groups = 4
train = { steps = 2, batch = 4 }
[text_encoder]
hidden = 16
heads = 2
[denoiser]
widths = [8, 16]
groups = 4
head = 2
[train]
steps = 2
batch = 4
"""
SCRIPT = "text_to_image_models"


@pytest.fixture
def run(script: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(TINY)

    def call(*arguments: object) -> None:
        flags = ["--out", tmp_path / "models", "--recipe", recipe, *arguments]
        monkeypatch.setattr(sys, "argv", ["script", *map(str, flags)])
        script.main()

    return call


def test_finished_models_stay_and_others_are_added(run, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run()
    place = tmp_path / "models" / "tiny"
    weights = place / "seed-0" / "original" / "unet" / "diffusion_pytorch_model.safetensors"
    time = weights.stat().st_mtime_ns
    capsys.readouterr()
    run("--object", "three")
    output = capsys.readouterr().out
    assert "original is there" in output and "without-three  2 gradients" in output
    assert weights.stat().st_mtime_ns == time
    assert sorted(each.name for each in (place / "seed-0").iterdir()) == ["original", "without-three"]
    train, test = read_captioned(place / "data")
    assert len(train) == 120 and test is not None and len(test) == 120


def test_garments_of_a_folder_are_drawn_and_learned(run, tmp_path: Path):
    """Made-up images in place of Fashion-MNIST: a bright square, larger for each class."""
    folder, recipe = tmp_path / "fashion-mnist", tmp_path / "tiny.toml"
    folder.mkdir()
    for part, n in (("train", 60), ("t10k", 20)):
        labels = np.arange(n) % 10
        images = np.zeros((n, 28, 28))
        for image, label in zip(images, labels, strict=True):
            image[2 : 8 + 2 * label, 2 : 8 + 2 * label] = 255
        write_idx(folder / f"{part}-images-idx3-ubyte", images)
        write_idx(folder / f"{part}-labels-idx1-ubyte", labels)
    recipe.write_text(TINY.replace('"digits"', '"garments"').replace("limit = 120", "limit = 40"))
    run("--data", folder, "--object", "pullover")
    place = tmp_path / "models" / "tiny"
    assert sorted(each.name for each in (place / "seed-0").iterdir()) == ["original", "without-pullover"]
    train, test = read_captioned(place / "data")
    assert (len(train), 0 if test is None else len(test)) == (40, 20) and train.images.shape[1:] == (
        3,
        16,
        16,
    )
    captions = {row["text"] for row in train.rows if row["object"] == "pullover"}
    assert captions and all("pullover" in text for text in captions)


def test_images_are_spread_over_the_prompts_of_an_object(script: ModuleType):
    rows = [{"text": f"{name} {i}", "object": name} for name in ("one", "two") for i in range(5)]
    assert [row["text"] for row in script.choose_spread_rows(rows, "two", 2)] == ["two 0", "two 2"]
    assert [row["text"] for row in script.choose_spread_rows(rows, "one", 7)][4:] == [
        "one 4",
        "one 0",
        "one 1",
    ]


@pytest.mark.slow
def test_a_record_says_what_was_measured(run, tmp_path: Path):
    path = tmp_path / "found.json"
    run("--object", "three", "--measure", 2, "--reconstruct", "three", "--record", path)
    content = json.loads(path.read_text())
    groups = content["seed-0/without-three"]
    assert set(groups) == {"trained", "held-out templates", "held-out pairs"}
    for each in groups.values():
        assert len(each["by object"]) == 10 and 0 <= each["all"]["object"] <= 1
    assert content["reconstructed"]["three"]["no autoencoder"].endswith("error 0.0000 a pixel")
    assert content["recipe"]["train"]["steps"] == 2 and len(content["recogniser"]["digest"]) == 64
