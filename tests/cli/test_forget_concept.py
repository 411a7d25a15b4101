import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import torch  # noqa: E402  # after diffusers is known to be there
from safetensors.torch import load_file, save_file  # noqa: E402

from folders import contents  # noqa: E402
from single_file import write_single_file  # noqa: E402
from stable_diffusion import write_images  # noqa: E402

SHORT = ("--set", "how.steps=2", "--set", "how.batch=4", "--method", "lur", "--quiet")
THREE = ("--concept", "a three")


def test_a_concept_is_forgotten_from_folder_to_folder(run, given: Path, here: Path):
    given_contents = contents(given)
    flags = ("--concept", "a three", "--as", "a four", "--data", given / "images")
    result = run("forget", given / "sd", *flags, *SHORT, "--out", here / "out")
    assert result.code == 0, result.error
    assert (
        "'a three': 5 of 15 training images hold it." in result.out and "\nForgot with lur in" in result.out
    )
    assert (
        "To forget: 'a three', 'a red three', 'a blue three'\nTo keep: 'a " in result.out
        and "add --pictures 4" in result.out
    )
    assert contents(given) == given_contents
    model_copy = contents(here / "out" / "pretrained")
    original_model = contents(given / "sd")
    assert model_copy.keys() == original_model.keys() | {"unlearning_manifest.json"}
    changed_files = [name for name in original_model if model_copy[name] != original_model[name]]
    assert changed_files == ["unet/diffusion_pytorch_model.safetensors"]
    manifest = json.loads((here / "out" / "pretrained" / "unlearning_manifest.json").read_text())
    assert manifest["forgotten_concepts"] == ["a three"] and manifest["method"] == "lur"
    content = json.loads((here / "out" / "record.json").read_text())
    assert content["stages"]["audit"]["request"]["asked"] == "--concept 'a three'"
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(
        here / "out" / "pretrained", local_files_only=True
    )
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline("a three", num_inference_steps=2, output_type="pt").images
    assert image.shape == (1, 3, 16, 16) and bool(image.isfinite().all())
    second = run("forget", given / "sd", *flags, *SHORT, "--out", here / "out")
    assert second.code == 0 and "Done already" in second.out and not (here / "out-2").exists()
    flags = ("--concept", "red", "--data", given / "images", *SHORT, "--out", here / "next")
    result = run("forget", here / "out" / "pretrained", *flags)
    assert result.code == 2 and "'a three' was forgotten before" in result.error
    keep_flags = ("--keep", "a bold a three", "--data", given / "images", "--method", "uce")
    result = run("forget", here / "out" / "pretrained", "--concept", "two", *keep_flags)
    assert result.code == 2 and "'a three' was forgotten before" in result.error


def test_the_words_of_a_forgotten_concept_are_reset_in_a_second_run(run, given: Path, here: Path):
    flags = ("--concept", "a three", "--data", given / "images", "--quiet")
    first = run("forget", given / "sd", *flags, "--method", "uce", "--out", here / "first")
    assert first.code == 0, first.error
    words = ("--method", "reset-tokens", "--scope", "text encoder")
    second = run("forget", here / "first" / "pretrained", *flags, *words, "--out", here / "second")
    assert second.code == 0, second.error
    first_model, second_model = (contents(here / name / "pretrained") for name in ("first", "second"))
    changed_files = [name for name in first_model if second_model[name] != first_model[name]]
    assert changed_files == ["text_encoder/model.safetensors", "unlearning_manifest.json"]


def test_additions_of_low_rank_are_written_too(run, given: Path, here: Path):
    flags = ("--concept", "three", "--concept", "four", "--scope", "lora", "--rank", "2")
    result = run("forget", given / "sd", *flags, "--data", given / "images", *SHORT, "--out", here / "out")
    assert result.code == 0, result.error
    assert (here / "out" / "lora" / "pytorch_lora_weights.safetensors").exists()
    assert (here / "out" / "pretrained" / "model_index.json").exists()


