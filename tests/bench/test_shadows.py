"""Shadow models of a recipe: what each trains on and forgets, and that nothing is made twice."""

import json
import math
import pickle
import runpy
import shutil
import sys
from dataclasses import replace
from functools import partial
from itertools import repeat
from pathlib import Path

import numpy as np
import pytest
import torch

import projects
from pages import ROOT
from unweave.audits.attack_result import two_way_bootstrap
from unweave.audits.attacks.ulira import Shadows, ulira
from unweave.bench.attack_shadows import (
    area,
    mean_over_models,
    rate,
    resampled_mean,
    rmia_of,
    run_study,
    summarize,
    unlearned_rows,
)
from unweave.bench.recipe import load
from unweave.bench.shadows import FLOOR_SEED, Population, ShadowStudy
from unweave.data.part_of_source import PartOfSource
from unweave.errors import Failed
from unweave.weights.cost import Cost


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[ShadowStudy, dict, list]:
    """A study of sixteen tiny models, what it found, and what was heard."""
    folder = tmp_path_factory.mktemp("shadows")
    study = ShadowStudy(load(projects.recipe(folder)), 16, folder / "kept")
    progress: list = []
    result = run_study(study, ["ascent", "finetune"], lambda *each: progress.append(each))
    return study, result, progress


def files(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in sorted(folder.rglob("*")) if path.is_file()}


def test_each_model_forgets_the_half_that_it_trained_on(made) -> None:
    study, _, _ = made
    targets, retain = study.split.forget, study.split.retain
    for index in range(4):
        request, records = study.request(index), targets[study.halves[index]]
        train = request.train
        assert isinstance(train, PartOfSource)
        assert train.positions[request.forget].tolist() == records.tolist()
        assert train.positions[request.retain].tolist() == retain.tolist()
        assert torch.equal(train.labels, study.split.train.labels[train.positions])
        other = study.request(index ^ 1)
        assert isinstance(other.train, PartOfSource)
        pair = {*train.positions.tolist()} & {*other.train.positions.tolist()}
        assert pair == set(retain.tolist())


def test_the_floor_shares_neither_targets_nor_weights_with_an_original(made) -> None:
    study, _, _ = made
    assert study.models <= FLOOR_SEED
    sidecars = [json.loads(path.read_text()) for path in (study.folder / "models").glob("*/model.json")]
    originals = {each["split"] for each in sidecars if each["seed"] < FLOOR_SEED and "method" not in each}
    floor = {each["split"] for each in sidecars if each["seed"] >= FLOOR_SEED}
    assert floor == {study.split.digest("retain")} and not floor & originals
    assert len(sidecars) == 4 * study.models


def test_every_kind_of_model_is_attacked_beside_the_floor_and_the_ceiling(made) -> None:
    study, result, _ = made
    assert list(result["rows"]) == ["retrain", "original", "ascent", "finetune"]
    for name, row in result["rows"].items():
        assert row["failed"] is None and row["seconds"] > 0
        distance = row["attacks"].get("klom-gauss: mean")
        assert distance is None if name == "retrain" else np.isfinite(distance["value"])
        for figure in ("u-lira: accuracy", "u-lira: worst decile", "rmia: auc"):
            each = row["attacks"][figure]
            assert 0 <= each["value"] <= 1
            assert each["null_band"][0] <= each["retrained"] <= each["null_band"][1]
            if name == "original" or (name == "retrain" and figure == "rmia: auc"):
                assert each["original" if name == "original" else "retrained"] == pytest.approx(each["value"])
        assert "forgetting-quality: F / F_null" not in row["attacks"]  # it needs 64 models
    lines = summarize(result)
    assert [line.split()[0] for line in lines[1:]] == ["retrain", "original", "ascent", "finetune"]
    assert result["targets"] == len(study.split.forget)


