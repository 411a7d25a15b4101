"""`unweave bench` on a model that is given: the original of every seed."""

import json
import re
from pathlib import Path

import pytest

import folders
import projects
from cli.written import names, stage_of
from projects import TRAINED
from unweave.record import record

FEW = ("--methods", "finetune", "--seeds", 2, "--quiet")


def test_methods_are_compared_on_a_project_of_ones_own(run, here, tmp_path):
    place = projects.project(tmp_path / "mine", TRAINED)
    result = run("bench", place, "--random", 0.1, *FEW)
    assert result.code == 0, result.error
    stage = stage_of(here / "unweave-bench")
    assert stage["methods"].keys() == {"finetune", "original"} and stage["seeds"] == [0, 1]
    assert stage["calibration_seeds"] == [] and "no verdict" in stage["methods"]["finetune"]["reason"]
    assert str(tmp_path) not in Path("unweave-bench/record.json").read_text()
    cells = Path("unweave-bench/cells/project")
    originals = [(cells / seed / "original.parquet").read_bytes() for seed in "01"]
    retrained = [(cells / seed / "retrained.parquet").read_bytes() for seed in "01"]
    assert originals[0] == originals[1] and retrained[0] != retrained[1]
    times = {path: path.stat().st_mtime_ns for path in cells.rglob("*")}
    assert run("bench", place, "--random", 0.1, *FEW).code == 0
    assert {path: path.stat().st_mtime_ns for path in cells.rglob("*")} == times


@pytest.mark.slow  # a project: above; a benchmark of denoisers: families/test_diffusion.py
def test_methods_are_compared_on_a_folder_of_diffusers(run, here, listed, tmp_path):
    pytest.importorskip("diffusers")
    source, recipe = folders.diffusers_folder(tmp_path / "source"), folders.recipe(tmp_path)
    files = listed(tmp_path / "source")
    result = run("bench", source, "--recipe", recipe, "--methods", "joint", "--seeds", 1, "--quiet")
    assert result.code == 0, result.error
    stage = stage_of(here / "unweave-bench")
    assert stage["sheets"].keys() == {"joint", "original", "retrained"}
    assert stage["recipe"]["generation"]["images"] == 20 and stage["data"]["forgotten_classes"] == [3]
    assert listed(tmp_path / "source") == files


@pytest.mark.slow  # budgets: test_bench.py; lengths of ones own training: the search on proxies below
def test_budgets_are_parts_of_ones_own_training(run, here, refused, tmp_path):
    place = projects.project(tmp_path / "mine", TRAINED)
    flags = ("--random", 0.1, "--methods", "finetune,short-retrain", "--seeds", 1, "--quiet")
    result = run("bench", place, *flags, "--tune", 1, "--budgets", "0.2,0.6")
    assert result.code == 0, result.error
    content = record.load(here / "unweave-bench")
    assert list(content["stages"]) == ["project@0.2", "project@0.6"]
    points = content["frontier"]["project"]["methods"]["short-retrain"]["points"]
    # 81 examples in batches of 32, 25 times
    assert [point["gradient_evaluations"] for point in points] == pytest.approx([0.2, 0.6])
    assert content["stages"]["project@0.2"]["methods"]["short-retrain"]["gradient_evaluations"] == 15
    refused("give it with --tune or --tuned", "bench", place, *flags, "--budgets", "0.2")