def test_a_run_whose_files_are_cut_or_missing_is_not_done(run, given: Path, here: Path):
    flags = (*THREE, "--data", given / "images", "--scope", "lora", *SHORT, "--out", here / "out")
    assert run("forget", given / "sd", *flags).code == 0
    run_contents = contents(here / "out")
    unet = next((here / "out" / "pretrained" / "unet").glob("*.safetensors"))
    name = str(unet.relative_to(here / "out"))
    for damage in (
        lambda: shutil.rmtree(here / "out" / "lora"),
        lambda: os.truncate(unet, 100),
        (here / "out" / "record.json").unlink,
    ):
        damage()
        result = run("forget", given / "sd", *flags)
        assert result.code == 0 and "Done already" not in result.out, result.error
        new_contents = contents(here / "out")
        assert new_contents.keys() == run_contents.keys() and new_contents[name] == run_contents[name]
    assert "Done already" in run("forget", given / "sd", *flags).out and not (here / "out-2").exists()


def test_a_run_with_other_captions_is_another_run(run, given: Path, here: Path):
    metadata = given / "images" / "metadata.jsonl"
    flags = (*THREE, "--data", given / "images", *SHORT, "--out", here / "out")
    assert run("forget", given / "sd", *flags).code == 0
    metadata.write_text(metadata.read_text().replace("a red two", "a green two"))
    result = run("forget", given / "sd", *flags)
    assert result.code == 0 and "Done already" not in result.out and (here / "out-2").exists()


def test_a_run_with_another_schedule_or_text_encoder_is_another_run(run, given: Path, here: Path):
    flags = (*THREE, "--data", given / "images", *SHORT, "--out", here / "out")
    assert run("forget", given / "sd", *flags).code == 0
    schedule = given / "sd" / "scheduler" / "scheduler_config.json"
    schedule.write_text(schedule.read_text().replace("epsilon", "v_prediction"))
    result = run("forget", given / "sd", *flags)
    assert result.code == 0 and "Done already" not in result.out and (here / "out-2").exists()
    weights = given / "sd" / "text_encoder" / "model.safetensors"
    state = load_file(weights)
    save_file({name: 2 * value for name, value in state.items()}, weights, {"format": "pt"})
    result = run("forget", given / "sd", *flags)
    assert result.code == 0 and "Done already" not in result.out and (here / "out-3").exists()


def test_captions_found_by_a_column_are_what_uce_erases(run, given: Path, here: Path):
    metadata = given / "images" / "metadata.jsonl"
    lines = metadata.read_text().replace('"number": "three"', '"number": "3"')
    assert '"number": "3"' in lines
    metadata.write_text(lines)
    command = ("forget", given / "sd", "--data", given / "images", *FAST)
    assert run(*command, "--concept", "3", "--column", "number", "--out", here / "column").code == 0
    captions = given / "captions.txt"
    captions.write_text("a red three\na blue three\n")
    assert run(*command, "--concept", "warm", "--captions", captions, "--out", here / "listed").code == 0
    first, second = (contents(here / name / "pretrained" / "unet") for name in ("column", "listed"))
    assert first == second
    manifest = json.loads((here / "column" / "pretrained" / "unlearning_manifest.json").read_text())
    assert manifest["forgotten_concepts"] == ["3"]
    assert sorted(manifest["forgotten_captions"]) == ["a blue three", "a red three"]
    flags = ("--concept", "two", "--data", given / "images", *FAST, "--out", here / "again")
    result = run("forget", here / "column" / "pretrained", *flags)
    assert result.code == 2 and "the caption 'a blue three' was forgotten before" in result.error


