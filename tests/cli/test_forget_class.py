"""`unweave forget` on denoisers: a folder of diffusers, a project of one's own, a recipe."""

import json
import shutil
from pathlib import Path

import pytest

import folders
from cli.written import MODEL, names

pytest.importorskip("diffusers")

from unweave.tasks.diffusion import folder  # after diffusers is known to be there

SHORT = ("--set", "how.steps=1", "--quiet")
NEVER_DROPPED = """
GENERATION["drop"], GENERATION["sampler"]["guidance"] = 0.0, 1


def load():
    return given(model=Net(rows=CLASSES))
"""


@pytest.fixture
def source(tmp_path) -> str:
    return folders.diffusers_folder(tmp_path / "source")


@pytest.fixture
def data(tmp_path) -> str:
    return folders.images(tmp_path / "images.npz")


def test_a_folder_of_diffusers_is_written_as_a_copy_that_can_be_used_again(run, here, listed, source, data):
    files = listed(Path(source))
    result = run("forget", source, "--data", data, "--class", 3, *SHORT, "--json")
    assert result.code == 0, result.error
    content = json.loads(result.out)
    assert content["before"].keys() == content["after"].keys() == {"ua", "ra", "kid"}
    assert listed(Path(source)) == files
    assert names(here / "forgotten") == sorted([*MODEL, "models", "pretrained"])
    copy = here / "forgotten" / "pretrained"
    assert set(names(copy)) - {path.name for path in Path(source).iterdir()} == {folder.MANIFEST}
    manifest = json.loads((copy / folder.MANIFEST).read_text())
    assert (
        manifest["method"] == "lur-lagged" and manifest["seed"] == 0 and manifest["forgotten_classes"] == [3]
    )
    assert manifest["split"] == json.loads(Path("forgotten/split.json").read_text())["digest"]
    second = run("forget", copy, "--data", data, "--class", 2, *SHORT)
    assert second.code == 2 and "class 3 was forgotten before, and its examples" in second.error
    second = run("forget", copy, "--data", data, "--class", "2, 3", *SHORT)
    assert second.code == 0 and names(here) == ["forgotten", "forgotten-2"], second.error
    assert "UA: images not taken for the forgotten class, %" in second.out
    assert "If none of 40 images shows the class, up to 9 % of all may still." in second.out
    assert "Model: forgotten-2/pretrained\n" in second.out
    manifest = json.loads((here / "forgotten-2" / "pretrained" / folder.MANIFEST).read_text())
    assert manifest["forgotten_classes"] == [2, 3]
    assert [step["forgotten_classes"] for step in manifest["history"]] == [[3]]


def test_a_run_that_was_cut_off_before_its_record_is_done_again(run, here, source, data):
    request = ("forget", source, "--data", data, "--class", 3, *SHORT)
    assert run(*request).code == 0
    weights = Path("forgotten/pretrained/unet/" + folder.WEIGHTS).read_bytes()
    Path("forgotten/record.json").unlink()
    result = run(*request)
    assert result.code == 0 and names(here) == ["forgotten"], result.error
    assert Path("forgotten/pretrained/unet/" + folder.WEIGHTS).read_bytes() == weights
    assert names(here / "forgotten") == sorted([*MODEL, "models", "pretrained"])
    for name in ("record.json", "model.json", "model.safetensors"):
        Path("forgotten", name).unlink()
    result = run(*request, "--dry-run")
    assert result.code == 2 and "holds a pretrained that unweave did not write" in result.error, (
        "before compute"
    )


def test_what_is_published_is_what_is_audited(run, here, source, data):
    assert run("forget", source, "--data", data, "--class", 3, *SHORT).code == 0
    weights = Path("forgotten/pretrained/unet") / folder.WEIGHTS
    weights.write_bytes((Path(source) / "unet" / folder.WEIGHTS).read_bytes())
    result = run("audit", "forgotten", "--references", 0, "--quiet")
    assert result.code == 2 and f"{weights} does not hold the model of this run" in result.error


def test_a_project_of_ones_own_trains_on_its_own_items(run, here, tmp_path):
    place = folders.project(tmp_path / "mine")
    assert run("forget", place, "--class", 1, *SHORT).code == 0
    assert names(here / "forgotten") == sorted([*MODEL, "models"])
    result = run("forget", place, "--class", 1, "--method", "retrain", "--quiet", "--seed", 5)
    assert result.code == 0 and "with retrain" in result.out


def test_a_recipe_of_ones_own_images_trains_the_original_first(run, here, tmp_path):
    result = run("forget", folders.recipe(tmp_path), *SHORT)
    assert result.code == 0 and "Forgot 96 of 384 examples" in result.out, result.error
    place = here / "forgotten" / "pretrained"
    second = run("forget", place, "--data", tmp_path / "images.npz", "--class", 3, *SHORT, "--dry-run")
    assert second.code == 0, second.error


def test_a_recipe_says_how_the_model_of_a_folder_is_trained_anew(run, here, tmp_path, source):
    recipe = folders.recipe(tmp_path)
    result = run("forget", source, "--recipe", recipe, "--method", "retrain", "--dry-run")
    assert result.code == 0 and "steps=3" in result.out, result.error
    assert run("forget", source, "--recipe", recipe, *SHORT).code == 0


