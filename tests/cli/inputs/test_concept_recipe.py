"""Recipes of requests to forget a concept, each run on a tiny pipeline."""

import json
import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from stable_diffusion import write_images, write_pipeline  # noqa: E402  # after diffusers is known to be there
from unweave.cli.inputs.concept_recipe import (  # noqa: E402
    FOLDER,
    concept_recipe_names,
    learns_from_prompts,
    read_concept_recipe,
)
from unweave.cli.inputs.concept_source import Generation  # noqa: E402
from unweave.cli.inputs.concepts import Concepts  # noqa: E402
from unweave.cli.inputs.scope import ALL, TrainedWeights  # noqa: E402

NAMES = concept_recipe_names()
TABLES = {name: tomllib.loads(FOLDER.joinpath(f"{name}.toml").read_text())["methods"] for name in NAMES}
METHODS = [(name, method) for name, table in TABLES.items() for method in table]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory) -> Path:
    return write_pipeline(tmp_path_factory.mktemp("model") / "sd")


SHORT = ("--set", "how.steps=1", "--set", "how.batch=1", "--quiet")


@pytest.mark.parametrize(("name", "method"), METHODS)
def test_every_recipe_runs_on_a_tiny_model(name: str, method: str, run, pipeline: Path, here: Path):
    draw = ("--generate", "9", "--sampler", "steps=2")  # one of each prompt to keep
    steps = ("--set", "sampler.steps=2") if method == "esd" else ()
    result = run("forget", pipeline, "--recipe", name, "--method", method, *draw, *SHORT, *steps)
    assert result.code == 0, result.error
    content = json.loads((here / "forgotten" / "record.json").read_text())
    (row,) = content["stages"]["audit"]["methods"].values()
    expected = TABLES[name][method]
    assert f"lr={expected['how']['lr']!r}" in row["repr"] and "steps=1," in row["repr"]


@pytest.mark.parametrize("name", [*NAMES, "../dit-imagenet-class"])
def test_every_number_of_a_recipe_has_its_source(name: str):
    has_source = False
    for line in FOLDER.joinpath(f"{name}.toml").read_text().splitlines():
        setting, _, comment = line.partition("#")
        if setting.startswith("["):
            has_source = bool(comment)  # of a whole table
        if re.search(r"= *(\d|[\[{].*\d)", setting):
            assert has_source or comment.strip(), line


def test_flags_replace_what_a_recipe_says():
    recipe = read_concept_recipe("sd-imagenette-class", "model")
    assert recipe is not None
    concepts = recipe.concepts(Concepts(), keeps=True)
    assert concepts.concept == ("tench",) and concepts.target == "an image of a English springer"
    assert len(concepts.keep) == 9 and "an image of a tench" not in concepts.keep
    assert recipe.concepts(Concepts(), keeps=False).keep == ()
    assert recipe.trained(ALL).scope == "all"
    assert recipe.trained(TrainedWeights("self-attention")).scope == "self-attention"
    other = recipe.concepts(Concepts(concept=("church",)), keeps=True)
    assert other.target is None
    assert "an image of a church" not in other.keep and "an image of a tench" in other.keep
    assert recipe.settings("salun", {"how": {"lr": 1e-4}})["how"] == {
        "optimizer": "adam",
        "lr": 1e-4,
        "batch": 8,
        "steps": 600,
    }
    nudity = read_concept_recipe("sd-nudity", "model")
    assert nudity is not None
    assert nudity.generation(Generation(), "images", nudity.concept, needs_images=True) == Generation()
    generation = nudity.generation(Generation(sampler=("steps=9",)), None, nudity.concept, needs_images=True)
    assert generation.generate == 800 and generation.how.steps == 9 and generation.how.guidance == 7.5
    assert generation.all_prompts() == ("a photo of a nude person",)
    assert nudity.generation(Generation(), None, ("a gun",), needs_images=True).all_prompts() == ()
    by_prompts = nudity.generation(Generation(), None, nudity.concept, needs_images=False)
    assert by_prompts.generate is None and by_prompts.all_prompts() == generation.all_prompts()
    assert by_prompts.sampler == () and by_prompts.how == replace(generation.how, steps=50)


def test_a_recipe_may_name_the_rank_of_low_rank_additions(tmp_path: Path):
    (tmp_path / "mine.toml").write_text('concept = ["a three"]\nscope = "lora"\nrank = 2\n')
    recipe = read_concept_recipe(str(tmp_path / "mine.toml"), "model")
    assert recipe is not None and recipe.trained(ALL) == TrainedWeights("lora", 2)
    assert recipe.trained(TrainedWeights("lora")) == TrainedWeights("lora", 2)
    assert recipe.trained(TrainedWeights("lora", 3)) == TrainedWeights("lora", 3)
    assert recipe.trained(TrainedWeights("all")) == TrainedWeights("all")


@pytest.mark.parametrize(
    ("method", "reads"), [("lur:recover", False), ("uce", True), ("joint:reset-tokens", True)]
)
def test_prompts_to_keep_are_for_methods_that_read_them(method: str, reads: bool):
    assert learns_from_prompts(method) is reads


def test_the_images_of_a_user_go_with_a_recipe(run, pipeline: Path, here: Path):
    recipe = here / "mine.toml"
    recipe.write_text('concept = ["a three"]\nkeep = ["a four"]\n[methods.uce]\n')
    images = write_images(here / "images", each=3)
    result = run("forget", pipeline, "--recipe", recipe, "--method", "uce", "--data", images, "--quiet")
    assert result.code == 0 and "'a three': 5 of 15 training images" in result.out


@pytest.mark.parametrize(
    ("text", "flags", "sentence"),
    [
        (
            'concept = ["a three"]\nkeeps = []\n',
            (),
            "unknown key 'keeps' in .*mine.toml .did you mean 'keep'",
        ),
        ('concept = ["a three"]\nscope = "most"\n', (), "scope"),
        ('concept = ["a three"]\n[methods.uce]\n', (), "no settings for lur-lagged, only for uce"),
        ("concept = [\n", (), "mine.toml is not TOML"),
        (
            'concept = ["a three"]\n[methods.uce]\n',
            ("--method", "uce", "--class", "3"),
            "--class does not go",
        ),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(
    text: str, flags, sentence: str, refused, pipeline, tmp_path
):
    recipe = tmp_path / "mine.toml"
    recipe.write_text(text)
    refused(sentence, "forget", pipeline, "--recipe", recipe, *flags, "--quiet")


def test_a_misspelt_recipe_is_named(refused, pipeline: Path, here: Path):
    sentence = "unknown recipe of a concept 'sd-nudty' .did you mean 'sd-nudity'"
    for more in ((), ("--concept", "a three")):
        refused(sentence, "forget", pipeline, "--recipe", "sd-nudty", *more)
    refused(sentence, "check", pipeline, "--recipe", "sd-nudty")