def test_a_dry_run_writes_nothing(run, given: Path, here: Path):
    flags = ("--concept", "three", "--column", "number", "--data", given / "images")
    result = run("forget", given / "sd", *flags, *SHORT, "--dry-run")
    assert result.code == 0 and "5 of 15 training images hold it.\nTo forget: 'three', " in result.out
    assert "It would run lur. Nothing was written." in result.out
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ((), "holds a text-to-image model: name what to forget with --concept"),
        (("--as", "a four"), "name what to forget with --concept"),
        (("--concept", "a nine"), "no caption in .* holds 'a nine'"),
        (("--concept", "a"), "forget must name some but not all|two images without the concept are needed"),
        ((*THREE, "--keep", "a five"), "with --data, lur keeps the images of --data and no further prompts"),
        (
            (*THREE, "--method", "uce", "--keep", "a big three"),
            "--keep 'a big three' holds the concept 'a three'",
        ),
        ((*THREE, "--as", "three"), "--as 'three' holds the concept 'a three'"),
        ((*THREE, "--as", "x" * 90), "a prompt must have at most 77 tokens, found 92 in 'xxx"),
        ((*THREE, "--method", "uce", "--keep", " "), r"--keep must name a prompt, found \[' '\]"),
        ((*THREE, "--class", "3"), "--class does not go with --concept"),
        ((*THREE, "--scope", "everything"), "scope"),
        ((*THREE, "--method", "scrub"), "is for models of the family classifier"),
        ((*THREE, "--set", "forget=uniform"), "'uniform' is for models of the family classifier"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(flags, sentence: str, refused, given: Path):
    method = () if "--method" in flags else SHORT[4:6]
    refused(sentence, "forget", given / "sd", *flags, "--data", given / "images", *method, "--quiet")


def test_whole_captions_name_a_concept_that_has_no_words(run, refused, given: Path, here: Path):
    captions = given / "captions.txt"
    captions.write_text("a red three\na red four\n")
    words = ("forget", given / "sd", "--concept", "warm", "--data", given / "images", "--captions", captions)
    result = run(*words, "--method", "uce", "--quiet", "--dry-run")
    assert result.code == 0 and "'warm': 5 of 15 training images hold it." in result.out, result.error
    refused("--keep 'a red four' holds the concept", *words, "--keep", "a red four", "--method", "uce")
    refused("--column and --captions are two ways", *words, "--column", "number", "--method", "uce")
    captions.write_text("a red three\na red nine\n")
    refused("no caption in .* holds 'a red nine'", *words, "--method", "uce", "--quiet")
    refused("found none at", *words[:-1], given / "nowhere.txt", "--method", "uce", "--quiet")


def test_images_that_do_not_fit_are_refused(refused, given: Path):
    small_images = write_images(given / "small", size=8)
    command = ("forget", given / "sd", *THREE, *SHORT)
    refused(r"draws images of shape \[3, 16, 16\] .*, found \[3, 8, 8\]", *command, "--data", small_images)
    refused("name a folder of images with captions", *command)
    refused("--out must lie outside", *command, "--data", given / "images", "--out", given / "sd" / "out")
    index = given / "sd" / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"_class_name": "StableDiffusion3Pipeline"}))
    refused("found 'StableDiffusion3Pipeline'", *command, "--data", given / "images")


def test_verbs_that_take_no_pipeline_say_which_do(refused, given: Path):
    sentence = r"sd holds a text-to-image model: only check and forget .with --concept. and audit"
    refused(sentence, "bench", given / "sd", "--data", given / "images", "--quiet")
    refused(sentence, "qualify", given / "sd", "--quiet")
    refused("qualify is for classifiers, found a diff", "qualify", given / "sd" / "unet", "--quiet")
    refused("found none: name it with --data", "bench", "dit-imagenet-class", "--quiet")


FAST = ("--method", "uce", "--quiet")
DRAW = ("--generate", "5", "--keep", "a four", "--sampler", "steps=2")


