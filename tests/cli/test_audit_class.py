"""`unweave audit` and `unweave check` on denoisers."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

import folders
from cli.written import names, row_of, stage_of

pytest.importorskip("diffusers")

SHORT = ("--method", "finetune", "--set", "how.steps=1", "--quiet")


def test_a_denoiser_is_audited_by_its_images(run, here, tmp_path):
    source, recipe = folders.diffusers_folder(tmp_path / "source"), folders.recipe(tmp_path)
    assert run("forget", source, "--recipe", recipe, *SHORT).code == 0
    for attacks, sentence in (
        ("rmia", "unknown attack on a model of the family diffusion 'rmia'"),
        ("guidance", "of class 3: leave attacks out, or give more"),
    ):
        result = run("audit", "forgotten", "--attacks", attacks)
        assert result.code == 2 and sentence in result.error, result
    result = run("audit", "forgotten", "--references", 2, "--quiet")
    assert result.code == 1, result.error
    assert re.match(
        "INCONCLUSIVE: nothing to forget: the original generates class 3 no more often ", result.out
    )
    folder = here / "forgotten" / "audit"
    assert set(names(folder)) >= {"evidence.npz", "record.json", "report.html"}
    with np.load(folder / "evidence.npz") as arrays:
        assert {name: arrays[name].shape for name in arrays.files} == {
            str(i): (20, 1, 4, 4) for i in range(4)
        }
    stage, row = stage_of(folder), row_of(folder)
    assert stage["sheets"].keys() == {"FineTune", "original", "retrained"}
    assert (folder / "report.html").read_text().count('<img class="sheet"') == 3
    assert stage["data"]["forgotten_classes"] == [3] and {"ua", "ra", "kid_forget"} <= row["scores"].keys()
    assert row["gap"]["parts"].keys() == {"ua", "ra", "class_tv"}
    times = {path: path.stat().st_mtime_ns for path in (folder / "references").iterdir()}
    assert run("audit", "forgotten", "--references", 2, "--quiet").code == 1
    assert {path: path.stat().st_mtime_ns for path in (folder / "references").iterdir()} == times
    assert names(here / "forgotten").count("audit") == 1


def test_without_a_training_there_is_no_verdict(run, here, tmp_path):
    place = folders.project(tmp_path / "mine", "train = None")
    assert run("forget", place, "--class", 0, *SHORT).code == 0
    result = run("audit", "forgotten", "--json", "--quiet")
    assert result.code == 1 and json.loads(result.out)["verdict"] == "INCONCLUSIVE", result.error
    reason = json.loads(Path("forgotten/audit/record.json").read_text())["stages"]["audit"]["methods"]
    assert "INCONCLUSIVE" in str(reason)


def test_a_check_names_figures_notes_and_costs_and_writes_nothing(run, here, listed, tmp_path):
    source = folders.diffusers_folder(tmp_path / "source")
    data, files = folders.images(tmp_path / "images.npz"), listed(tmp_path)
    result = run("check", source, "--data", data, "--methods", "finetune", "--quiet")
    assert result.code == 0, result.error
    assert "Data: 96 to forget, 288 to retain" in result.out, "the first class is assumed"
    assert re.search(r"UA: images not taken for the forgotten class, %: \d", result.out)
    assert "If none of 20 images shows the class, up to 16 % of all may still." in result.out
    assert "no --recipe that says how to train: references can't be retrained" in result.out
    assert re.search(r"finetune .* yes", result.out) and listed(tmp_path) == files


def test_a_method_of_another_family_is_refused(refused, tmp_path):
    place = folders.project(tmp_path / "mine")
    refused("unknown method 'lurr' .did you mean 'lur'", "check", place, "--methods", "lurr")
    refused("'sa' is for models of the family diffusion", "forget", "digits-class", "--method", "sa")
