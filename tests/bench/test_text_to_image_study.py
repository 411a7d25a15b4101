"""The study of text-to-image models: its methods, its tables, and a whole run on models of a few steps."""

import argparse
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

pytest.importorskip("diffusers")

from bench.test_text_to_image_script import TINY
from pages import ROOT
from unweave.audits.diffusion.attacker import Budget
from unweave.bench import text_to_image_models
from unweave.bench.ranges import default_settings, nest_paths
from unweave.cli.bench_runs.concepts import configured_methods
from unweave.descent.descend import Descent
from unweave.families.text_to_image import TextToImageFamily
from unweave.methods.configure import configure, refuse_unknown_settings
from unweave.record.compact import read_record
from unweave.tasks.diffusion.sampler import Sampler

RECORD = ROOT / "records" / "text-to-image.json"
SCRIPT = "text_to_image_study"


@pytest.fixture
def study(script: ModuleType) -> ModuleType:
    return script


@pytest.fixture
def searches(study: ModuleType) -> ModuleType:
    import text_to_image_search

    return text_to_image_search


def test_every_row_starts_inside_a_space_of_fields_that_it_has(searches: ModuleType):
    family = TextToImageFamily()
    for name, row in searches.ROWS.items():
        method, space = searches.method_of(row, family), searches.space_of(row, family)
        refuse_unknown_settings(method, space, name)
        start = configure(method, nest_paths(default_settings(method, space)), name)
        assert type(start) is type(method)
        assert bool(row.scope) != ("train.scope" in space), "a scope is fixed or searched"


def test_a_row_takes_the_settings_of_another_search(searches: ModuleType, study: ModuleType):
    settings = {"train.scope": "attention", "lur.how.lr": 1e-3, "lur.weight": 0.5, "lur.alpha": 7.0}
    joint = searches.found_methods(["joint@lur"], {"lur": {"best": {"settings": settings}}})["joint@lur"]
    start = searches.method_of(searches.ROWS["joint"], searches.REPORTING)
    expected = {"train": {"scope": "attention"}, "joint": {"how": {"lr": 1e-3}, "weight": 0.5}}
    assert joint == configure(start, expected), "joint has no step to look through"
    settings_by_stage = {"lur.how.lr": 2e-3, "recover.how.lr": 3e-3}
    methods = searches.found_methods(
        ["joint:recover@lur:recover"], {"lur:recover": {"best": {"settings": settings_by_stage}}}
    )
    start = searches.method_of(searches.ROWS["joint:recover"], searches.REPORTING)
    expected = {"joint": {"how": {"lr": 2e-3}}, "recover": {"how": {"lr": 3e-3}}}
    assert methods["joint:recover@lur:recover"] == configure(start, expected)
    with pytest.raises(ValueError, match="needs the settings of a search of lur"):
        searches.found_methods(["joint@lur"], {})
    assert study.row_name("joint@lur") == "joint@lur"
    with pytest.raises(argparse.ArgumentTypeError, match="found 'lurr'"):
        study.row_name("joint@lurr")


def test_the_best_trial_is_within_the_budget(searches: ModuleType):
    def trial(value: float | None, gradients: int) -> dict[str, float | None]:
        return {"value": value, "gradient_evaluations": gradients}

    cheap_trial, dear_trial, failure = (
        trial(3.0, searches.BUDGET),
        trial(1.0, searches.BUDGET + 1),
        trial(None, 1),
    )
    assert searches.best([dear_trial, failure, cheap_trial]) is cheap_trial
    assert searches.best([dear_trial, failure]) is dear_trial
    assert searches.best([failure]) is None


def test_the_summary_has_means_over_concepts_and_seeds(study: ModuleType):
    def run(value: float, failed: str | None = None) -> dict[str, object]:
        return {"failed": failed, "gap": value, "gradients": 90, "values": {"ua_trained": 10 * value}}

    runs = {"object": {"three": {"0": {"lur": run(1)}, "1": {"lur": run(2)}}, "one": {"0": {"lur": run(6)}}}}
    runs["object"]["one"]["1"] = {"lur": run(9, failed="NaN")}
    row = study.summary(runs)["object"]["lur"]
    assert row["failed"]["mean"] == 25
    assert row["gap"] == {"mean": 3.0, "std": pytest.approx(np.std([1, 2, 6])), "n": 3}
    assert row["ua_trained"]["mean"] == 30.0
    study.print_tables(study.summary(runs))


