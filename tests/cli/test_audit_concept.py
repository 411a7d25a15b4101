"""`unweave audit FOLDER --prompts`, over tiny pipelines of fresh weights."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from folders import contents  # noqa: E402
from stable_diffusion import write_clip, write_images, write_pipeline  # noqa: E402  # after diffusers is known to be there
from unweave.audits.diffusion.concept_attack_metrics import CONCEPT_ATTACKS  # noqa: E402
from unweave.audits.diffusion.concept_prompts import ConceptPrompts, Prompt  # noqa: E402
from unweave.audits.diffusion.nude_net import CLASSES, CORE  # noqa: E402
from unweave.cli.audits import concept_checks  # noqa: E402
from unweave.cli.audits.concept import NO_PROMPTS, Folders, explain_not_run  # noqa: E402
from unweave.families.text_to_image import TextToImageFamily  # noqa: E402
from unweave.tasks.diffusion.manifest import Manifest, Step  # noqa: E402

PROMPTS = """
concept = { number = "three" }
trained = ["a three", "a red three"]
paraphrased = ["two plus one"]
neighbours = ["a red two", "a red four"]
others = ["a blue two"]
"""
SHORT = ("--set", "images=20", "--set", "sampler.steps=1", "--quiet")


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("models")
    for name, seed in (("sd", 0), ("edited", 1), ("retrained/2", 2), ("retrained/10", 3)):
        write_pipeline(place / name, seed=seed)
    write_images(place / "images", each=51)
    write_images(place / "few", each=6)
    (place / "prompts.toml").write_text(PROMPTS)
    return place


def flags(given: Path, **changes: object) -> list[object]:
    defaults = {"original": given / "sd", "prompts": given / "prompts.toml", "data": given / "images"}
    values = {key: value for key, value in {**defaults, **changes}.items() if value is not None}
    return [part for key, value in values.items() for part in (f"--{key}", value)]


def test_a_folder_is_compared_with_retrained_ones_and_nothing_else_is_written(run, given: Path, here: Path):
    given_contents = contents(given)
    command = ("audit", given / "edited", *flags(given, reference=given / "retrained"), *SHORT)
    result = run(*command, "--out", here / "out")
    assert result.code == 1, result.error
    assert result.out.startswith("INCONCLUSIVE: ")
    assert (
        "Not run: attacks (give --attacks default), a classifier of your own (give --classifier),"
        in result.out
    )
    assert contents(given) == given_contents
    content = json.loads((here / "out" / "record.json").read_text())
    (stage,) = content["stages"].values()
    scores = stage["methods"]["model"]["scores"]
    assert scores.keys() >= {"ua_trained", "ua_paraphrased", "ra_neighbours", "ra_others", "agreement", "kid"}
    assert "ua_combined" not in scores and "fid" not in scores
    assert scores["kid_retain"]["n"] == 2 and stage["methods"].keys() == {"original", "model"}
    assert stage["request"]["classes"] == {"number = three": stage["request"]["examples"]}
    assert stage["data"]["prompts"]["paraphrased"] == ["two plus one"]
    assert len(stage["data"]["recogniser"]["digest"]) == 64
    assert stage["sheets"].keys() == {"model", "original", "retrained"}
    assert stage["data"]["not run"] == [
        "attacks (give --attacks default)",
        "a classifier of your own (give --classifier)",
        "detections of nudity (give --nudenet)",
        "the CLIP score (give --clip)",
        "the FID (give --inception)",
    ]
    page = (here / "out" / "report.html").read_text()
    assert "UA, paraphrased" in page and ">FID<" not in page
    assert "a three; a red three; two plus one; a red two" in page
    references = contents(here / "out" / "references")
    second = run(*command, "--out", here / "out", "--json")
    assert second.code == 1 and json.loads(second.out)["verdict"] == "INCONCLUSIVE"
    assert contents(here / "out" / "references") == references and not (here / "out-2").exists()


@pytest.mark.parametrize("lora", [True, False])
def test_an_attack_that_a_model_does_not_allow_is_named(tmp_path: Path, lora: bool):
    if lora:
        (tmp_path / "lora").mkdir()
    folders = Folders(tmp_path / "pretrained", tmp_path / "sd", (), tmp_path)
    sentences = explain_not_run(TextToImageFamily(attacks=2), folders, NO_PROMPTS)
    assert ("the attack without adapter (there is no LoRA file to leave out)" in sentences) == (not lora)
    without_run = explain_not_run(TextToImageFamily(), replace(folders, run=None), NO_PROMPTS)
    assert without_run[0] == "attacks (give --attacks default)" and "retrained" in without_run[1]
    lines = explain_not_run(TextToImageFamily().with_attacks("guidance"), folders, NO_PROMPTS)
    assert "best-prompt" in lines[0] and "name them in --attacks" in lines[0] and "guidance" not in lines[0]


def test_attacks_are_chosen_by_names_of_their_family(refused, given: Path):
    command = ("audit", given / "edited", *flags(given))
    refused("unknown attack on a model of the family text-to-image 'rmia'", *command, "--attacks", "rmia")
    refused("a tier and a budget are of attacks on classifiers", *command, "--attacks", "all", "--tier", "1")


def test_a_run_of_forget_knows_its_original_and_its_method(run, given: Path, here: Path):
    edit = (
        "--concept",
        "a three",
        "--as",
        "a four",
        "--data",
        given / "images",
        "--method",
        "uce",
        "--quiet",
    )
    assert run("forget", given / "sd", *edit, "--out", here / "gone").code == 0
    result = run("audit", here / "gone", *flags(given, original=None), *SHORT)
    assert result.code == 1, result.error
    assert "no retrained model to compare with" in result.out and "no attacks ran" in result.out
    assert "retrained models (give --reference)" in result.out and "Unlearning took" in result.out
    content = json.loads((here / "gone" / "audit" / "record.json").read_text())
    (stage,) = content["stages"].values()
    assert stage["methods"].keys() == {"original", "UCE"} and "Before" in result.out
    assert stage["methods"]["UCE"]["repr"].startswith("UCE(") and stage["request"]["model"] == "sd"
    assert stage["request"]["asked"] == "--concept 'a three'" and "are these prompts" not in result.out
    two = PROMPTS.replace("three", "THREE").replace("two", "three").replace("THREE", "two")
    (given / "two.toml").write_text(two)
    result = run("audit", here / "gone", *flags(given, original=None, prompts=given / "two.toml"), *SHORT)
    assert "forgot 'a three', and no trained prompt has such words: are these" in " ".join(result.out.split())
    shutil.copytree(given / "retrained" / "2" / "unet", given / "sd" / "unet", dirs_exist_ok=True)
    result = run("audit", here / "gone", *flags(given, original=None), *SHORT)
    assert (
        result.code == 2
        and "unet must hold the weights that" in result.error
        and "--original" in result.error
    )


class Session:
    """Finds an explicit part in every image."""

    def get_inputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name="images")]

    def run(self, output_names: None, input_feed: dict[str, Any]) -> list[np.ndarray]:
        output = np.zeros((1, 22, 1), np.float32)
        output[0, :, 0] = [160, 160, 40, 40, *(name == CORE[0] for name in CLASSES)]
        return [output]


def write_classifier(given: Path) -> dict[str, object]:
    """Writes fresh weights of torchvision's smallest model, and returns the flags that name them."""
    models = pytest.importorskip("torchvision.models")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = models.mobilenet_v3_small(weights=None, num_classes=3).state_dict()
    torch.save(state, given / "classifier.pth")
    (given / "names.txt").write_text("two\nthree\nfour\n")
    flags_of_files = {"classifier": given / "classifier.pth", "class-names": given / "names.txt"}
    return {**flags_of_files, "architecture": "mobilenet_v3_small"}


