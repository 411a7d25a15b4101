"""A benchmark of denoisers: its cells, its record, its report."""

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from unweave.audits.diffusion.attacker import Budget
from unweave.audits.diffusion.drawing import RELEARNING
from unweave.bench.bench import bench
from unweave.bench.cell import REFERENCE, cell_path
from unweave.bench.recipe import Recipe, load, parse
from unweave.bench.split_data import make_split
from unweave.bench.stage import Stage
from unweave.families import diffusion as denoisers
from unweave.record import record
from unweave.report import html, tables

pytest.importorskip("diffusers")

METHODS = ("lur", "finetune")


def row_of(stage: dict[str, Any], metric: str, method: str = "lur") -> float:
    return stage["methods"][method]["scores"][metric]["value"]


def tiny(**changes: object) -> Recipe:
    """A U-Net of a dozen steps, and methods of two."""
    how = {"optimizer": "adam", "lr": 1e-4, "steps": 2, "batch": 16}
    table: dict[str, Any] = {
        "name": "tiny",
        "data": {"name": "digit-images", "forget": "class", "label": 3},
        "model": {"name": "unet", "settings": {"width": 8}},
        "generation": {"images": 20, "searched": 20, "sampler": {"scheduler": "dpm", "steps": 3}},
        "train": {"optimizer": "adam", "lr": 1e-3, "steps": 12, "batch": 32},
        "seeds": [0],
        "calibration_seeds": [],
        "methods": {
            "lur": {"forget": "mislabel", "how": how},
            "finetune": {"how": how},
        },
    }
    return parse({**table, **changes})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a benchmark of both methods is written."""
    return tmp_path_factory.mktemp("bench")


@pytest.fixture(scope="module")
def made(folder: Path) -> dict[str, Any]:
    """Its record."""
    return bench([tiny()], folder, methods=METHODS, jobs=1)


@pytest.fixture
def trained(folder: Path, made: dict[str, Any], tmp_path: Path) -> Path:
    """Another folder, which holds the models and the recogniser of that benchmark alone."""
    shutil.copytree(folder / "models", tmp_path / "models")
    return tmp_path


def test_a_benchmark_of_denoisers_goes_on_where_it_stopped(folder: Path, made: dict[str, Any]) -> None:
    cells = folder / "cells" / "tiny" / "0"
    before = {path: path.stat().st_mtime_ns for path in cells.iterdir()}
    assert {path.name for path in before} >= {"lur.npz", "lur.json", "lur.values.json", "retrained.npz"}
    stage = record.load(folder)["stages"]["tiny"]
    assert set(stage["methods"]) == {"lur", "finetune", "original"} and stage["histograms"] == {}
    row = stage["methods"]["lur"]
    assert row["gap"]["parts"].keys() == {"ua", "ra", "class_tv"}
    assert row["verdict"] == "INCONCLUSIVE" and row["failed"] is None
    assert stage["sheets"].keys() == stage["descriptions"].keys() == {*METHODS, "original", "retrained"}
    shares = stage["descriptions"]["lur"]["shown, %"]
    retain_shares = [value for label, (value, _, _) in shares.items() if label != "3"]
    assert len(retain_shares) == 9 and sum(retain_shares) / 9 == pytest.approx(row_of(stage, "ra"))
    assert all(low <= value <= high for value, low, high in shares.values())
    recogniser = stage["data"]["recogniser"]
    error = recogniser["wrong about them, %"]
    assert 0 < error["low"] < error["value"] < error["high"] < 10 and recogniser["held-out images"] == 360
    second = bench([tiny()], folder, methods=METHODS, jobs=1)
    assert {path: path.stat().st_mtime_ns for path in cells.iterdir()} == before
    assert record.to_json_values(second["stages"]) == record.to_json_values(made["stages"])


@pytest.mark.slow  # the ranges alone: test_diffusion_settings.py; searches: bench/test_tune.py
def test_a_search_tries_what_suits_denoisers(trained: Path) -> None:
    stage = bench([tiny()], trained, methods=("lur",), jobs=1, tune=2)["stages"]["tiny"]
    settings = [trial["settings"] for trial in stage["search"]["lur"]]
    assert len(settings) == 2 and settings[0].keys() == {"how.lr", "how.steps", "alpha", "weight"}
    assert all(3e-5 <= each["how.lr"] <= 1e-3 for each in settings)


SHORT_ATTACKS = replace(
    Budget(), seeds=10, guidances=(1.0,), positions=(1.0,), vector_steps=1, draws=8, looks=(1,),
    relearning=replace(RELEARNING, steps=1),
)  # fmt: skip


def test_attacks_are_measured_and_judged_with_the_rest(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(denoisers, "Budget", lambda images: replace(SHORT_ATTACKS, images=images))
    generation = {**tiny().table()["generation"], "attacks": 2}
    stage = bench([tiny(generation=generation)], trained, methods=("finetune",), jobs=1)["stages"]["tiny"]
    for scores in (stage["methods"]["finetune"]["scores"], stage["reference"]["scores"]):
        assert scores.keys() >= {"asked", "guidance", "line", "best_of_10", "vector", "relearn_10"}
        assert {"drift_pixel", "ua", "kid"} <= scores.keys()


def test_too_few_real_images_are_refused_before_anything_is_trained(tmp_path) -> None:
    generation = {**tiny().table()["generation"], "attacks": 2}
    recipe = tiny(generation=generation, data={"name": "digit-images", "limit": 200, "forget": "class"})
    with pytest.raises(ValueError, match="relearning needs 100 training images of a forgotten class, found"):
        bench([recipe], tmp_path, methods=("finetune",), jobs=1)
    assert not (tmp_path / "cells").exists()


def test_a_report_of_denoisers_shows_what_they_draw(made: dict[str, Any]) -> None:
    page = html.render(made)
    assert page.count('<img class="sheet" src="data:image/png;base64,') == 4
    assert "img-src data:" in page and "KID on F" in page and "rank on F" not in page
    text = tables.text(made)
    assert "over UA, RA, TV of classes, points" in text and "TA" not in text


def test_a_recipe_of_denoisers_is_read_back(tmp_path) -> None:
    recipe = load("digit-images-class")
    assert parse(recipe.table()) == recipe
    with pytest.raises(ValueError, match=r"unknown key 'step' in generation.sampler \(did you mean 'steps'"):
        tiny(generation={"sampler": {"step": 3}})
    with pytest.raises(ValueError, match="a generator forgets a class, found forget = 'random'"):
        tiny(data={"name": "digit-images"})
    with pytest.raises(ValueError, match="a KID needs 20 images of each class, found 10 and 100"):
        tiny(generation={"images": 10})
    with pytest.raises(ValueError, match="needs the file weights-inception.*, found none at none.pth"):
        tiny(generation={"inception": "none.pth"})
    release_recipe = tiny(
        generation={"times": "antithetic", "reduction": "sum", "other": "away", "away": 2.0}
    )
    task = release_recipe.family.task(10, (3,))
    assert (task.times, task.reduction, task.other, task.away) == ("antithetic", "sum", "away", 2.0)
    with pytest.raises(ValueError, match="guidance"):
        tiny(generation={"sampler": {"guidance": -1.0}})
    with pytest.raises(ValueError, match=r"uint8\), found torch.float32"):
        Stage(tiny(data={"name": "digits", "forget": "class"}), tmp_path).split()


def test_without_calibration_the_reported_retrained_models_say_what_two_differ_by(trained: Path) -> None:
    recipe = tiny(seeds=[0, 1])
    stage = bench([recipe], trained, methods=(), jobs=1)["stages"]["tiny"]
    assert stage["margins"] is None and stage["reference"]["null_band"] == {}
    run = Stage(recipe, trained)
    exam = run.exam()
    one, other = (exam.load(cell_path(run, seed, REFERENCE).with_suffix(".npz")) for seed in (0, 1))
    pair = exam.measure_pair(one, other)
    ua, ra = (abs(exam.measure(one)[name] - exam.measure(other)[name]) for name in ("ua", "ra"))
    shortfall = max(0.0, exam.measure(other)["ra"] - exam.measure(one)["ra"])
    assert ra >= shortfall
    assert stage["floor"] == pytest.approx((ua + shortfall + 100 * pair["class_tv"]) / 3)
    assert stage["reference"]["scores"]["class_tv"]["value"] == pytest.approx(pair["class_tv"])
    shutil.copytree(trained / "models", trained / "one" / "models")
    single_stage = bench([tiny()], trained / "one", methods=(), jobs=1)["stages"]["tiny"]
    assert single_stage["floor"] is None and "class_tv" not in single_stage["reference"]["scores"]


def test_a_report_shows_the_original_first_then_what_retraining_gives(made: dict[str, Any]) -> None:
    captions = re.findall('<figcaption>(.*?)</figcaption><img class="sheet"', html.render(made))
    gaps = {name: made["stages"]["tiny"]["methods"][name]["gap"]["mean"] for name in METHODS}
    assert captions == ["original", "Retrain", *sorted(METHODS, key=gaps.__getitem__)]


def test_the_recogniser_is_trained_where_the_models_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*data: object, device: str, **settings: object) -> None:
        raise LookupError(device)

    monkeypatch.setattr(denoisers, "train_recogniser", refuse)
    family, split = tiny().family, make_split(tiny().data, family=tiny().family)
    for device in ("cpu", "cuda"):
        with pytest.raises(LookupError, match=device):
            family.exam(split, device=device)


def test_the_recipe_for_a_processor_is_the_path_of_the_one_for_a_gpu() -> None:
    full, short = load("cifar10-images-class"), load("cifar10-images-partial")
    settings = ("levels", "layers", "attended", "size", "channels")
    assert all(full.model.settings[each] == short.model.settings[each] for each in settings)
    assert short.partial and not full.partial and full.train.compile and full.train.precision == "bf16"
    assert full.data == replace(short.data, limit=None)
