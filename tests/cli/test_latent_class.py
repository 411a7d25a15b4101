"""A class of a denoiser of latents (`DiTPipeline`), from a folder to an audit."""

import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

import folders
from cli.written import names, row_of, stage_of

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from diffusers import AutoencoderKL  # after diffusers is known to be there
from safetensors.torch import load_file  # after diffusers is known to be there

from stable_diffusion import VAE, write_dit
from unweave.audits.diffusion.latent_exam import LatentSpace
from unweave.families.diffusion import DiffusionFamily
from unweave.families.latent_diffusion import of_latents
from unweave.tasks.diffusion.file_names import MANIFEST, WEIGHTS

SHORT = ("--method", "finetune", "--set", "how.steps=1", "--set", "how.batch=4", "--quiet")


def pictures(path: Path, *, n: int = 120, size: int = 16) -> str:
    """Writes images in colour around the pattern of each class; returns the path of the file."""
    with np.load(folders.images(path, n=n, size=size)) as arrays:
        grey, labels = arrays["images"], arrays["labels"]
    np.savez(path, images=np.repeat(grey[:, None], 3, axis=1), labels=labels)
    return str(path)


@pytest.fixture
def source(tmp_path) -> Path:
    return write_dit(tmp_path / "dit")


@pytest.fixture
def data(tmp_path) -> str:
    return pictures(tmp_path / "images.npz")


def recipe(folder: Path) -> str:
    """A recipe of a training that is over in a moment."""
    path = folder / "own.toml"
    path.write_text(folders.RECIPE.format(folder=folder / "images.npz").replace("size = 4, ", ""))
    return str(path)


def test_only_the_transformer_of_a_copy_differs_and_the_copy_is_audited(run, here, source, data, tmp_path):
    original_files = {
        path.relative_to(source): path.read_bytes() for path in source.rglob("*") if path.is_file()
    }
    command = ("forget", source, "--data", data, "--recipe", recipe(tmp_path), "--class", 3, *SHORT)
    result = run(*command)
    assert result.code == 0, result.error
    assert "UA: images not taken for the forgotten class, %" in result.out
    copy = here / "forgotten" / "pretrained"
    copied_files = {path.relative_to(copy): path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    weights = Path("transformer") / WEIGHTS
    assert {path for path in original_files if copied_files[path] != original_files[path]} == {weights}
    assert copied_files.keys() - original_files.keys() == {Path(MANIFEST)}
    assert json.loads(copied_files[Path(MANIFEST)])["forgotten_classes"] == [3]
    assert load_file(copy / weights).keys() == load_file(source / weights).keys()
    assert {p.relative_to(source): p.read_bytes() for p in source.rglob("*") if p.is_file()} == original_files
    result = run("audit", "forgotten", "--references", 1, "--quiet")
    assert result.code == 1 and result.out.startswith("INCONCLUSIVE: "), result.error
    folder = here / "forgotten" / "audit"
    with np.load(folder / "evidence.npz") as arrays:
        assert {arrays[name].shape for name in arrays.files} == {(20, 3, 16, 16)}
    assert {"ua", "ra", "kid_forget"} <= row_of(folder)["scores"].keys()
    assert stage_of(folder)["data"]["forgotten_classes"] == [3]
    second = run("forget", copy, "--data", data, "--class", 2, *SHORT)
    assert second.code == 2 and "class 3 was forgotten before" in second.error
    assert names(here) == ["forgotten"]


def test_the_recipe_of_imagenet_fits_a_folder_of_latents(run, here, source, data, tmp_path):
    text = files("unweave").joinpath("recipes", "dit-imagenet-class.toml").read_text()
    replacements = {"label = 207": "label = 3", "images = 50 ": "images = 20 ", "steps = 20,": "steps = 2,"}
    for line, replacement in replacements.items():
        assert line in text
        text = text.replace(line, replacement)
    (tmp_path / "small.toml").write_text(text)
    command = ("forget", source, "--data", data, "--recipe", tmp_path / "small.toml", "--method", "sfron")
    settings = ("how.steps=2", "how.batch=32", "threshold=0.1")
    result = run(*command, *(part for each in settings for part in ("--set", each)), "--quiet")
    assert result.code == 0, result.error
    assert "Forgot 96 of 384 examples with sfron" in result.out


def test_a_folder_is_checked(run, here, source, data):
    result = run("check", source, "--data", data, "--methods", "finetune", "--quiet")
    assert result.code == 0, result.error
    assert "Data: 96 to forget, 288 to retain" in result.out


def test_images_must_have_the_size_of_the_decoded_latents(refused, source, tmp_path):
    small_images = pictures(tmp_path / "small.npz", size=8)
    refused(
        r"of shape \[3, 16, 16\] .*found \[3, 8, 8\]", "forget", source, "--class", 3, "--data", small_images
    )
    grey = folders.images(tmp_path / "grey.npz", size=16)
    refused(r"of shape \[3, 16, 16\] .*found \[1, 16, 16\]", "forget", source, "--class", 3, "--data", grey)


def test_a_family_of_latents_searches_as_that_of_pixels():
    latents = LatentSpace("0" * 64, (4, 8, 8), AutoencoderKL(**VAE))
    family = of_latents(DiffusionFamily(images=30), latents)
    method = family.methods["lur"]
    assert family.space("lur", method, 100) == DiffusionFamily().space("lur", method, 100)
    assert (family.images, family.task(4, (3,)).space, family.task(4, (3,)).forgotten) == (
        30,
        "latents",
        (3,),
    )
    assert "autoencoder" not in family.key and family == of_latents(DiffusionFamily(images=30), latents)
