"""Models of a recipe shortened to a few steps: their data, their folders, and an interrupted training."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor, nn

from unweave.bench.text_to_image_models import TextToImageModels
from unweave.bench.text_to_image_recipe import TextToImageRecipe, text_to_image_recipe
from unweave.data.captions import Concept
from unweave.descent.train import STATE
from unweave.tasks.diffusion.autoencoder import decode
from unweave.tasks.diffusion.prompts import Prompted
from unweave.tasks.diffusion.sample import noise, sample
from unweave.tasks.diffusion.sampler import Sampler
from unweave.tasks.diffusion.stable_diffusion import load
from unweave.tasks.diffusion.text_to_image import make_task, number_prompts

THREE = Concept(column="object", values=("three",))
TEXTS = ["a red three", "a photo of an eight"]


def short(name: str = "digits", *, steps: int = 6) -> TextToImageRecipe:
    recipe = text_to_image_recipe(name)
    autoencoder = replace(
        recipe.autoencoder,
        widths=(8, 8),
        groups=4,
        train=replace(recipe.autoencoder.train, steps=2, batch=4),
    )
    return replace(
        recipe,
        drawings=replace(recipe.drawings, copies=1, limit=120),
        autoencoder=autoencoder,
        text_encoder=replace(recipe.text_encoder, hidden=16, heads=2),
        denoiser=replace(recipe.denoiser, widths=(8, 16), groups=4, head=2),
        train=replace(recipe.train, steps=steps, batch=4),
        save_every=2,
    )


@pytest.fixture(scope="module")
def models() -> TextToImageModels:
    return TextToImageModels(short())


@pytest.fixture(scope="module")
def folder(models: TextToImageModels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("models") / "original"
    models.write(place, 0)
    return place


def equal(one: nn.Module, other: nn.Module) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_prompts_of_held_out_pairs_and_templates_are_never_trained(models: TextToImageModels):
    labels = models.latents[0].labels
    texts = {models.prompts.texts[label] for label in labels.unique().tolist()}
    assert texts == set(models.data[0].captions)
    for row in models.recipe.drawings.prompts(held_out=True):
        assert row["text"] not in models.prompts.texts


def test_a_label_is_the_number_of_the_caption(models: TextToImageModels):
    for latents, data in zip(models.latents, models.data, strict=True):
        assert [models.prompts.texts[label] for label in latents.labels.tolist()] == data.captions


def test_latents_of_training_images_have_a_deviation_of_one(models: TextToImageModels):
    assert float(models.latents[0].mean.std()) == pytest.approx(1, abs=1e-5)
    assert models.latents[0].shape == (4, 8, 8)


@pytest.mark.parametrize("column", ["object", "colour"])
def test_a_reference_never_sees_an_image_of_the_concept(models: TextToImageModels, column: str):
    value = {"object": "three", "colour": "red"}[column]
    split = models.split(Concept(column=column, values=(value,)))
    rows = models.data[0].rows
    assert all(rows[place][column] == value for place in split.forget.tolist())
    assert all(rows[place][column] != value for place in split.retain.tolist())
    assert len(split.forget) + len(split.retain) == len(rows)


def test_a_reference_starts_from_the_same_weights_and_ends_elsewhere(models: TextToImageModels):
    original, reference = models.train(0).model, models.train(0, THREE).model
    assert not equal(original, reference)
    assert equal(models.train(0, THREE).model, reference)
    assert not equal(models.train(1, THREE).model, reference)
    start = TextToImageModels(short(steps=1))  # the rate of the first step is zero
    assert equal(start.train(0).model, start.train(0, THREE).model)


def test_a_folder_is_a_pipeline_of_the_trained_weights(models: TextToImageModels, folder: Path):
    pipeline, trained = load(folder), models.train(0).model
    assert isinstance(trained, Prompted)
    assert equal(pipeline.unet, trained.unet)
    assert equal(pipeline.autoencoder, models.autoencoder)
    assert pipeline.schedule == models.recipe.schedule
    assert pipeline.autoencoder.config["scaling_factor"] == models.autoencoder.config["scaling_factor"]
    assert pipeline.tokenizer.tokenize("an outlined purple three") == [
        "an</w>",
        "outlined</w>",
        "purple</w>",
        "three</w>",
    ]


def test_diffusers_draws_what_we_draw_from_the_same_noise(folder: Path):
    pipeline, theirs = load(folder), StableDiffusionPipeline.from_pretrained(folder)
    theirs.set_progress_bar_config(disable=True)
    how = Sampler("ddim", steps=4, guidance=3.0)
    prompts = number_prompts(TEXTS)
    latents = sample(
        pipeline.model(prompts),
        make_task(prompts, pipeline.schedule),
        torch.tensor([prompts.number(text) for text in TEXTS]),
        shape=pipeline.shape,
        how=how,
        rounded=False,
    )
    ours = decode(pipeline.autoencoder, latents, rounded=False).clamp(-1, 1)
    start = noise([torch.Generator().manual_seed(seed) for seed in (0, 1)], pipeline.shape)
    output = theirs(TEXTS, num_inference_steps=4, guidance_scale=3.0, latents=start, output_type="np")
    images = np.asarray(output.images).transpose(0, 3, 1, 2)
    assert np.abs(images - (ours.numpy() + 1) / 2).max() < 1e-5


def test_an_interrupted_training_ends_in_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    reference = TextToImageModels(short()).train(0).model
    forward, passes = Prompted.forward, []

    def interrupt(model: Prompted, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        passes.append(1)
        if len(passes) == 6:
            raise KeyboardInterrupt
        return forward(model, x, t, condition)

    monkeypatch.setattr(Prompted, "forward", interrupt)
    with pytest.raises(KeyboardInterrupt):
        TextToImageModels(short(), tmp_path).train(0)
    assert len(list(tmp_path.rglob(STATE))) == 1
    resumed_model = TextToImageModels(short(), tmp_path).train(0).model
    # five steps, the interrupted one, and the last two: step 5 begins at the state of step 4
    assert len(passes) == 8 and equal(resumed_model, reference)
    assert not list(tmp_path.rglob(STATE))


def test_a_model_is_trained_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first = TextToImageModels(short(), tmp_path).train(0, THREE)
    monkeypatch.setattr(Prompted, "forward", lambda *inputs: pytest.fail("trained again"))
    second = TextToImageModels(short(), tmp_path).train(0, THREE)
    assert equal(first.model, second.model) and first.cost == second.cost


def test_a_folder_is_never_replaced(models: TextToImageModels, folder: Path):
    with pytest.raises(ValueError, match="exists: name a new folder"):
        models.write(folder, 0)
    assert not list(folder.parent.glob(".*"))