def test_a_pipeline_draws_the_images_of_a_request_itself(run, given: Path, here: Path):
    given_contents = contents(given)
    command = ("forget", given / "sd", *THREE, *DRAW, *FAST)
    plan = run(*command, "--dry-run")
    assert plan.code == 0 and "the model draws 5 images of the concept, from 3 prompts, and 5" in plan.out
    assert "To keep: 'a four'\n" in plan.out and "Nothing was written." in plan.out
    assert list(here.iterdir()) == []
    result = run(*command, "--out", here / "out")
    assert result.code == 0, result.error
    assert "\nThe model drew them: see in" in result.out
    assert contents(given) == given_contents
    images = contents(here / "out" / "generated")
    assert sum(name.endswith(".png") for name in images) == 10
    repeat = run(*command, "--out", here / "out")
    assert repeat.code == 0 and "Done already" in repeat.out and not (here / "out-2").exists()
    other = run(*command, "--scope", "cross-attention", "--out", here / "out")
    assert other.code == 0 and contents(here / "out-2" / "generated") == images
    assert f"{here / 'out'} holds another run, so this one is in {here / 'out-2'}." in other.out
    flags = ("--data", here / "out" / "generated", *FAST, "--out", here / "used")
    result = run("forget", given / "sd", *THREE, "--keep", "a four", *flags)
    assert result.code == 0 and "4 of 8 training images hold it" in result.out
    first, second = (here / name / "pretrained" / "unet" for name in ("out", "used"))
    assert contents(first) == contents(second)


def test_uce_needs_no_images(run, given: Path, here: Path, monkeypatch):
    from unweave.tasks.diffusion import concept_request

    given_contents = contents(given)
    monkeypatch.setattr(concept_request, "encode", interrupt)
    command = ("forget", given / "sd", *THREE, "--keep", "a red four", *FAST)
    plan = run(*command, "--dry-run")
    assert plan.code == 0 and "'a three': 1 of 2 prompts hold it; the method needs no images." in plan.out
    assert list(here.iterdir()) == []
    result = run(*command, "--out", here / "out")
    assert result.code == 0, result.error
    assert contents(given) == given_contents and not [*here.rglob("*.png")]
    (stage,) = json.loads((here / "out" / "record.json").read_text())["stages"].values()
    assert stage["request"]["unit"] == "prompts" and stage["request"]["ids"] == ["a three"]
    assert stage["request"]["examples"] == 1 and stage["request"]["of"] == 2
    assert stage["data"] == {"prompts to forget": 1, "prompts to keep": 1}  # and no held-out images
    assert run("report", here / "out", "--out", here / "report").code == 0
    assert "1 of 2 prompts" in next((here / "report").glob("*.html")).read_text()
    assert "Done already" in run(*command, "--out", here / "out").out
    other = run(*command, "--keep", "a blue four", "--out", here / "out")
    assert other.code == 0 and (here / "out-2").exists()


def test_uce_without_images_solves_what_it_solves_with_them(run, given: Path, here: Path):
    keep = ("--keep", "a four", "--keep", "a red two")
    drawn = ("--generate", "5", "--sampler", "steps=2")
    for name, images in (("prompts", ()), ("images", drawn)):
        result = run("forget", given / "sd", *THREE, *keep, *images, *FAST, "--out", here / name)
        assert result.code == 0, result.error
    first, second = (contents(here / name / "pretrained" / "unet") for name in ("prompts", "images"))
    assert first == second


def test_prompts_without_images_come_from_a_file_too(run, given: Path, here: Path):
    prompts = given / "prompts.txt"
    prompts.write_text("a red three\na blue four\n")
    result = run("forget", given / "sd", *THREE, "--prompts", prompts, *FAST, "--out", here / "out")
    assert result.code == 0 and "To forget: 'a three'\nTo keep: 'a blue four'" in result.out


def test_a_concept_named_twice_is_erased_once(run, given: Path, here: Path):
    once, twice = (
        ("--concept", "a three", "--keep", "a four"),
        ("--concept", "a three", "--keep", "a four") * 2,
    )
    for name, flags in (("once", once), ("twice", twice)):
        result = run("forget", given / "sd", *flags, *FAST, "--out", here / name)
        assert result.code == 0 and "1 of 2 prompts hold it" in result.out, result.error
    first, second = (contents(here / name / "pretrained" / "unet") for name in ("once", "twice"))
    assert first == second