def test_forget_takes_the_settings_that_were_found(run, here, refused, tmp_path):
    place = projects.project(tmp_path / "mine", TRAINED)
    request = ("--random", 0.1, "--quiet")
    result = run("bench", place, *request, "--methods", "finetune", "--seeds", 1, "--tune", 2)
    assert result.code == 0, result.error
    tuning = here / "unweave-bench" / "tuning"
    stage = stage_of(here / "unweave-bench")
    forget = ("forget", place, *request, "--method", "finetune", "--tuned", tuning)
    assert run(*forget, "--out", "found").code == 0
    assert run(*forget, "--set", "how.steps=1", "--out", "short").code == 0
    method, short_method = (
        stage_of(here / name)["methods"]["FineTune"]["repr"] for name in ("found", "short")
    )
    assert method == stage["methods"]["finetune"]["repr"] != short_method and "steps=1," in short_method

    refused("must have settings of lur, found finetune: tune it first",
            "forget", place, *request, "--method", "lur", "--tuned", tuning)  # fmt: skip
    refused("'tuning' of a bench of", "forget", place, *request, "--method", "finetune", "--tuned", here)

    content = (tuning / "project.toml").read_text()
    for budget in ("0.1", "0.3"):
        text = re.sub("how.lr = .*", f"how.lr = {budget}", content)
        (tuning / f"project@{budget}.toml").write_text(text)
    (tuning / "project.toml").unlink()
    several = (
        r"found no project.toml in .*name the file of one budget, .*project@0.1.toml, .*project@0.3.toml"
    )
    refused(several, *forget)
    assert run(*forget[:-1], tuning / "project@0.3.toml", "--out", "one").code == 0
    assert "lr=0.3," in stage_of(here / "one")["methods"]["FineTune"]["repr"]
    (tuning / "project.toml").write_text("[methods.finetune]\nhow.lr = 0.3")  # as earlier versions wrote it
    refused(
        r"project\.toml must name all settings of finetune, .* found no how.steps: run the bench", *forget
    )


UNDRAWABLE = """
class Scaled(Net):
    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(8))

def load():
    return given(model=Scaled())
"""


def test_a_start_whose_weights_can_not_be_drawn_is_refused_before_anything_is_trained(refused, tmp_path):
    place = projects.project(tmp_path / "mine", UNDRAWABLE + "def train(*_):\n    raise AssertionError")
    sentence = "needs fresh weights, and module 'Scaled' has weights but no reset_parameters"
    for method in ("shrink-perturb:lur:recover", "fresh:recover"):
        refused(sentence, "bench", place, "--random", 0.1, "--methods", method, "--seeds", 1, "--quiet")
        refused(sentence, "forget", place, "--random", 0.1, "--method", method, "--quiet")
    refused(sentence, "qualify", place, "--method", "fresh:recover", "--quiet")


def test_what_can_not_be_compared_is_refused(refused, tmp_path):
    project_without_train = projects.project(tmp_path / "mine", "train = None")
    place = projects.project(tmp_path / "own", TRAINED)
    refused("several recipes or one model", "bench", place, "digits-class")
    refused("say what to forget", "bench", place, *FEW)
    refused("found no way to retrain", "bench", project_without_train, "--random", 0.1, *FEW)
    refused("go with a model: recipes define their own", "bench", "digits-class", "--class", 3)


def test_settings_are_searched_on_proxies_of_ones_own_request(run, here, listed, tmp_path):
    place = projects.project(tmp_path / "mine", TRAINED)
    command = ("bench", place, "--random", 0.1, "--quiet")
    result = run(*command, "--methods", "finetune", "--seeds", 1, "--tune", 2)
    assert result.code == 0, result.error
    stage, tuning = stage_of(here / "unweave-bench"), here / "unweave-bench" / "tuning"
    # 81 of 90 records in batches of 32, 25 times
    assert stage["tuned"] == {"against": "proxy", "seeds": [1000, 1001], "budget": 0.5, "limit": None,
                              "scale": 1.0, "trials": 2, "retraining": 75}  # fmt: skip
    assert "the 75 gradient evaluations of a retraining" in " ".join(result.out.split())
    best = min(stage["search"]["finetune"], key=lambda trial: trial["value"])["settings"]
    assert f"lr={best['how.lr']}, " in stage["methods"]["finetune"]["repr"] and best["how.steps"] <= 38
    run_settings = json.loads((here / "unweave-bench" / "run.json").read_text())
    assert (run_settings["tune"], run_settings["tuned"], run_settings["against"]) == (2, None, "proxy")
    files = listed(tuning)
    result = run(*command, "--methods", "finetune,ascent", "--seeds", 2, "--tune", 2)
    assert result.code == 0 and names(here) == ["unweave-bench"], result.error
    second = stage_of(here / "unweave-bench")
    assert (
        second["search"]["finetune"] == stage["search"]["finetune"] and len(second["search"]["ascent"]) == 2
    )
    search_file = str(tuning / "project" / "finetune.json")
    assert listed(tuning)[search_file] == files[search_file]

    result = run(*command, "--methods", "finetune", "--seeds", 1, "--tuned", tuning, "--out", "later")
    later_stage = stage_of(here / "later")
    assert result.code == 0 and later_stage["search"]["finetune"] == stage["search"]["finetune"], result.error
    assert later_stage["tuned"] == stage["tuned"] and not (here / "later" / "tuning").exists()
    assert len(names(here / "later" / "models")) == 1, "the request's own retrained model, and no proxy's"
    assert run(*command, "--methods", "finetune", "--seeds", 1).code == 0
    assert names(here) == ["later", "unweave-bench", "unweave-bench-2"], "an untuned run is another"