def test_a_run_falls_short_of_an_aim_beside_its_own_references(study: ModuleType):
    base = {"ua": 90.0, "ra_neighbours": 95.0, "kid": 0.05, "relearn_10": 40.0, "asked": 5.0, "token": 8.0}
    original = {"failed": None, "values": {**base, "ua": 1.0, "asked": 99.0}, "kid interval": [0.04, 0.06]}
    retrained = {"failed": None, "values": {**base, "ra_neighbours": 80.0}}
    good = {**base, "ua": 91.0, "ra_neighbours": 94.0, "kid": 0.06, "relearn_10": 20.0, "dropped": 5.0}
    hidden = {**good, "relearn_10_old_words": 5.0, "dropped": 99.0, "ua": 88.0, "ra_neighbours": 93.5}
    runs = {
        "original": original,
        "retrained": retrained,
        "second retrained": {"failed": None, "values": base},
        "good": {"failed": None, "values": good, "gradients": 90},
        "hidden": {"failed": None, "values": {**hidden, "kid": 0.07}, "gradients": 180},
        "failing": {"failed": "NaN", "values": {}, "gradients": 3},
    }
    table = study.tabulate({"object": {"three": {"0": runs}}}, 900)["object"]
    assert table.keys() == {"second retrained", "good", "hidden", "failing"}
    assert all(each["met"] == each["of"] == 1 for each in table["good"].values())
    assert table["good"].keys() == {"concept", "neighbours", "quality", "share", "attacks", "relearning"}
    shortfall = {aim: each["most"] for aim, each in table["hidden"].items()}
    expected = {
        "concept": 2,
        "neighbours": 0.5,
        "quality": 0.01,
        "share": 0.1,
        "attacks": 94,
        "relearning": 15,
    }
    assert shortfall == pytest.approx(expected) and not any(each["met"] for each in table["hidden"].values())
    assert "share" not in table["second retrained"]
    tables = study.tabulate({"object": {"three": {"0": runs, "1": {**runs, "good": runs["failing"]}}}}, 900)
    assert tables["object"]["good"]["concept"] | {"mean": 0, "most": 0} == {
        "met": 1,
        "of": 2,
        "mean": 0,
        "most": 0,
    }
    study.print_aims(tables)


def test_a_method_whose_runs_all_failed_has_a_row_that_says_so(
    study: ModuleType, capsys: pytest.CaptureFixture[str]
):
    values = {"ua": 90.0, "ra_neighbours": 95.0, "kid": 0.05, "relearn_10": 40.0, "asked": 5.0}
    finished_run = {"failed": None, "values": values, "kid interval": [0.04, 0.06]}
    runs = {"original": finished_run, "retrained": finished_run, "failing": {"failed": "NaN", "values": {}}}
    table = study.tabulate({"object": {"three": {"0": runs, "1": runs}}}, 900)
    unmet = {"met": 0, "of": 2, "mean": None, "most": None}
    row = table["object"]["failing"]
    assert row.keys() == {"concept", "neighbours", "quality", "share", "attacks", "relearning"}
    assert all(each == unmet for each in row.values())
    study.print_aims(study.round_numbers(table))
    (line,) = (each for each in capsys.readouterr().out.splitlines() if each.startswith("| failing"))
    assert line.count("0 of 2, all failed") == len(row)


def test_the_second_retrained_model_is_of_another_seed(study: ModuleType, tmp_path: Path):
    seeded_study = study.Study(models=None, place=tmp_path, out=tmp_path)
    for seed in (0, 1, 3):
        (tmp_path / f"seed-{seed}" / "without-three").mkdir(parents=True)
    assert [seeded_study.other_seed(seed, "three") for seed in (0, 1, 3)] == [1, 3, 0]
    assert seeded_study.other_seed(0, "four") is None


def test_a_method_with_other_settings_is_refused(study: ModuleType, searches: ModuleType):
    method = searches.method_of(study.ROWS["uce"], searches.REPORTING)
    runs = {"three": {"0": {"uce": {"settings": study.digest({"method": repr(method)})}}}}
    study.refuse_other_methods(runs, {"uce": method})
    with pytest.raises(ValueError, match="runs of uce with other settings"):
        study.refuse_other_methods(runs, {"uce": searches.method_of(study.ROWS["lur"], searches.REPORTING)})


@pytest.mark.skipif(not RECORD.parent.exists(), reason="the records are in the clone only")
def test_rows_chosen_by_hand_have_the_settings_of_the_record(study: ModuleType, searches: ModuleType):
    runs = json.loads(RECORD.read_text())["runs"]["object"]["three"]["0"]
    by_hand = [name for name, row in study.ROWS.items() if not row.searched and name in runs]
    assert len(by_hand) == 10
    for name in by_hand:
        method = searches.method_of(study.ROWS[name], searches.REPORTING)
        assert runs[name]["settings"] == study.digest({"method": repr(method)}), name


def test_one_recogniser_judges_all_runs_of_a_seed(study: ModuleType):
    recognisers = {"0": "a", "3": "a"}
    study.refuse_other_recogniser(recognisers, {"0": "a", "1": "b"})
    with pytest.raises(ValueError, match="another recogniser judged the record's runs of seed 0"):
        study.refuse_other_recogniser(recognisers, {"1": "b", "0": "b"})


