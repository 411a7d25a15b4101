"""`unweave demo diffusion`: a generator forgets a digit, and the report shows what each model draws."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from unweave.bench.recipe import Recipe, load, parse
from unweave.cli import demo, main
from unweave.record import record

pytest.importorskip("diffusers")


def short(recipe: Recipe) -> Recipe:
    """The recipe with a model and trainings of a moment."""
    how = {"steps": 2, "batch": 16}
    recover = {"until": None, "how": how}
    methods = {"lur:recover": {"lur": {"how": how}, "recover": recover}, "salun": {"how": how}}
    table = recipe.table() | {"model": {"name": "unet", "settings": {"width": 8}}, "methods": methods}
    generation = {**table["generation"], "sampler": {**table["generation"]["sampler"], "steps": 1}}
    train = {**table["train"], "steps": 4, "batch": 16}
    return parse({**table, "generation": generation, "train": train})


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A quick demo of a tiny model."""
    folder = tmp_path_factory.mktemp("demo") / "run"

    def tiny(quick: bool) -> demo.Demonstration:
        demonstration = demo.diffusion(quick)
        return replace(demonstration, recipes=tuple(short(recipe) for recipe in demonstration.recipes))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "DEMONSTRATIONS", {"diffusion": tiny})
        assert main(["demo", "diffusion", "--quick", "--jobs", "1", "--quiet", "--out", str(folder)]) == 0
    return folder


def test_two_methods_stand_beside_retrain_and_every_model_shows_its_images(place):
    (stage,) = record.load(place)["stages"].values()
    assert stage["methods"].keys() == {"lur-lagged", "salun", "original"} and stage["partial"]
    assert stage["sheets"].keys() == {"lur-lagged", "salun", "original", "retrained"}
    assert stage["data"]["forgotten_classes"] == [3] and stage["recipe"]["generation"]["images"] == 50
    assert (place / "report.html").read_text().count('<img class="sheet"') == 4


def test_unhurried_it_trains_as_the_recipe_says_and_runs_four_methods():
    (recipe,), (quick_recipe,) = demo.diffusion(False).recipes, demo.diffusion(True).recipes
    assert recipe.train == load("digit-images-class").train and not recipe.partial
    assert demo.diffusion(False).methods == "lur-lagged,salun,sa,joint"
    assert quick_recipe.train.steps < recipe.train.steps and quick_recipe.data == recipe.data


def test_without_the_extra_it_says_which_before_anything_is_trained(refused, monkeypatch):
    monkeypatch.delitem(sys.modules, "unweave.tasks.diffusion.class_denoisers", raising=False)
    monkeypatch.setitem(sys.modules, "diffusers", None)
    refused(r"pip install 'unweave\[diffusion\]'", "demo", "diffusion", "--quick")
