from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from unweave.bench.recipe import recipe_names
from unweave.bench.text_to_image_recipe import FOLDER, TextToImageRecipe, recipe_file, text_to_image_recipe
from unweave.tables import as_table, read
from unweave.tasks.diffusion.schedule import Schedule


@pytest.mark.parametrize("name", ["digits", "garments"])
def test_a_recipe_of_the_package(name: str):
    recipe = text_to_image_recipe(name)
    assert recipe.drawings.subject == name and recipe.train.ema and recipe.save_every
    assert recipe.autoencoder.latent(recipe.drawings.size) == (4, 8, 8)
    assert name not in recipe_names()
    assert read(TextToImageRecipe, as_table(recipe), "") == recipe


def test_there_are_no_other_recipes():
    assert sorted(each.name for each in FOLDER.iterdir()) == ["digits.toml", "garments.toml"]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"zero_snr": True, "prediction": "v_prediction", "clip": 2.0, "ends_clean": False, "offset": 1},
        {"steps": 2, "betas": (0.1, 0.2)},
    ],
)
def test_the_scheduler_has_the_noise_of_the_training(changes: dict[str, Any]):
    recipe = text_to_image_recipe("digits")
    schedule = replace(recipe.schedule, **changes)
    config = replace(recipe, schedule=schedule).scheduler().config
    found = Schedule.of({**config, "_class_name": "DDIMScheduler"})
    assert found == (replace(schedule, kind="linear") if schedule.betas else schedule)


def test_a_recipe_from_a_file(tmp_path: Path):
    path = tmp_path / "mine.toml"
    path.write_text(recipe_file("digits").read_text())
    assert text_to_image_recipe(path) == text_to_image_recipe("digits")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "expected a recipe at .*, found no such file"),
        ("[drawings", "mine.toml is not TOML"),
        ("ÿ", "mine.toml is not TOML"),
        (
            "[drawings]\n[autoencoder.train]\nsteps = 1\n[train]\nstep = 2\n",
            "unknown key .step. in train .did you mean .steps",
        ),
        ("[drawings]\n", "autoencoder is missing"),
    ],
)
def test_a_bad_recipe_is_refused(text: str | None, message: str, tmp_path: Path):
    path = tmp_path / "mine.toml"
    if text is not None:
        path.write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=message):
        text_to_image_recipe(path)


def test_garments_are_read_from_a_folder_and_digits_have_none():
    recipe = text_to_image_recipe("garments").with_data("images")
    assert recipe.drawings.folder == "images" and recipe.drawings.names["object"][2] == "pullover"
    with pytest.raises(ValueError, match="digits are scikit-learn's and need no folder: leave images out"):
        text_to_image_recipe("digits").with_data("images")


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="unknown text-to-image recipe 'digit' .did you mean 'digits'"):
        text_to_image_recipe("digit")
