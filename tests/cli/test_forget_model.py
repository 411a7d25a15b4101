"""The model that `unweave forget` writes: what was asked of it, the same for the same request."""

import json
import runpy
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.utils.data import Subset

import projects
import unweave
from cli.written import MODEL, bits, names, row_of, stage_of
from projects import TRAINED
from unweave.descent.descend import Descent  # noqa: F401  # a method's text names it
from unweave.methods import METHODS
from unweave.methods.salun import SalUn
from unweave.targets import Mislabel  # noqa: F401  # and this

IDS = ("--ids", "r0/3,r0/5,r0/8")
SHORT = ("--method", "finetune", "--set", "how.epochs=1")


@pytest.fixture
def place(tmp_path) -> str:
    """A project whose model is trained."""
    return projects.project(tmp_path / "mine", TRAINED)


class TestModel:
    def test_the_figures_told_are_those_of_the_weights_written(self, run, here, place):
        facts = json.loads(run("forget", place, *IDS, "--method", "ascent", "--json", "--quiet").out)
        space = runpy.run_path(place)
        model, data, test = space["Net"](), space["Records"](90, 0), space["Records"](120, 1)
        model.load_state_dict(load_file(here / "forgotten" / "model.safetensors"))
        is_right = model(data.x, torch.ones(90, 1)).argmax(1) == data.labels
        is_forgotten = torch.zeros(90, dtype=torch.bool)
        is_forgotten[[3, 5, 8]] = True
        assert facts["after"]["ua"] == pytest.approx(100 - 100 * float(is_right[is_forgotten].float().mean()))
        assert facts["after"]["ra"] == pytest.approx(100 * float(is_right[~is_forgotten].float().mean()))
        held_out = set(range(120)) - set(json.loads(Path("forgotten/split.json").read_text())["calibration"])
        part = sorted(held_out)
        is_right = model(test.x[part], torch.ones(len(part), 1)).argmax(1) == test.labels[part]
        assert facts["after"]["ta"] == pytest.approx(100 * float(is_right.float().mean()))
        assert facts["before"]["ua"] < facts["after"]["ua"]

    def test_json_agrees_with_the_record(self, run, here, place):
        facts = json.loads(run("forget", place, *IDS, *SHORT, "--json").out)
        row = row_of(here / facts["out"])
        assert (facts["method"], facts["forgotten"]) == ("finetune", 3)
        assert (facts["seconds"], facts["gradient_evaluations"]) == (
            row["seconds"],
            row["gradient_evaluations"],
        )
        assert row["verdict"] == "INCONCLUSIVE" and "not audited yet" in row["reason"]

    def test_the_command_line_and_python_write_the_same_weights(self, run, here, place):
        assert run("forget", place, *IDS, "--quiet", "--method", "salun", "--seed", 4).code == 0
        parts = runpy.run_path(place)["load"]()
        split = unweave.Split(parts["train"], [3, 5, 8], parts["test"])
        result = unweave.unlearn(parts["model"], split, METHODS["salun"], seed=4)
        weights = load_file("forgotten/model.safetensors")
        assert all(torch.equal(value, weights[name]) for name, value in result.model.state_dict().items())

    def test_the_same_seed_gives_the_same_bits_and_another_seed_others(self, run, here, place):
        for seed, out in ((1, "a"), (1, "b"), (2, "c")):
            flags = ("--method", "salun", "--seed", seed, "--out", out, "--quiet")
            assert run("forget", place, *IDS, *flags).code == 0
        assert bits(here / "a") == bits(here / "b") != bits(here / "c")

    def test_settings_reach_the_method_and_the_record(self, run, here, place):
        flags = ("--set", "fraction=0.25", "--set", "how.lr=0.002", "--set", "how.norm=frozen")
        assert run("forget", place, *IDS, "--method", "salun", *flags, "--quiet").code == 0
        salun = METHODS["salun"]
        assert isinstance(salun, SalUn)
        expected = replace(salun, fraction=0.25, how=replace(salun.how, lr=0.002, norm="frozen"))
        assert eval(row_of(here / "forgotten")["repr"]) == expected != salun

    def test_retrain_is_the_projects_own_training(self, run, here, place):
        assert run("forget", place, *IDS, "--method", "retrain", "--seed", 6, "--quiet").code == 0
        space = runpy.run_path(place)
        retained = Subset(space["Records"](90, 0), [i for i in range(90) if i not in (3, 5, 8)])
        weights = load_file("forgotten/model.safetensors")
        assert all(
            torch.equal(v, weights[name]) for name, v in space["train"](retained, 6).state_dict().items()
        )
        assert row_of(here / "forgotten")["repr"] == "train(dataset, 6)"


class TestPlaces:
    """Where a model may come from."""

    def test_a_recipe_trains_the_original_and_keeps_it(self, trained):
        _, place = trained
        (original,) = (place / "models").iterdir()
        assert names(original) == ["model.json", "model.safetensors"] and bits(original) != bits(place)
        assert stage_of(place)["data"]["forget"] == 20

    def test_a_folder_gives_what_the_recipe_gave(self, run, here, trained, folder):
        assert run("forget", folder, *SHORT, "--quiet").code == 0
        assert bits(here / "forgotten") == bits(trained[1]) and names(here / "forgotten") == MODEL

    def test_a_folder_may_have_its_recipe_elsewhere(self, run, here, trained, folder):
        (folder / "recipe.toml").unlink()
        assert run("forget", folder, "--recipe", trained[0], *SHORT, "--quiet").code == 0
        assert bits(here / "forgotten") == bits(trained[1])

    def test_the_settings_of_a_recipe_hold_and_set_changes_them(self, run, here, tmp_path):
        recipe = Path(projects.recipe(tmp_path))
        recipe.write_text(f"{recipe.read_text()}\n[methods.finetune]\nhow = {{ lr = 0.007, steps = 3 }}\n")
        result = run("forget", recipe, "--method", "finetune", "--set", "how.steps=4", "--json", "--quiet")
        assert json.loads(result.out)["gradient_evaluations"] == 4
        assert "lr=0.007, steps=4" in row_of(here / "forgotten")["repr"]

    def test_a_run_may_be_moved(self, run, here, forgotten):
        shutil.move(forgotten, here / "elsewhere")
        result = run("audit", here / "elsewhere", "--references", 1, "--quiet")
        assert result.code == 1 and names(here / "elsewhere" / "audit" / "references")