def test_a_detector_a_classifier_and_a_clip_of_the_user_judge_the_images(
    run, given: Path, here: Path, monkeypatch
):
    runtime = SimpleNamespace(InferenceSession=lambda *_, **__: Session())
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    (given / "320n.onnx").write_bytes(b"a network")
    models = {"nudenet": given / "320n.onnx", "clip": write_clip(given / "clip"), **write_classifier(given)}
    result = run("audit", given / "edited", *flags(given, **models), *SHORT, "--out", here / "out")
    assert result.code == 1 and "give --inception" in result.out, result.error
    assert not any(f"give --{name}" in result.out for name in models)
    (stage,) = json.loads((here / "out" / "record.json").read_text())["stages"].values()
    for name in ("original", "model"):
        scores = stage["methods"][name]["scores"]
        assert scores["explicit"]["value"] == scores["explicit_retain"]["value"] == 100
        assert 0 <= scores["clip"]["value"] <= 100 and "clip_forget" in scores and "fid" not in scores
    assert stage["data"]["NudeNet"]["version"].startswith("unknown")
    assert len(stage["data"]["CLIP"]["sha256"]) == 64
    assert stage["data"]["classifier"]["architecture"] == "mobilenet_v3_small"
    assert stage["data"]["classifier"]["sha256"] == contents(given)["classifier.pth"]
    assert stage["data"]["recogniser"]["wrong about held-out images, %"].keys() == {"number"}
    assert not (here / "out" / "models").exists()  # nothing is trained
    page = (here / "out" / "report.html").read_text()
    assert "explicit on F" in page and "CLIP score on R" in page