def test_a_recipe_that_draws_images_draws_none_for_uce(run, given: Path, here: Path):
    recipe = here / "recipe.toml"
    recipe.write_text(
        'concept = ["a three"]\nkeep = ["a four"]\ngenerate = 9\nsampler = { steps = 2 }\n'
        "[methods.uce]\npull = 0.1\n[methods.salun]\nhow = { steps = 2 }\n"
    )
    command = ("--recipe", recipe, "--method", "uce", "--quiet", "--out", here / "out")
    result = run("forget", given / "sd", *command)
    assert result.code == 0 and "1 of 2 prompts hold it" in result.out, result.error
    assert not [*here.rglob("*.png")]


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--keep", "a three dog"), "holds the concept"),
        (("--keep", "a four", "--column", "number"), "--column and --captions go with --data"),
        (("--prompts", "nowhere.txt"), "nowhere.txt"),
        (("--keep", " ".join(["red"] * 99)), "too long|at most"),
        ((), "a request without --data needs prompts to keep"),
    ],
)
def test_prompts_without_images_that_can_not_be_used_are_refused(flags, sentence: str, refused, given: Path):
    refused(sentence, "forget", given / "sd", *THREE, *flags, *FAST)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--method", "uce", "--scope", "self-attention"), "cross-attention"),
        (("--method", "scissorhands", "--set", "eligible=nothing"), "nothing"),
        (("--method", "esd", "--set", "erase_from=99"), "99"),
    ],
)
def test_a_method_that_does_not_fit_is_refused_before_anything_is_drawn(
    flags, sentence: str, run, given: Path, here: Path
):
    command = ("forget", given / "sd", *THREE, *DRAW, *flags, "--quiet", "--out", here / "out")
    result = run(*command)
    assert result.code == 2 and sentence in result.error, result
    assert not [*here.rglob("*.png")]
    dry_run = run(*command, "--dry-run")
    assert dry_run.code == 2 and dry_run.error == result.error


def test_pictures_show_both_models_and_are_in_the_report(run, given: Path, here: Path):
    command = ("forget", given / "sd", *THREE, "--data", given / "images", *FAST, "--out", here / "out")
    picture_flags = ("--pictures", "2", "--sampler", "steps=2")
    result = run(*command, *picture_flags)
    assert result.code == 0 and f"Before and after: {here / 'out' / 'pictures.png'}." in result.out, (
        result.error
    )
    pixels, files = load_pixels(here / "out" / "pictures.png"), contents(here / "out")
    half = pixels.shape[1] // 2
    assert pixels.shape == (4 * 20, 2 * (2 + 2 * 18), 4)  # four prompts, twice two images of 16 pixels
    assert (pixels[:20, :half] != pixels[:20, half:]).any()
    stage = json.loads((here / "out" / "record.json").read_text())["stages"]["audit"]
    assert list(stage["sheets"]) == ["original", "UCE"] and stage["request"]["date"]
    assert stage["data"]["prompts"]["of the concept"][0] == "a three"
    assert stage["data"]["prompts"]["to keep"] and "a three" not in stage["data"]["prompts"]["to keep"]
    assert run("report", here / "out", "--out", here / "report").code == 0
    page = next((here / "report").glob("*.html")).read_text()
    assert page.count('<img class="sheet"') == 2 and "Audit of" not in page
    second = run(*command, *picture_flags)
    assert second.code == 0 and "Done already" in second.out and contents(here / "out") == files
    assert f"Before and after: {here / 'out' / 'pictures.png'}." in run(*command).out
    assert run(*command, "--pictures", "3", "--dry-run").code == 0 and contents(here / "out") == files
    facts = json.loads(run(*command, "--json").out)
    assert facts["pictures"] == str(here / "out" / "pictures.png") and "a three" in facts["prompts"]["forget"]
    assert run(*command, "--pictures", "3", "--sampler", "steps=2").code == 0
    assert load_pixels(here / "out" / "pictures.png").shape[1] == 2 * (2 + 3 * 18)


def test_a_sampler_of_pictures_is_refused_before_the_method_runs(run, given: Path, here: Path):
    command = ("forget", given / "sd", *THREE, "--data", given / "images", *FAST, "--pictures", "2")
    for more in ((), ("--dry-run",)):
        result = run(*command, "--sampler", "stepz=3", *more, "--out", here / "out")
        assert result.code == 2 and "unknown key 'stepz'" in result.error and not (here / "out").exists()
        result = run(*command, "--sampler", "steps=2000", *more, "--out", here / "out")
        assert result.code == 2 and "can't take 2000 steps" in result.error and not (here / "out").exists()


