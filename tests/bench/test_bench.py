"""The benchmark: its record is what its cells measured, and an interrupted run goes on where it stopped."""

import json
import multiprocessing
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.tiny import METHODS, Drift, tiny, with_drift
from unweave.audits.classifier import deep_unlearn, parquet
from unweave.audits.classifier.collect import collect
from unweave.audits.classifier.exam import EDGES
from unweave.audits.classifier.metrics import METRICS, measure
from unweave.audits.metrics import mean_gap
from unweave.bench import cache, cell, stage_record
from unweave.bench.bench import bench, limit_seeds, select_methods
from unweave.bench.cache import file_name
from unweave.bench.curves import mean_curve, mean_trace
from unweave.bench.paired_seeds import comparisons
from unweave.bench.peak_memory import STATUS, peak_memory
from unweave.bench.split_data import make_split
from unweave.bench.stage import Stage
from unweave.bench.stage_jobs import calibration_jobs, seed_jobs, training_jobs
from unweave.bench.stage_record import headline_method
from unweave.bench.workers import Job, Progress, run_jobs, run_serially, workers
from unweave.descent.train import train_model
from unweave.errors import Failed
from unweave.record import record

PUBLISHED = (*deep_unlearn.RETENTIONS, "indiscernibility", "t_mia")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> tuple[Path, dict]:
    """A finished benchmark, with a method that can't run on this model."""
    folder = tmp_path_factory.mktemp("bench")
    return folder, bench([tiny()], folder, methods=[*METHODS, "ct", "retrain"], jobs=1)


def cells(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in sorted((folder / "cells").rglob("*.*"))
    }


def test_the_record_on_disk_is_valid_and_the_one_returned(run, tmp_path) -> None:
    folder, content = run
    record.load(folder)
    assert record.write(content, tmp_path).read_bytes() == (folder / record.FILE).read_bytes()


def test_it_says_on_which_kind_of_device_each_cell_ran(run) -> None:
    folder, content = run
    stage = content["stages"]["tiny"]
    kind = content["environment"]["processor"]
    for row in (stage["reference"], *stage["methods"].values()):
        assert row["ran_on"] == [kind, kind]
    cell = json.loads((folder / "cells" / "tiny" / "1" / "original.json").read_text())
    assert cell["ran_on"] == kind


def test_cells_of_earlier_versions_do_not_say_where_they_ran() -> None:
    assert stage_record.devices_row([{"ran_on": "a"}, {"ran_on": "b"}]) == {"ran_on": ["a", "b"]}
    assert stage_record.devices_row([{"ran_on": "a"}, {}]) == {}


def test_its_figures_are_those_of_models_trained_by_hand(run) -> None:
    _, content = run
    recipe = tiny()
    split = make_split(recipe.data)
    cuts = {part: split.part(part) for part in ("forget", "retain", "calibration", "test")}

    def evidence(part: str, seed: int):
        trained = train_model(recipe.train, lambda: recipe.build(10), split, part, seed)
        return collect(trained.model, cuts, device="cpu")

    references = [evidence("retain", seed) for seed in (0, 1)]
    originals = [
        measure(evidence("mixed", seed), other) for seed, other in zip((0, 1), references, strict=True)
    ]
    values = [measure(each) for each in references]
    stage = content["stages"]["tiny"]
    for name in ("ua", "ra", "ta", "mia", "auc"):
        assert stage["reference"]["scores"][name]["value"] == np.mean([each[name] for each in values])
    row = stage["methods"]["original"]
    assert row["scores"]["tv"]["value"] == np.mean([each["tv"] for each in originals])
    gaps = [mean_gap(one, other, METRICS) for one, other in zip(originals, values, strict=True)]
    assert row["gap"]["mean"] == pytest.approx(np.mean(gaps), abs=1e-12)
    assert row["gap"]["of_means"] <= row["gap"]["mean"] + 1e-12
    assert np.mean(list(row["gap"]["parts"].values())) == pytest.approx(row["gap"]["mean"], abs=1e-12)