def test_a_classifier_that_does_not_know_the_classes_is_refused(run, given: Path, here: Path):
    classifier_flags = write_classifier(given)
    (given / "names.txt").write_text("two\ntrhee\nfour\n")
    error = fails(run, given, here, given / "edited", *flags(given, **classifier_flags))
    assert "unknown number 'three' (did you mean 'trhee'?); known: two, trhee, four" in error
    (given / "names.txt").write_text("two\nthree\nfive\n")
    (given / "prompts.toml").write_text(PROMPTS.replace("a red four", "a dim two"))
    error = fails(run, given, here, given / "edited", *flags(given, **classifier_flags))
    assert "number of 004.png must be one of two, three, five, found 'four'" in error
    error = fails(
        run, given, here, given / "edited", *flags(given, **{**classifier_flags, "classifier": None})
    )
    assert "--architecture and --class-names go with --classifier, found none" in error


def test_training_images_of_classes_that_a_classifier_does_not_know_are_refused(run, given, here: Path):
    data = given / "parts"
    for part in ("train", "test"):
        shutil.copytree(given / "images", data / part)
    rows = data / "train" / "metadata.jsonl"
    rows.write_text(rows.read_text().replace('"number": "three"', '"number": "Three"'))
    error = fails(run, given, here, given / "edited", *flags(given, data=data, **write_classifier(given)))
    assert "number of 002.png must be one of two, three, four, found 'Three'" in error


@pytest.mark.parametrize(
    ("flag", "value", "expected"),
    [
        ("clip", "sd", "expected the folder of a CLIPModel in"),
        (
            "inception",
            "none.pth",
            "an FID needs the file weights-inception-2015-12-05-6726825d.pth, found none",
        ),
        ("classifier", "none.pth", "expected a classifier in"),
        ("nudenet", "none.onnx", "expected NudeNet's network in"),
    ],
)
def test_a_missing_model_that_judges_images_is_named(run, given: Path, here: Path, flag, value, expected):
    assert expected in fails(run, given, here, given / "edited", *flags(given, **{flag: given / value}))


def test_prompts_that_would_share_images_are_refused(run, given: Path, here: Path):
    (given / "i2p.csv").write_text("prompt,sd_seed\ntwice,7\ntwice,8\n")
    (given / "twice.toml").write_text(PROMPTS.replace('["two plus one"]', '"i2p.csv"'))
    error = fails(run, given, here, given / "edited", *flags(given, prompts=given / "twice.toml"))
    assert "'twice' has the seeds 7 and 8, and 20 images from each seed on would share some" in error


@pytest.mark.slow
def test_attacks_run_on_a_model_with_a_lora_file(run, given: Path, here: Path):
    edit = ("--concept", "a three", "--scope", "lora", "--rank", "2", "--method", "lur", "--quiet")
    steps = ("--set", "how.steps=2", "--set", "how.batch=4", "--data", given / "images")
    assert run("forget", given / "sd", *edit, *steps, "--out", here / "gone").code == 0
    result = run("audit", here / "gone", *flags(given, original=None), *SHORT, "--set", "attacks=2")
    assert result.code == 1, result.error
    assert "give --set attacks" not in result.out and "no attacks ran" not in result.out
    content = json.loads((here / "gone" / "audit" / "record.json").read_text())
    (stage,) = content["stages"].values()
    scores = stage["methods"]["LUR"]["scores"]
    assert scores.keys() >= CONCEPT_ATTACKS.keys() and scores["dropped_same"]["value"] == 100


def fails(run, given: Path, here: Path, *arguments: object) -> str:
    given_contents = contents(given)
    result = run("audit", *arguments, *SHORT, "--out", here / "out")
    assert result.code == 2 and not (here / "out").exists() and contents(given) == given_contents
    return result.error


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"data": None}, "--prompts needs --data"),
        ({"prompts": None}, "holds a text-to-image model: name the file of prompts with --prompts"),
        ({"original": None}, "needs the model before unlearning"),
        (
            {"original": "images"},
            "--original must be a folder with a StableDiffusionPipeline, found no",
        ),
        ({"original": "edited"}, "name the pipeline before unlearning with --original"),
        ({"prompts": "none.toml"}, "expected a file of prompts, found none"),
        ({"reference": "images"}, "--reference must hold a folder per retrained model"),
        ({"reference": "sd"}, "holds the weights of the original,"),
        (
            {"data": "few"},
            "held-out images of what prompts to keep name, found 2 of number = two",
        ),
        ({"data": "sd"}, "metadata.jsonl"),
    ],
)
def test_what_cannot_be_audited_is_refused_before_anything_is_drawn(
    run, given: Path, here: Path, changes, expected
):
    paths = {key: value if value is None else given / value for key, value in changes.items()}
    assert expected in fails(run, given, here, given / "edited", *flags(given, **paths))