def test_a_drawing_that_fails_leaves_the_run_done(run, given: Path, here: Path, monkeypatch):
    from unweave.cli.forget_runs import pictures

    command = ("forget", given / "sd", *THREE, "--data", given / "images", *FAST, "--out", here / "out")
    with monkeypatch.context() as patch:
        patch.setattr(pictures, "decode_finite", interrupt)
        assert run(*command, "--pictures", "2", "--sampler", "steps=2").code == 130
    assert "Done already" in run(*command).out and not (here / "out" / "pictures.png").exists()


def load_pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_an_interrupted_run_keeps_its_images(run, given: Path, here: Path, monkeypatch):
    from unweave.cli.inputs import concept_drawing

    command = ("forget", given / "sd", *THREE, *DRAW, *FAST, "--out", here / "out")
    with monkeypatch.context() as patch:
        patch.setattr(concept_drawing, "read_captioned", interrupt)
        assert run(*command).code == 130
    images = contents(here / "out")
    assert run(*command).code == 0 and images.items() <= contents(here / "out").items()


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_prompts_come_from_a_file(run, given: Path, here: Path):
    prompts = given / "prompts.csv"
    prompts.write_text("prompt,evaluation_seed\na red three,1\na blue three,2\na red two,3\n")
    flags = ("--generate", "4", "--prompts", prompts, "--sampler", "steps=2")
    result = run("forget", given / "sd", *THREE, *flags, *FAST, "--out", here / "out")
    assert result.code == 0, result.error
    rows = (here / "out" / "generated" / "metadata.jsonl").read_text().splitlines()
    texts = [json.loads(row)["text"] for row in rows]
    assert texts == ["a red three", "a blue three"] * 2 + ["a red two"] * 4


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ((*THREE, *DRAW, "--data", "images"), "--data and --generate are two sources of images: leave one"),
        ((*THREE, "--generate", "1", "--keep", "a four"), "--generate must be at least 2, .*, found 1"),
        ((*THREE, "--generate", "-3", "--keep", "a four"), "--generate must be at least 2, .*, found -3"),
        ((*THREE, "--generate", "2"), "a request without --data needs prompts to keep"),
        ((*THREE, "--prompts", "x.txt", "--data", "images"), "--prompts does not go with --data"),
        ((*THREE, "--sampler", "steps=2", "--data", "images"), "--sampler goes with --generate or"),
        ((*THREE, *DRAW, "--pictures", "7"), "--pictures must be in 0..6, found 7"),
        ((*THREE, *DRAW, "--prompts", "x.txt"), "expected a file of prompts, found none at x.txt"),
        ((*THREE, *DRAW, "--column", "number"), "--column and --captions go with --data"),
        ((*THREE, *DRAW, "--sampler", "steps"), "--sampler must be field=value"),
        ((*THREE, *DRAW, "--sampler", "stepz=2"), "unknown key 'stepz' in --sampler"),
        ((*THREE, *DRAW, "--sampler", "steps=2000"), "a model of 1000 times can't take 2000 steps"),
        ((*THREE, "--generate", "2", "--keep", "x" * 90), "a prompt must have at most 77 tokens"),
        (
            (*THREE, "--concept", "red", "--concept", "two", "--generate", "2", *DRAW[2:]),
            "3 concepts, found 2",
        ),
        (
            (*THREE, "--generate", "2", "--keep", "a two", "--keep", "a four", "--keep", "a five"),
            "at least one image of each of 3 prompts to keep, found 2",
        ),
        ((*THREE, *DRAW, "--scope", "class embedding"), "class embedding"),
        (("--generate", "2"), "name what to forget with --concept"),
    ],
)
def test_images_that_can_not_be_drawn_are_refused(flags, sentence: str, refused, given: Path):
    refused(sentence, "forget", given / "sd", *flags, *FAST)