def test_figures_per_seed_average_to_the_rows_and_are_those_of_the_logits_on_disk(run) -> None:
    folder, content = run
    stage = content["stages"]["tiny"]
    for name, row in stage["methods"].items():
        assert ("per_seed" in row) == (row["failed"] is None)
        if row["failed"] is None:
            per_seed = row["per_seed"]
            assert np.mean(per_seed["gap"]) == row["gap"]["mean"]
            assert (
                np.mean(per_seed["seconds"]) == row["seconds"] and np.median(per_seed["cost"]) == row["cost"]
            )
            assert all(np.mean(per_seed[metric]) == each["value"] for metric, each in row["scores"].items())
            for i, seed in enumerate(stage["seeds"]):
                cells = folder / "cells" / "tiny" / str(seed)
                pair = [parquet.load(cells / f"{file_name(each)}.parquet") for each in (name, "retrained")]
                assert deep_unlearn.figures(*pair) == {key: per_seed[key][i] for key in PUBLISHED}


def test_a_method_that_fails_is_a_row_that_says_why_and_the_rest_goes_on(run) -> None:
    methods = run[1]["stages"]["tiny"]["methods"]
    assert list(methods) == [name for name in tiny().methods if name in methods]
    assert "square convolution kernels" in methods["ct"]["failed"] and methods["ct"]["verdict"] == "FAIL"
    assert "2 of 2 seeds" in methods["ct"]["failed"] and methods["ct"]["scores"] == {}
    assert all(row["failed"] is None for name, row in methods.items() if name != "ct")


def test_a_method_for_classes_alone_fails_on_other_requests_before_any_compute(tmp_path) -> None:
    rows = bench([tiny()], tmp_path, methods=["unsir", "finetune"], jobs=1)["stages"]["tiny"]["methods"]
    assert "UNSIR forgets whole classes" in rows["unsir"]["failed"]
    assert rows["unsir"]["gradient_evaluations"] == 0 and rows["unsir"]["verdict"] == "FAIL"
    assert rows["finetune"]["failed"] is None and rows["finetune"]["gradient_evaluations"] == 6


def test_short_retrain_gets_the_budget_of_the_recipe(run) -> None:
    stage = run[1]["stages"]["tiny"]
    assert stage["reference"]["gradient_evaluations"] == 40
    assert stage["methods"]["short-retrain"]["gradient_evaluations"] == 0.5 * 40
    assert "frontier" not in run[1], "one budget has none"


def test_the_headlines_conflict_is_probed_and_its_cell_alone_hangs_on_that(tmp_path) -> None:
    recipe, names = tiny(seeds=[0], calibration_seeds=[]), ["lur:recover", "finetune"]
    bench([recipe], tmp_path, methods=names, jobs=1)
    contents = cells(tmp_path)
    rows = bench([replace(recipe, probe=2)], tmp_path, methods=names, jobs=1)["stages"]["tiny"]["methods"]
    assert [step for step, *_ in rows["lur:recover"]["trace"]["cosine"]][:3] == [0, 2, 4]
    assert "cosine" not in rows["finetune"]["trace"]
    changes = {
        Path(name).name.split(".")[0]
        for name, content in cells(tmp_path).items()
        if contents[name] != content
    }
    assert changes == {file_name("lur:recover")}


def test_a_report_opens_with_the_headline_or_else_the_first_method_that_is_no_reference() -> None:
    assert headline_method(("lur", "original", "lur:recover"), "lur:recover") == "lur:recover"
    assert headline_method(("original", "salun:recover"), "lur:recover") == "salun:recover"
    assert headline_method(("original",), "lur:recover") == "original"


def test_all_methods_are_the_headline_and_those_of_the_recipe() -> None:
    recipe = tiny(methods={})
    assert select_methods(recipe, None) == ("lur:recover", *recipe.methods)


def test_two_seeds_get_no_verdict(run) -> None:
    for name, row in run[1]["stages"]["tiny"]["methods"].items():
        if name != "ct":
            assert row["reason"].startswith("INCONCLUSIVE: no verdict: 2 seeds, 10 needed")