def test_prompts_that_a_model_does_not_take_are_refused(run, given: Path, here: Path):
    (given / "long.toml").write_text(PROMPTS.replace("two plus one", "x" * 80))
    error = fails(run, given, here, given / "edited", *flags(given, prompts=given / "long.toml"))
    assert "a prompt must have at most 77 tokens, found 82" in error
    full = PROMPTS.replace('"a three",', f'"{"x" * 69} a three",')
    (given / "full.toml").write_text(full)
    attacked = (*flags(given, prompts=given / "full.toml"), "--set", "attacks=2")
    error = fails(run, given, here, given / "edited", *attacked)
    assert "which has as many as the model takes: put a shorter prompt first" in error
    command = ("audit", given / "edited", *attacked, "--attacks", "guidance", "--out", here / "guided")
    assert run(*command).code == 1, "no other attack puts tokens before the prompt"
    (given / "both.toml").write_text(PROMPTS.replace("a blue two", "a red three"))
    error = fails(run, given, here, given / "edited", *flags(given, prompts=given / "both.toml"))
    assert "'a red three' is both to be forgotten (trained) and kept (others)" in error


def test_images_of_another_size_and_folders_inside_are_refused(run, given: Path, here: Path):
    write_images(given / "large", each=51, size=32)
    error = fails(run, given, here, given / "edited", *flags(given, data=given / "large"))
    assert "the model draws images of shape [3, 16, 16]" in error
    result = run("audit", given / "edited", *flags(given), *SHORT, "--out", given / "sd" / "audit")
    assert result.code == 2 and "--out must lie outside of the model's folder" in result.error


def test_settings_that_are_unknown_or_too_small_are_refused(run, given: Path, here: Path):
    for setting, expected in (
        ("image=30", "unknown key 'image'"),
        ("images=5", "images must be at least 20"),
    ):
        result = run("audit", given / "edited", *flags(given), "--set", setting, "--out", here / "out")
        assert result.code == 2 and expected in result.error


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (float("nan"), "weights must be finite, found NaN or infinity in 'conv_in.weight'"),
        (1e30, "edited can't be audited: a drawn image is not finite"),
    ],
)
def test_weights_and_images_that_are_not_numbers_are_named(run, given: Path, here: Path, value, expected):
    from safetensors.torch import load_file, save_file

    path = given / "edited" / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    weights["conv_in.weight"][:] = value
    save_file(weights, path, {"format": "pt"})
    result = run("audit", given / "edited", *flags(given), *SHORT, "--out", here / "out")
    assert result.code in (2, 3) and expected in result.error


def stage_with(ua: float, weak_prompts: tuple[str, ...] = ()) -> dict[str, Any]:
    rows = {"original": 2.0, "uce": ua}
    scores = {name: {"scores": {"ua_trained": {"value": value}}} for name, value in rows.items()}
    return {"methods": scores, "data": {concept_checks.WEAK: list(weak_prompts)} if weak_prompts else {}}


def test_a_concept_that_is_still_drawn_is_named():
    (sentence,) = concept_checks.explain_still_drawn(stage_with(15.0))
    assert "in 85 % of the images under the trained prompts, the original in 98 %" in sentence
    assert concept_checks.explain_still_drawn(stage_with(50.0)) == []


def test_prompts_that_the_original_does_not_follow_are_named():
    (sentence,) = concept_checks.explain_weak_prompts(stage_with(0.0, ("a threee",)))
    assert "fewer than half of its images under 'a threee'" in sentence
    assert concept_checks.explain_weak_prompts(stage_with(0.0)) == []


def test_the_words_of_a_concept_that_an_earlier_edit_forgot_are_known(monkeypatch: pytest.MonkeyPatch):
    kept = Prompt("a two", {"object": "two"})
    prompts = ConceptPrompts({"object": "three"}, (Prompt("a red three"),), neighbours=(kept,))
    for concepts, sentences in ((("a three",), 0), (("a seven",), 1)):
        manifest = Manifest(forgotten_concepts=("a hat",), history=(Step(forgotten_concepts=concepts),))
        monkeypatch.setattr(concept_checks, "manifest_of", lambda place, manifest=manifest: manifest)
        assert len(concept_checks.explain_other_concept(Path("model"), prompts)) == sentences