@pytest.mark.parametrize(("name", "row"), [("lur", "lur-lagged-all-both"), ("salun", "salun-all-quarter")])
def test_the_recipe_has_the_settings_of_two_rows(searches: ModuleType, name: str, row: str):
    family = TextToImageFamily()
    assert configured_methods("digits", family)[name] == searches.method_of(searches.ROWS[row], family)


def test_parts_of_a_record_are_joined(study: ModuleType):
    first, second = {"three": {"0": {"lur": 1}}}, {"three": {"0": {"joint": 2}, "1": {"lur": 3}}}
    assert study.join_tables(first, second) == {"three": {"0": {"lur": 1, "joint": 2}, "1": {"lur": 3}}}


def test_tables_of_several_records_are_of_equal_runs(study: ModuleType):
    from text_to_image_record import join_runs

    def record(judge: str, methods: dict[str, str]) -> dict[str, object]:
        runs = {name: {"settings": settings} for name, settings in methods.items()}
        by_seed = {"1": runs, "2": runs}
        settings = dict.fromkeys(("recipe", "budget", "reporting", "attack images", "formats"))
        judges = {"1": judge, "2": judge, "3": judge}
        return {**settings, "recognisers": judges, "runs": {"object": {"one": by_seed}}}

    first, second = record("a", {"retrained": "", "lur": "x"}), record("a", {"retrained": "", "sa": "y"})
    second["recognisers"]["3"] = "b"  # that of a search, which no run is compared with
    runs_by_seed = join_runs([first, second], [1])["object"]["one"]
    assert list(runs_by_seed) == ["1"] and set(runs_by_seed["1"]) == {"retrained", "lur", "sa"}
    assert list(join_runs([first], [])["object"]["one"]) == ["1", "2"]
    with pytest.raises(ValueError, match="different runs of lur"):
        join_runs([first, record("a", {"lur": "z"})], [])
    with pytest.raises(ValueError, match="another recogniser"):
        join_runs([first, record("b", {"sa": "y"})], [])
    with pytest.raises(ValueError, match="differ in 'budget'"):
        join_runs([first, {**second, "budget": 9}], [])
    with pytest.raises(ValueError, match=r"no runs of the seeds \[4\]"):
        join_runs([first], [4])


@pytest.mark.slow
def test_a_study_goes_on_where_it_was_stopped(
    study: ModuleType,
    searches: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    import text_to_image_cases as cases
    import text_to_image_models as script
    import text_to_image_record as shared

    recipe, models, out = tmp_path / "tiny.toml", tmp_path / "models", tmp_path / "study"
    recipe.write_text(TINY.replace("limit = 120", "limit = 360"))
    monkeypatch.setattr(text_to_image_models, "RECOGNISED_COPIES", 1)
    attacker = Budget(relearning=Descent(lr=1e-3, steps=2, batch=4, optimizer="adam"), looks=(1,))
    short_family = TextToImageFamily(Sampler("dpm", steps=2, guidance=3.0), images=20, attacker=attacker)
    for name, each in {"SEARCHING": short_family, "REPORTING": short_family, "MANY": cases.FEW}.items():
        for module in (cases, searches, study, shared):
            monkeypatch.setattr(module, name, each, raising=False)

    def call(module: ModuleType, *arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", ["script", "--recipe", str(recipe), *map(str, arguments)])
        module.main()

    call(script, "--out", models, "--seeds", 3, 4, "--object", "five")
    record, flags = tmp_path / "record.json", ["--models", models, "--out", out, "--attacked"]
    flags += ["--methods", "uce", "finetune", "uce@finetune"]
    flags += ["--seeds", 3, "--object", "five", "--factors", "object"]
    call(study, *flags, "--search", 2, "--record", record)
    content = read_record(record)
    trials = {name: len(each["trials"]) for name, each in content["searches"]["object"].items()}
    assert trials == {"uce": 2, "finetune": 2}
    runs = content["runs"]["object"]["five"]["3"]
    assert list(runs) == ["original", "retrained", "second retrained", "uce", "finetune", "uce@finetune"]
    assert all(each["failed"] is None for each in runs.values())
    assert runs["retrained"]["gap"] == 0 and runs["uce"]["gradients"] == 0
    assert runs["original"]["values"]["drift_pixel"] == 0
    assert "relearned_10_at_2" in runs["uce"]["values"]
    files = {path: path.stat().st_mtime_ns for path in out.rglob("*.json")}
    assert len(files) == 6
    call(study, *flags, "--search", 2, "--record", record)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.json")} == files
    assert read_record(record)["runs"] == content["runs"]
    monkeypatch.setattr(searches, "search", None)
    call(study, *flags, "--out", tmp_path / "elsewhere", "--search", 2, "--record", record)
    assert read_record(record)["searches"] == content["searches"], "the record alone knows the search"
    with pytest.raises(ValueError, match="another search of uce"):
        call(study, *flags, "--search", 3, "--record", record)
    with pytest.raises(ValueError, match=r"other settings \(reporting\)"):
        call(study, *flags, "--attacked", 5, "--record", record)