def test_a_partial_run_gets_no_verdict_and_says_so(tmp_path) -> None:
    stage = bench([tiny().with_short_training(3, limit=300)], tmp_path, methods=["original"], jobs=1)[
        "stages"
    ]["tiny"]
    assert stage["partial"] is True and stage["recipe"]["train"]["steps"] == 3
    assert stage["methods"]["original"]["verdict"] == "INCONCLUSIVE"


def test_every_loss_is_counted_once(run) -> None:
    stage = run[1]["stages"]["tiny"]
    sizes = dict.fromkeys(stage["histograms"], stage["data"]["forget"]) | {"calibration": 180}
    for name, histogram in stage["histograms"].items():
        assert sum(histogram["counts"]) == 2 * sizes[name]
        assert histogram["edges"] == EDGES.tolist()


def test_a_finished_run_is_read_and_not_repeated(run) -> None:
    folder, content = run
    times = {path: path.stat().st_mtime_ns for path in (folder / "cells").rglob("*.*")}
    second = bench([tiny()], folder, methods=[*METHODS, "ct", "retrain"], jobs=1)
    assert {path: path.stat().st_mtime_ns for path in (folder / "cells").rglob("*.*")} == times
    assert json.dumps(second["stages"]) == json.dumps(content["stages"])


def test_a_changed_setting_repeats_that_method_alone(run, tmp_path) -> None:
    folder, _ = run
    recipe = tiny(methods={"finetune": {"how": {"steps": 7}}})
    recipe = replace(recipe, methods={**tiny().methods, "finetune": recipe.methods["finetune"]})
    contents = cells(folder)
    bench([recipe], folder, methods=[*METHODS, "ct", "retrain"], jobs=1)
    changes = {name for name, content in cells(folder).items() if contents.get(name) != content}
    assert {Path(name).name.split(".")[0] for name in changes} == {"finetune"} and len(changes) == 6
    bench([tiny()], folder, methods=[*METHODS, "ct", "retrain"], jobs=1)


@pytest.mark.parametrize("number", ["METHODS_FORMAT", "MEASURING_FORMAT"])
def test_under_a_raised_number_cells_are_run_or_measured_again(run, tmp_path, monkeypatch, number) -> None:
    folder = shutil.copytree(run[0], tmp_path / "bench")
    contents, models = cells(folder), sorted((folder / "models").iterdir())
    for module in (cell, stage_record):
        monkeypatch.setattr(module, number, getattr(cell, number) + 1, raising=module is cell)
    bench([tiny()], folder, methods=[*METHODS, "ct", "retrain"], jobs=1)
    runs = {
        name
        for name in contents
        if Path(name).name in {f"{file_name(each)}.json" for each in (*METHODS, "retrained")}
    }
    measurements = {name for name in contents if name.endswith(".values.json")}
    changes = {name for name, content in cells(folder).items() if contents[name] != content}
    assert measurements <= changes and len(runs) == 2 * len(METHODS) + 4
    assert runs <= changes if number == "METHODS_FORMAT" else not runs & changes
    assert sorted((folder / "models").iterdir()) == models


