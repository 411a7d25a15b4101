"""`unweave check FOLDER --concept`: the captions of a request, its neighbours, and what a step costs."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from single_file import write_single_file  # after diffusers is known to be there
from unweave.cli.checks import concept_costs
from unweave.cli.checks.concepts import choose_methods, neighbours, notes
from unweave.cli.inputs.concept_drawing import plan_drawing
from unweave.cli.inputs.concept_source import Generation
from unweave.cli.inputs.concepts import Concepts
from unweave.cli.inputs.scope import ALL
from unweave.families.text_to_image_settings import PRESETS
from unweave.tasks.diffusion.drawn_folder import AT_ONCE, ImagesToDraw


def test_neighbours_differ_in_one_word():
    texts = {"a red two", "a blue two", "two", "a red three now", "a bold three"}
    assert neighbours({"a red three"}, texts) == {"a red two", "a bold three"}
    assert neighbours({"a red three", "one"}, texts) == {"a red two", "a bold three", "two"}


def test_a_note_names_what_an_audit_would_lack():
    counts = {
        "forget": 9,
        "held out": 40,
        "held out of the concept": 2,
        "captions of both": 0,
        "neighbours": 1,
    }
    (note,) = notes(counts)
    assert "learn from 10 images of the concept, found 9" in note
    assert list(notes({**counts, "forget": 10})) == []
    assert len(list(notes({**counts, "held out": 21, "captions of both": 3, "neighbours": 0}))) == 4


def test_a_request_is_counted_and_timed_and_a_method_that_cannot_run_is_named(run, given: Path, here: Path):
    command = ("check", given / "sd", "--concept", "a three", "--data", given / "images")
    result = run(*command, "--methods", "finetune,reset-tokens", "--json", "--out", here / "out", "--quiet")
    assert result.code == 0, result.error
    content = json.loads(result.out)
    # eighteen images, six of them "a three"; a fifth of both kinds is held out
    assert content["data"] == {
        "forget": 5,
        "retain": 10,
        "held out": 3,
        "held out of the concept": 1,
        "captions to forget": 2,
        "captions to keep": 4,
        "captions of both": 0,
        "neighbours": 4,
    }
    finetune, reset = (content["costs"][name] for name in ("finetune", "reset-tokens"))
    assert finetune["gradients"] == pytest.approx(100) and finetune["seconds"] > 0
    assert reset["seconds"] is None and 'scope "text encoder"' in reset["refused"]
    assert content["model"]["trainable"] == content["model"]["weights"] > 0
    assert json.loads((here / "out" / "check.json").read_text())["data"] == content["data"]


def test_a_file_and_a_recipe_are_checked_as_they_are_forgotten_from(run, refused, given: Path, here: Path):
    file, recipe = write_single_file(given / "sd", given / "mine.safetensors"), given / "mine.toml"
    recipe.write_text('concept = ["a three"]\nscope = "all"\n[methods.finetune]\nhow.steps = 7\n')
    command = ("check", file, "--recipe", recipe, "--data", given / "images", "--methods", "finetune")
    refused("holds weights alone: name a local folder", *command)
    result = run(*command, "--config", given / "sd", "--json", "--quiet")
    assert result.code == 0, result.error
    content = json.loads(result.out)
    assert content["scope"] == "all" and content["costs"]["finetune"]["gradients"] == pytest.approx(7)
    assert list(here.iterdir()) == []
    refused("no settings for lur, only for finetune", *command[:-1], "lur", "--config", given / "sd")
    folder = ("check", given / "sd", "--concept", "a three", "--data", given / "images")
    refused("--config goes with a model in one", *folder, "--config", given / "nowhere")
    for flags in ((), ("--methods", "all")):
        result = run(*command[:-2], *flags, "--config", given / "sd", "--json", "--quiet")
        assert json.loads(result.out)["costs"].keys() == {"finetune"}
    mistyped = ("check", file, "--config", given / "sd", "--concept", "a three", "--data", given / "images")
    refused("unknown recipe of a concept 'sd-nudty'", *mistyped, "--recipe", "sd-nudty")
    recipe.write_text('concept = ["a three"]\n')
    refused("no settings for lur-lagged: give forget", *command[:-2], "--config", given / "sd")
    recipe.write_text('concept = ["a three"]\n[methods.lur]\nforget = "uniform"\n')
    refused("lur.forget = 'uniform' is for models of", *folder, "--recipe", recipe)


def test_images_that_the_model_would_draw_are_priced_and_none_is_kept(run, given: Path, here: Path):
    command = ("check", given / "sd", "--concept", "a three", "--keep", "a four", "--generate", "20")
    result = run(*command, "--sampler", "steps=2", "--methods", "finetune,esd", "--json", "--quiet")
    assert result.code == 0, result.error
    content = json.loads(result.out)
    assert content["data"]["forget"] == 16 and content["data"]["held out of the concept"] == 4
    assert list(content["costs"]) == ["draw 40 images", "finetune", "esd"]
    assert all(each["seconds"] > 0 for each in content["costs"].values())
    assert list(here.iterdir()) == []


def test_drawing_costs_a_start_once_and_its_steps_for_each_chunk(monkeypatch, given: Path):
    clock = [0.0]

    def draw(pipeline: object, images: ImagesToDraw, absent: list[object], *_: object) -> None:
        chunks = -(-len(absent) // AT_ONCE)
        clock[0] += 0.2 + chunks * (0.05 + 0.01 * images.sampler.steps)

    monkeypatch.setattr(concept_costs, "draw_absent_images", draw)
    monkeypatch.setattr(concept_costs.timing, "clock_of", lambda device: lambda: clock[0])
    request = Concepts(("a three",), keep=("a four",))
    plan = plan_drawing(str(given / "sd"), request, ALL, Generation(20, sampler=("steps=50",)), 0)
    estimate = next(concept_costs.drawing_rounds(plan, torch.device("cpu")))
    assert estimate.seconds == pytest.approx(0.2 + 40 / AT_ONCE * (0.05 + 0.01 * 50)) and estimate.is_quick


def test_a_request_whose_images_can_not_be_drawn_fails(run, given: Path):
    weights = given / "sd" / "vae" / "diffusion_pytorch_model.safetensors"
    state, name = load_file(weights), "decoder.conv_out.weight"
    save_file(state | {name: torch.full_like(state[name], 3e38)}, weights, {"format": "pt"})
    command = ("check", given / "sd", "--concept", "a three", "--keep", "a four", "--generate", "6")
    result = run(*command, "--sampler", "steps=2", "--methods", "uce", "--quiet")
    assert result.code == 3 and "the images can't be drawn: a decoded image is not finite" in result.error


def test_another_sampler_is_another_check(run, given: Path, here: Path):
    words = ("check", given / "sd", "--concept", "a three", "--keep", "a four", "--generate", "6", "--quiet")
    for steps in (2, 3):
        flags = ("--sampler", f"steps={steps}", "--methods", "uce", "--out", here / "out")
        result = run(*words, *flags)
        assert result.code == 0 and "no image is drawn yet" in " ".join(result.out.split())
    assert (here / "out-2" / "check.json").exists()


def test_uce_is_checked_without_images(run, given: Path):
    words = ("check", given / "sd", "--concept", "a three", "--keep", "a dog")
    result = run(*words, "--methods", "uce", "--quiet")
    assert result.code == 0 and "Prompts to forget: 1. Prompts to keep: 1, of which 1 differ" in result.out
    assert "images" not in result.out
    refused_words = run(*words, "--methods", "uce,lur", "--quiet")
    assert refused_words.code == 2 and "name a folder of images with captions" in refused_words.error


def test_a_pipeline_needs_a_concept_and_images(refused, given: Path):
    refused("name what to forget with --concept", "check", given / "sd")
    refused("name a folder of images with captions", "check", given / "sd", "--concept", "a three")
    refused("--random does not go with --concept", "check", "x", "--concept", "a three", "--random", "0.1")


def test_all_methods_are_those_of_the_family_but_for_references():
    names = choose_methods("all", None)
    assert {"lur", "uce", "sfron"} <= {*names} < {*PRESETS} | {"retrain"} and "retrain" not in names
    assert choose_methods(None, None) == ("lur-lagged",)