def test_settings_are_searched_on_the_request_itself_where_that_is_asked_for(run, here, tmp_path):
    place = projects.project(tmp_path / "mine", TRAINED)
    flags = ("--class", 1, "--methods", "finetune", "--seeds", 1, "--tune", 1, "--against", "retrain")
    result = run("bench", place, *flags, "--quiet")
    assert result.code == 0, result.error
    assert stage_of(here / "unweave-bench")["tuned"]["against"] == "retrain"
    assert "on the request itself" in Path("unweave-bench/report.html").read_text()


def test_settings_are_searched_for_a_folder_with_its_recipe(run, here, folder):
    flags = ("--methods", "finetune", "--seeds", 1, "--tune", 1, "--quiet")
    result = run("bench", folder, *flags)
    assert result.code == 0, result.error
    assert stage_of(here / "unweave-bench")["tuned"]["retraining"] == 60
    assert not (here / "unweave-bench" / "tuning" / "model" / "retraining.json").exists()


def test_settings_are_searched_for_a_folder_of_diffusers(run, here, tmp_path):
    pytest.importorskip("diffusers")
    source, recipe = folders.diffusers_folder(tmp_path / "source"), folders.recipe(tmp_path)
    flags = ("--recipe", recipe, "--methods", "finetune", "--seeds", 1, "--tune", 1, "--quiet")
    result = run("bench", source, *flags)
    assert result.code == 0, result.error
    stage = stage_of(here / "unweave-bench")
    assert stage["tuned"]["retraining"] == 3 and stage["search"]["finetune"][0]["value"] is not None


def test_a_search_that_can_not_be_made_is_refused(refused, tmp_path, folder):
    place = projects.project(tmp_path / "own", TRAINED)
    search = ("--methods", "finetune", "--tune", 1, "--quiet")
    refused("--tune must be at least 1 trial", "bench", place, "--random", 0.1, "--tune", 0)
    refused("give it with --tune or --tuned", "bench", place, "--random", 0.1, "--against", "retrain")
    refused("54 examples to forget and 36 to retain", "bench", place, "--random", 0.6, *search)
    refused("2 to forget and 1 to retain", "bench", place, "--class", "0,1", *search)
    refused("found none at nowhere", "bench", place, "--random", 0.1, "--tuned", "nowhere")
    refused("no searches for the stage", "bench", place, "--random", 0.1, "--tuned", tmp_path)
    project_without_train = projects.project(tmp_path / "untrained", "train = None")
    refused("found no way to retrain", "bench", project_without_train, "--random", 0.1, *search)
    idle = projects.project(tmp_path / "still", f"{TRAINED}\ndef train(*_): return Net()\n")
    refused("took no step with an optimizer", "bench", idle, "--random", 0.1, *search)
    recipe = folder / "recipe.toml"
    recipe.write_text(recipe.read_text() + "\n[tuning]\nlimit = 100\n")
    refused("limit = 100: remove it", "bench", folder, *search)


def test_missing_weights_for_an_fid_are_named_before_anything_is_trained(run, here, tmp_path):
    place = Path(folders.recipe(tmp_path))
    place.write_text(place.read_text().replace("[generation]", '[generation]\ninception = "none.pt"'))
    result = run("bench", place, "--methods", "lur", "--quiet")
    assert result.code == 2 and result.error.count("\n") == 1 and "none at none.pt" in result.error, (
        result.error
    )
    assert names(here) == []