def test_a_run_that_was_stopped_goes_on_where_it_was(run, tmp_path) -> None:
    def stop(progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench([tiny()], tmp_path, methods=["lur", "finetune"], jobs=1, listener=stop)
    finished_cells = cells(tmp_path)
    assert {Path(name).parts[2] for name in finished_cells} == {"0"} and not (tmp_path / record.FILE).exists()
    resumed_content = bench([tiny()], tmp_path, methods=["lur", "finetune"], jobs=1)
    assert {
        name: content for name, content in cells(tmp_path).items() if name in finished_cells
    } == finished_cells
    for name, row in resumed_content["stages"]["tiny"]["methods"].items():
        scores = run[1]["stages"]["tiny"]["methods"][name]["scores"]
        assert record.to_json_values(row["scores"]) == record.to_json_values(
            scores
        )  # two seeds have no interval, but NaN


def test_a_full_disk_loses_nothing_that_was_finished(tmp_path, monkeypatch) -> None:
    recipe = tiny(seeds=[0], calibration_seeds=[])

    def full(evidence: object, path: Path) -> None:
        if path.name == "finetune.parquet":
            raise OSError(28, "No space left on device")
        save(evidence, path)

    save = parquet.save
    monkeypatch.setattr(parquet, "save", full)
    with pytest.raises(OSError, match="No space left"):
        bench([recipe], tmp_path, methods=["lur", "finetune"], jobs=1)
    finished_cells = cells(tmp_path)
    names = {Path(name).name.split(".")[0] for name in finished_cells}
    assert {"original", "retrained", "lur"} <= names and "finetune" not in names
    assert not list(tmp_path.rglob(".*"))
    monkeypatch.setattr(parquet, "save", save)
    bench([recipe], tmp_path, methods=["lur", "finetune"], jobs=1)
    assert {
        name: content for name, content in cells(tmp_path).items() if name in finished_cells
    } == finished_cells


def test_answers_of_an_unfinished_cell_are_not_those_of_an_earlier_one(tmp_path, monkeypatch) -> None:
    stage, other_stage = Stage(tiny(), tmp_path), Stage(tiny(methods={}), tmp_path)
    model = stage.load_or_train("mixed", 0).model
    cell.run_method(stage, lambda: model, 0, "finetune", {})
    answers = cell.cell_path(stage, 0, "finetune").with_name("finetune.parquet")
    content = answers.read_bytes()

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cache, "write_atomically", stop)
        with pytest.raises(KeyboardInterrupt):
            cell.run_method(other_stage, lambda: model, 0, "finetune", {})
    assert answers.read_bytes() != content
    cell.run_method(stage, lambda: model, 0, "finetune", {})
    assert answers.read_bytes() == content


@pytest.mark.usefixtures("forked_workers")
def test_two_processes_find_what_one_found(run, tmp_path) -> None:
    ours, _ = run
    progress: list[Progress] = []
    bench([tiny()], tmp_path, methods=METHODS, jobs=2, listener=progress.append)
    paths = list((tmp_path / "cells").rglob("*.parquet"))
    assert len(paths) == 2 * (len(METHODS) + 2) + 2
    for path in paths:
        one, other = parquet.load(path), parquet.load(ours / path.relative_to(tmp_path))
        assert all(np.array_equal(one.logits[part], other.logits[part]) for part in one.logits)
    assert [(each.done, each.total) for each in progress] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert not multiprocessing.active_children()


@pytest.mark.usefixtures("forked_workers")
def test_ctrl_c_ends_the_processes() -> None:
    def interrupted() -> None:
        with workers(2) as crew:
            assert sorted(result for _, result in crew([Job("x", abs, (-1,)), Job("y", abs, (-2,))])) == [
                1,
                2,
            ]
            assert len(multiprocessing.active_children()) == 2
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not multiprocessing.active_children()


def test_jobs_are_told_as_they_end_and_errors_come_through() -> None:
    progress: list[Progress] = []
    jobs = [Job("one", divmod, (7, 2)), Job("two", divmod, (1, 0))]
    results = run_jobs(run_serially, jobs, progress.append)
    assert next(results)[1] == (3, 1) and progress == [Progress("one", 1, 2)]
    with pytest.raises(ZeroDivisionError):
        next(results)
    with pytest.raises(ValueError, match="jobs must be at least 1, found 0"), workers(0):
        pass


