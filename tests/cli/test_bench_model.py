"""`unweave bench` on a model that is given: the original of every seed."""

from pathlib import Path

import pytest

import folders
import projects
from cli.written import names, stage_of
from projects import TRAINED

FEW = ("--methods", "finetune", "--seeds", 2, "--quiet")


def test_methods_are_compared_on_a_project_of_ones_own(run, here, tmp_path):
    place = projects.project(tmp_path / "mine", TRAINED)
    told = run("bench", place, "--random", 0.1, *FEW)
    assert told.code == 0, told.error
    stage = stage_of(here / "unweave-bench")
    assert stage["methods"].keys() == {"finetune", "original"} and stage["seeds"] == [0, 1]
    assert stage["calibration_seeds"] == [] and "no verdict" in stage["methods"]["finetune"]["reason"]
    assert str(tmp_path) not in Path("unweave-bench/record.json").read_text()
    cells = Path("unweave-bench/cells/project")
    both = [(cells / seed / "original.parquet").read_bytes() for seed in "01"]
    retrained = [(cells / seed / "retrained.parquet").read_bytes() for seed in "01"]
    assert both[0] == both[1] and retrained[0] != retrained[1]
    before = {path: path.stat().st_mtime_ns for path in cells.rglob("*")}
    assert run("bench", place, "--random", 0.1, *FEW).code == 0
    assert {path: path.stat().st_mtime_ns for path in cells.rglob("*")} == before


def test_methods_are_compared_on_a_folder_of_diffusers(run, here, listed, tmp_path):
    pytest.importorskip("diffusers")
    source, recipe = folders.diffusers_folder(tmp_path / "source"), folders.recipe(tmp_path)
    before = listed(tmp_path / "source")
    told = run("bench", source, "--recipe", recipe, "--methods", "joint", "--seeds", 1, "--quiet")
    assert told.code == 0, told.error
    stage = stage_of(here / "unweave-bench")
    assert stage["sheets"].keys() == {"joint", "original", "retrained"}
    assert stage["recipe"]["generation"]["images"] == 20 and stage["data"]["forgotten_classes"] == [3]
    assert listed(tmp_path / "source") == before


def test_what_can_not_be_compared_is_refused(refused, tmp_path):
    untrained = projects.project(tmp_path / "mine", "train = None")
    place = projects.project(tmp_path / "own", TRAINED)
    refused("several recipes or one model", "bench", place, "digits-class")
    refused("say what to forget", "bench", place, *FEW)
    refused("nobody said how to train", "bench", untrained, "--random", 0.1, *FEW)
    refused("found --tune or --tuned beside a model", "bench", place, "--random", 0.1, "--tune", 2)
    refused("go with a model: recipes say it all", "bench", "digits-class", "--class", 3)


def test_missing_weights_for_an_fid_are_named_before_anything_is_trained(run, here, tmp_path):
    place = Path(folders.recipe(tmp_path))
    place.write_text(place.read_text().replace("[generation]", '[generation]\ninception = "none.pt"'))
    told = run("bench", place, "--methods", "lur", "--quiet")
    assert told.code == 2 and told.error.count("\n") == 1 and "none at none.pt" in told.error, told.error
    assert names(here) == []