def test_a_model_that_never_learned_a_null_condition_is_relabelled_by_default(run, here, tmp_path):
    recipe = Path(folders.recipe(tmp_path))
    recipe.write_text(recipe.read_text().replace("steps = 2 }", "steps = 2, guidance = 1 }"))
    source = folders.diffusers_folder(tmp_path / "source", num_class_embeds=folders.CLASSES)
    project = folders.project(tmp_path / "own", NEVER_DROPPED)
    for request in ((source, "--recipe", recipe), (project, "--class", 3)):
        result = run("forget", *request, *SHORT, "--out", here / "without")
        assert result.code == 0, result.error
        (stage,) = json.loads((here / "without" / "record.json").read_text())["stages"].values()
        (row,) = stage["methods"].values()
        assert "mode='lagged'" in row["repr"] and "Mislabel()" in row["repr"]
        shutil.rmtree(here / "without")


def test_the_headline_of_a_recipe_runs_if_no_method_is_named(run, here, tmp_path):
    recipe = Path(folders.recipe(tmp_path))
    result = run("forget", recipe, *SHORT, "--dry-run")
    assert result.code == 0 and "lur-lagged" in result.out, result.error
    recipe.write_text('headline = "salun"\n' + recipe.read_text())
    result = run("forget", recipe, *SHORT, "--dry-run")
    assert result.code == 0 and "salun" in result.out and "lur" not in result.out, result.error


def test_a_look_at_a_folder_asks_for_a_recipe_and_for_no_code(run, here, source, data):
    result = run("check", source, "--data", data, "--class", 3, "--methods", "finetune")
    assert result.code == 0 and "Of a retrain" not in result.out, result.error
    assert "What a retrain costs is unknown: no --recipe that says how to train." in result.out
    assert "train(dataset, seed)" not in result.out and "a retrain" not in result.error


class TestBadInput:
    def test_nothing_is_written_into_the_source_folder(self, refused, source, data, monkeypatch):
        request = ("forget", source, "--data", data, "--class", 3)
        refused("--out must lie outside of the model's folder", *request, "--out", f"{source}/new")
        refused("--out must lie outside of the model's folder", *request, "--out", source)
        component = ("forget", f"{source}/unet", "--data", data, "--class", 3, "--out", f"{source}/new")
        refused(f"--out must lie outside of the model's folder .*source, found {source}/new", *component)
        monkeypatch.chdir(source)
        refused("--out must lie outside of the model's folder", *request)

    def test_nothing_is_written_among_the_images(self, refused, source, tmp_path):
        data = folders.named_images(tmp_path / "data", ("ant", "bee", "cat", "dog"))
        request = (source, "--data", data, "--class", 3, "--out", f"{data}/new")
        refused(f"--out must lie outside of the images' folder {data}", "forget", *request)
        refused(f"--out must lie outside of the images' folder {data}", "check", *request)

    def test_what_is_missing_is_named(self, refused, source, data, tmp_path):
        refused("does not hold the images .* name them with --data", "forget", source, "--class", 3)
        refused(r"a label of the training data, 0\.\.3", "forget", source, "--data", data, "--class", 7)
        refused("say what to forget", "forget", source, "--data", data)
        (Path(source) / "unet" / "config.json").unlink()
        refused("has no config.json: expected a pipeline", "forget", source, "--data", data, "--class", 3)
        refused("no such folder at", "forget", "digits-class", "--data", data)
        (Path(source) / "model_index.json").unlink()
        refused("found no model_index.json or config.json in", "forget", source, "--data", data, "--class", 3)

    def test_an_unsupported_class_is_named(self, refused, source, data):
        path = Path(source) / "model_index.json"
        path.write_text(path.read_text().replace("UNet2DModel", "UNet3DConditionModel"))
        refused("found UNet3DConditionModel", "forget", source, "--data", data, "--class", 3)

    def test_weights_that_are_cut_off_or_in_pieces(self, refused, source, data):
        weights = Path(source) / "unet" / folder.WEIGHTS
        content = weights.read_bytes()
        weights.write_bytes(content[:-100])
        refused("truncated or no safetensors file", "forget", source, "--data", data, "--class", 3)
        weights.unlink()
        (weights.parent / f"{folder.WEIGHTS}.index.json").write_text("{}")
        refused("are sharded", "forget", source, "--data", data, "--class", 3)

    def test_images_that_do_not_fit(self, refused, source, tmp_path):
        request = ("forget", source, "--class", 3, "--data")
        large_images = folders.images(tmp_path / "large.npz", size=8)
        refused(r"shape \[1, 4, 4\] .*found \[1, 8, 8\]", *request, large_images)
        refused("a KID needs 20 held-out images", *request, folders.images(tmp_path / "few.npz", n=60))
        images = folders.images(tmp_path / "whole.npz")
        refused("can only forget whole classes", "forget", source, "--data", images, "--random", 0.1)

    def test_guidance_without_a_condition_for_none(self, refused, tmp_path):
        source = folders.diffusers_folder(tmp_path / "plain", num_class_embeds=4)
        recipe = Path(folders.recipe(tmp_path))
        recipe.write_text(recipe.read_text().replace("steps = 2", "steps = 2, guidance = 1.5"))
        refused("guidance needs a condition that stands for none", "forget", source, "--recipe", str(recipe))

    @pytest.mark.parametrize(
        ("change", "sentence"),
        [
            ("given(train=Pictures('train', 255))", r"images as bytes \(uint8\), found torch.float32"),
            ("given(generation={'image': 20})", "unknown key 'image' in generation .did you mean 'images'"),
            ("given(generation={'images': 3})", "a KID needs 20 images of each class"),
            ("given(generation={'null': None, 'sampler': {'guidance': 2.0}})", "guidance needs a condition"),
            ("given(model=nn.Linear(2, 2))", "the model can't denoise 'train'"),
        ],
    )
    def test_a_project_of_ones_own_that_can_not_be_right(self, refused, tmp_path, change, sentence):
        place = folders.project(tmp_path / "mine", f"def load():\n    return {change}\n")
        refused(sentence, "forget", place, "--class", 1)