def test_bad_requests_are_refused_before_anything_runs(tmp_path) -> None:
    with pytest.raises(ValueError, match="unknown method 'lurr'"):
        bench([tiny()], tmp_path / "a", methods=["lurr"])
    with pytest.raises(ValueError, match="seeds must be in 1..2 .* found 3"):
        bench([tiny()], tmp_path / "a", seeds=3)
    with pytest.raises(ValueError, match="each recipe can be run once at a budget, found tiny, tiny"):
        bench([tiny(), tiny()], tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_seeds_and_methods_are_those_asked_for() -> None:
    assert limit_seeds(tiny(), 1).seeds == (0,)
    assert select_methods(tiny(), ["salun", "lur"]) == ("lur", "salun", "original")
    stage = Stage(tiny(), Path())
    names = [job.label for job in (*seed_jobs(stage, ("lur",)), *calibration_jobs(stage))]
    assert names == ["tiny, seed 0", "tiny, seed 1", "tiny, retrain 100", "tiny, retrain 101"]


def test_logits_that_are_no_numbers_fail_by_name(tmp_path) -> None:
    content = bench([with_drift(Drift(fate="nan"))], tmp_path, methods=["finetune"], jobs=1)
    row = content["stages"]["tiny"]["methods"]["finetune"]
    assert row["verdict"] == "FAIL" and "NaN" in row["reason"]


def test_an_original_without_numbers_ends_the_run_before_any_method(tmp_path, monkeypatch) -> None:
    load_or_train = Stage.load_or_train

    def broken(stage: Stage, part: str, seed: int):
        trained = load_or_train(stage, part, seed)
        if part == "mixed":
            torch.nn.init.constant_(next(trained.model.parameters()), float("nan"))
        return trained

    monkeypatch.setattr(Stage, "load_or_train", broken)
    with pytest.raises(Failed, match="the original of seed 0 failed: "):
        bench([tiny()], tmp_path, methods=["finetune"], jobs=1)
    assert not list(tmp_path.glob("cells/*/*/finetune*"))


def test_curves_are_averaged_over_the_seeds_with_the_same_steps() -> None:
    first = {"cosine": [[0, 0.25, 1.0], [5, float("nan"), 0.5]], "loss": [[0, 2.0, None]]}
    other = {"cosine": [[0, 0.75, 0.0], [5, 0.5, None]], "loss": [[1, 9.0, None]]}
    assert mean_trace([first, other])["cosine"] == [[0, 0.5, 0.5], [5, 0.5, 0.5]]
    (loss,) = mean_trace([first, other])["loss"]
    assert loss[:2] == [0, 2.0] and np.isnan(loss[2])
    assert mean_curve([[[3, 1.0, 2.0]]]) == [[3, 1.0, 2.0]]


def test_a_comparison_says_who_is_closer() -> None:
    def values(gap: float, tv: float) -> dict[str, float]:
        return {"ua": gap, "ra": gap, "ta": gap, "mia": gap, "tv": tv}

    references = [values(0, 0)] * 6
    values_by_method = {"lur": [values(1, 0.1)] * 6, "salun": [values(-3 - seed, 0.1) for seed in range(6)]}
    assert comparisons(values_by_method, references, "finetune", METRICS, "tv") == [], "it did not run"
    gap, tv = comparisons(values_by_method, references, "lur", METRICS, "tv")
    assert (gap["first"], gap["second"], gap["metric"]) == ("lur", "salun", "gap")
    # six pairs, all with the same sign: the exact two-sided p of the signed-rank test is 2 / 2^6
    assert gap["difference"] == pytest.approx(1 - 5.5) and gap["p"] == gap["p_holm"] == pytest.approx(2 / 64)
    assert (tv["metric"], tv["difference"], tv["p"]) == ("tv", 0.0, 1.0)


@pytest.mark.skipif(not STATUS.exists(), reason="only Linux tells a process its peak memory")
def test_the_peak_is_that_of_the_body_alone() -> None:
    with peak_memory("cpu") as first_peak:
        pass
    with peak_memory("cpu") as peak_of_body:
        np.ones(2**23)  # 64 MiB, touched
    with peak_memory("cpu") as last_peak:
        pass
    assert first_peak.mib is not None and peak_of_body.mib is not None and last_peak.mib is not None
    assert 60 < peak_of_body.mib - first_peak.mib < 100
    assert abs(last_peak.mib - first_peak.mib) < 30


def test_stages_that_forget_classes_of_the_same_data_share_their_original(tmp_path) -> None:
    data = {"name": "digits", "forget": "class"}
    one, two = (tiny(name=str(label), seeds=[0], data={**data, "label": label}) for label in (1, 2))
    other = replace(two, name="other", data=replace(two.data, seed=5))
    stages = [Stage(each, tmp_path) for each in (one, two, other)]
    assert [job.label.split(" of ")[0] for job in training_jobs(stages)] == [
        "1, original", "1, retrained model", "2, retrained model", "other, original", "other, retrained model"
    ]  # fmt: skip
    assert training_jobs([Stage(tiny(), tmp_path)]) == []