def test_a_crew_runs_the_methods_and_finds_the_same(made, tmp_path) -> None:
    study, result, _ = made
    jobs: list[str] = []

    def crew(work):
        jobs.extend(job.label for job in work)
        return ((job, job.function(*pickle.loads(pickle.dumps(job.arguments)))) for job in reversed(work))

    shutil.copytree(study.folder, tmp_path / "kept")
    second = ShadowStudy(study.recipe, 16, tmp_path / "kept", crew=crew)
    for path in (second.folder / "models").glob("*/model.json"):
        if "method" in json.loads(path.read_text()):
            shutil.rmtree(path.parent)
    rows = run_study(second, ["ascent"], lambda *each: None)["rows"]
    assert jobs == [f"ascent on model {i}" for i in range(16)]
    assert rows["ascent"]["attacks"] == result["rows"]["ascent"]["attacks"]


def test_a_crew_trains_models_of_which_only_the_number_is_sent(tmp_path) -> None:
    recipe = load(projects.recipe(tmp_path))
    recipe = replace(recipe, train=replace(recipe.train, steps=2, micro_batch=8))
    payloads: list[bytes] = []

    def crew(work):
        payloads.extend(pickle.dumps(job.arguments) for job in work)
        return ((job, job.function(*pickle.loads(pickle.dumps(job.arguments)))) for job in work)

    ours = ShadowStudy(recipe, 16, tmp_path / "kept", crew=crew)
    theirs = ShadowStudy(recipe, 16, tmp_path / "other")
    for kind in ("originals", "retrained_models"):
        pairs = zip(getattr(ours, kind), getattr(theirs, kind), strict=True)
        assert all(torch.equal(a.model[-1].weight, b.model[-1].weight) for a, b in pairs)
    assert len(payloads) == 32 and max(map(len, payloads)) < 10_000, "the data alone has 51 kB"


def test_nothing_is_made_twice_and_an_interruption_loses_the_running_model(made, monkeypatch) -> None:
    study, result, progress = made
    assert progress[-1] == ("finetune", 16, 16)
    contents = files(study.folder)
    second = ShadowStudy(study.recipe, 16, study.folder)
    assert run_study(second, ["ascent"], lambda *each: None)["rows"]["ascent"] == result["rows"]["ascent"]
    assert files(study.folder) == contents
    stopped_study = ShadowStudy(study.recipe, 16, study.folder)
    counts = []

    def stop(name: str, done: int, total: int) -> None:
        counts.append(done)
        if name == "neggrad+" and done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_study(stopped_study, ["neggrad+"], stop)
    assert len(files(study.folder)) == len(contents) + 2 * 3


def test_a_method_that_fails_keeps_its_row(made, monkeypatch) -> None:
    study, _, _ = made

    def fail(self, name: str, index: int):
        raise Failed(f"{name} on model {index}: NaN")

    monkeypatch.setattr(ShadowStudy, "unlearn", fail)
    result = run_study(study, ["salun"], lambda *each: None)
    assert result["rows"]["salun"] == {"failed": "salun on model 0: NaN"}
    assert summarize(result)[-1].split(maxsplit=1) == ["salun", "FAILED: salun on model 0: NaN"]


@pytest.mark.parametrize("models", [0, 14, 17])
def test_too_few_or_odd_models_are_refused(models: int, tmp_path) -> None:
    recipe = load(projects.recipe(tmp_path))
    with pytest.raises(ValueError, match=f"in pairs, at least 16 of them for U-LiRA, found {models}"):
        ShadowStudy(recipe, models, tmp_path)


def gaussian(seed: int, is_seen: np.ndarray, shift: float = 0.0) -> Population:
    """Models whose margins are Gaussian, higher by `shift` deviations where a target was seen."""
    rng = np.random.default_rng(seed)
    level = np.random.default_rng(99).normal(scale=2, size=is_seen.shape[1])
    margins = level + rng.normal(size=is_seen.shape) + shift * is_seen
    return Population(margins, 1 / (1 + np.exp(-rng.normal(scale=2, size=(len(is_seen), 60)))), Cost())