def test_a_prompt_to_keep_of_a_concept_that_was_forgotten_is_refused(run, refused, given: Path, here: Path):
    command = ("forget", given / "sd", *THREE, *DRAW, *FAST, "--out", given / "gone")
    assert run(*command).code == 0
    flags = ("--concept", "red", "--generate", "2", "--keep", "a three")
    refused("'a three' was forgotten before", "forget", given / "gone" / "pretrained", *flags, *FAST)


def test_a_model_that_draws_no_numbers_fails(run, given: Path, here: Path):
    weights = given / "sd" / "vae" / "diffusion_pytorch_model.safetensors"
    state = load_file(weights)
    name = "decoder.conv_out.weight"
    save_file(state | {name: torch.full_like(state[name], 3e38)}, weights, {"format": "pt"})
    result = run("forget", given / "sd", *THREE, *DRAW, *FAST, "--out", here / "out")
    assert result.code == 3 and "a decoded image is not finite" in result.error
    assert list(here.iterdir()) == []


def test_a_model_whose_latents_are_no_numbers_fails_before_it_draws(run, given: Path, here: Path):
    weights = given / "sd" / "vae" / "diffusion_pytorch_model.safetensors"
    state = load_file(weights)
    name = "encoder.conv_out.weight"
    save_file(state | {name: torch.full_like(state[name], 3e38)}, weights, {"format": "pt"})
    for images in (DRAW, ("--data", given / "images")):
        result = run("forget", given / "sd", *THREE, *images, *FAST, "--out", here / "out")
        assert result.code == 3 and "a latent is not finite: the weights of the autoencoder" in result.error
        assert list(here.iterdir()) == []


def test_a_model_in_one_file_is_forgotten_from_as_its_folder_is(run, given: Path, here: Path):
    file = write_single_file(given / "sd", given / "mine.safetensors")
    for part in ("unet", "vae", "text_encoder"):
        next((given / "sd" / part).glob("*.safetensors")).rename(given / f"{part}.safetensors")
    command = ("forget", file, "--config", given / "sd", *THREE, "--data", given / "images", *FAST)
    given_contents = contents(given)
    dry_run = run(*command, "--dry-run")
    assert dry_run.code == 0 and "Nothing was written" in dry_run.out and list(here.iterdir()) == []
    result = run(*command, "--out", here / "out")
    assert result.code == 0, result.error
    assert contents(given) == given_contents
    assert sorted(each.name for each in here.iterdir()) == ["out"]
    original = here / "out" / "converted" / "mine"
    folder = run("forget", original, *THREE, "--data", given / "images", *FAST, "--out", here / "folder")
    assert folder.code == 0
    weights, folder_weights = (contents(here / name / "pretrained" / "unet") for name in ("out", "folder"))
    assert weights == folder_weights
    record = json.loads((here / "out" / "record.json").read_text())
    assert record["stages"]["audit"]["request"]["model"] == "mine"
    second = run(*command, "--out", here / "out")
    assert second.code == 0 and "Done already" in second.out and not (here / "out-2").exists()
    audit = ("audit", here / "out", "--prompts", here / "none.toml", "--data", given / "images")
    assert "expected a file of prompts, found none" in run(*audit).error


def test_a_file_that_can_not_be_read_is_refused(refused, given: Path):
    file = write_single_file(given / "sd", given / "mine.safetensors")
    flags = (*THREE, "--data", given / "images", *FAST)
    refused("holds weights alone: name a local folder .* with --config", "forget", file, *flags)
    refused("--config goes with a model in one", "forget", given / "sd", "--config", given / "sd", *flags)
    refused("expected a folder, found none", "forget", file, "--config", "runwayml/sd", *flags)
    flags_inside = ("--config", given / "sd", *flags, "--out", given / "sd" / "out")
    refused("--out must lie outside of the configuration's folder", "forget", file, *flags_inside)
    command = ("forget", given / "mine.ckpt", "--config", given / "sd", *flags)
    refused("expected a file of weights, found none", *command)
    file.rename(given / "mine.ckpt")
    refused("may be a pickle", *command)
    refused("--concept", "forget", given / "mine.safetensors", "--config", given / "sd")
