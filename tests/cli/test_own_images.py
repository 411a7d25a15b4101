"""What is said of a request about images of one's own: what is set aside, and what classes are called."""

import json
from pathlib import Path

import numpy as np
import pytest

import folders

pytest.importorskip("diffusers")

PLAN = ("--method", "finetune", "--set", "how.steps=1", "--quiet", "--dry-run")
CLASSES = ("ant", "bee", "cat", "dog")
ASIDE = (
    "480 images; a fifth of each class is set aside as held out, since no test part is named: 96 of 120 "
    "images of class 3{} are the request, and positions count without what is set aside. If the model was "
    "trained on all of them, name a test part of your own"
)


@pytest.fixture
def source(tmp_path) -> str:
    return folders.diffusers_folder(tmp_path / "source")


def test_what_is_set_aside_is_said_by_every_verb(run, here, tmp_path, source):
    request = (source, "--data", folders.images(tmp_path / "images.npz"), "--class", 3)
    for verb in (("check", *request, "--methods", "finetune", "--quiet"), ("forget", *request, *PLAN)):
        assert ASIDE.format("") in run(*verb).out
        assert ASIDE.format("") in json.loads(run(*verb, "--json").out)["request"][0]
    command = ("forget", *request, *PLAN[:-1])
    assert ASIDE.format("") in run(*command).out
    assert ASIDE.format("") in json.loads(run(*command, "--json").out)["request"][0]


def test_who_names_a_test_part_hears_of_no_other(run, here, tmp_path, source):
    place = Path(folders.images(tmp_path / "images.npz"))
    with np.load(place) as file:
        arrays = dict(file)
    np.savez(place, **arrays, test_images=arrays["images"], test_labels=arrays["labels"])
    result = run("forget", source, "--data", place, "--class", 3, *PLAN)
    assert result.code == 0 and result.out.startswith("Would forget 120 of 480"), result.error
    assert "set aside" not in result.out


def test_a_class_goes_by_its_label_or_its_name(run, here, refused, tmp_path, source):
    data = folders.named_images(tmp_path / "data", CLASSES)
    by_name, by_label = (run("forget", source, "--data", data, "--class", each, *PLAN) for each in ("dog", 3))
    assert by_name.code == 0 and ASIDE.format(" (dog)") in by_name.out, by_name.error
    assert by_name.out.partition("\n")[2] == by_label.out.partition("\n")[2]
    classes = r"0\.\.3 \(0 is ant, 1 is bee, 2 is cat, 3 is dog\), found"
    for name in ("cow", "7"):
        refused(f"{classes} {name}", "forget", source, "--data", data, "--class", name)


@pytest.mark.parametrize("label", ["3.0", "1_0", "0x1", "-1", "three", "9" * 30, "３"])
def test_a_label_is_written_in_plain_digits(refused, project, label):
    refused(
        rf"--class must be a label of the training data, 0\.\.2, found {label}",
        "forget",
        project,
        f"--class={label}",
    )