def test_the_floor_of_synthetic_evidence_is_one_half_and_a_shift_shows() -> None:
    is_seen = np.zeros((32, 200), dtype=bool)
    rng = np.random.default_rng(0)
    for pair in range(16):
        is_seen[2 * pair, rng.permutation(200)[:100]] = True
    is_seen[1::2] = ~is_seen[::2]
    floor, null, members = gaussian(1, is_seen), gaussian(2, is_seen), gaussian(3, is_seen, shift=1.0)
    by_shadows = [
        ulira(Shadows(each.margins, is_seen), Shadows(floor.margins, is_seen)) for each in (null, members)
    ]
    assert by_shadows[0]["accuracy"].value == pytest.approx(0.5, abs=0.02)
    assert by_shadows[1]["accuracy"].value == pytest.approx(0.69, abs=0.02)  # the best there is is 0.691
    by_ratio = [rmia_of(is_seen, each, floor, members)["auc"] for each in (null, members)]
    assert by_ratio[0].value == pytest.approx(0.5, abs=0.02)
    assert by_ratio[0].null_band[0] <= by_ratio[0].value <= by_ratio[0].null_band[1]
    is_seen_of_few = is_seen[:, :12]
    populations = [replace(each, margins=each.margins[:, :12]) for each in (members, floor, members)]
    assert rmia_of(is_seen_of_few, *populations).keys() == {"auc"}, "six others allow no rate of one in ten"
    assert by_ratio[1].value > 0.65 and by_ratio[1].original == pytest.approx(by_ratio[1].value)


def test_an_interval_over_models_and_targets_holds_what_targets_differ_in() -> None:
    is_seen = np.random.default_rng(0).random((16, 60)) < 0.5

    def study(seed: int) -> np.ndarray:  # each target has its own shift
        rng = np.random.default_rng(seed)
        return rng.normal(size=is_seen.shape) + (0.5 + rng.normal(size=60)) * is_seen

    def interval(scores: np.ndarray) -> tuple[float, float]:
        draw = partial(resampled_mean, area, scores, is_seen)
        return two_way_bootstrap(is_seen.shape, draw, np.random.default_rng(0), resamples=100)

    studies = [study(seed) for seed in range(20)]
    values, intervals = [mean_over_models(area, each, is_seen) for each in studies], [*map(interval, studies)]
    is_covered = [low <= np.mean(values) <= high for low, high in intervals]
    assert sum(is_covered) >= 17 and np.mean([high - low for low, high in intervals]) < 8 * np.std(values)
    assert math.isnan(area(np.zeros(3), np.ones(3, dtype=bool)))
    assert math.isnan(rate(np.zeros(12), np.arange(12) < 6))


def test_rows_of_each_target_are_of_the_models_that_saw_it() -> None:
    is_seen = np.array([[True, False], [False, True], [False, True], [True, False]])
    margins = np.arange(8.0).reshape(4, 2)
    assert unlearned_rows(margins, is_seen).tolist() == [[0.0, 3.0], [6.0, 5.0]]


def test_a_part_of_a_source_is_read_by_its_own_numbers(made) -> None:
    source = made[0].split.train
    part = PartOfSource(source, torch.tensor([7, 3, 5]))
    (batch,) = part.stream([torch.tensor([2, 0])])
    (source_batch,) = source.stream([torch.tensor([5, 7])])
    assert torch.equal(batch.inputs[0], source_batch.inputs[0]) and batch.ids.tolist() == [2, 0]
    assert torch.equal(batch.label, source_batch.label) and len(part) == 3
    stream = part.stream(repeat(torch.tensor([1])))
    assert [next(stream).label.tolist() for _ in range(2)] == [[int(source.labels[3])]] * 2
    assert part.digest() != PartOfSource(source, torch.tensor([3, 7, 5])).digest()
    assert replace(part).digest() == part.digest()


def test_the_command_refuses_an_unknown_method_before_it_trains(tmp_path, monkeypatch) -> None:
    script = str(ROOT / "benchmarks" / "shadows.py")
    monkeypatch.setattr(sys, "argv", [script, "--methods", "nothing", "--out", str(tmp_path / "out")])
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    with pytest.raises(ValueError, match="unknown method 'nothing'"):
        runpy.run_path(script, run_name="__main__")
    assert not (tmp_path / "out").exists()
