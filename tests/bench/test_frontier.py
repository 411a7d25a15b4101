"""The frontier says what a record's stages of several budgets say, and `bench` makes those stages."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_rel

from bench.tiny import tiny
from pages import ROOT, table
from records import MARGINS, at_budgets, put
from unweave.bench.bench import bench
from unweave.bench.cell import cell_path
from unweave.bench.frontier import (
    PAIRS,
    cost_of_pass,
    differences,
    frontier,
    margin_of_gap,
    paired_difference,
)
from unweave.bench.recipe import Recipe, load, parse
from unweave.bench.stage import Stage
from unweave.bench.study import study_from
from unweave.bench.verify_figures import refuse_disproved
from unweave.bench.verify_frontier import stages_by_budget
from unweave.methods import METHODS
from unweave.record import record
from unweave.report.frontier import conclusion, grid, paired_grid
from unweave.report.numbers import number

VERDICTS = st.sampled_from(["PASS", "FAIL", "INCONCLUSIVE"])
BUDGETS = (0.1, 0.3)


@given(st.dictionaries(st.floats(0.01, 1), VERDICTS, max_size=6))
def test_from_the_cost_of_a_pass_on_all_pass_and_no_smaller_budget_would_do(verdicts) -> None:
    cost = cost_of_pass(verdicts)
    budgets = sorted(verdicts)
    passing_budgets = [each for each in budgets if all(verdicts[b] == "PASS" for b in budgets if b >= each)]
    assert cost == (passing_budgets[0] if passing_budgets else None)


def test_a_pass_below_a_failure_costs_what_lies_above_it() -> None:
    assert cost_of_pass({0.6: "PASS", 0.1: "PASS", 0.2: "INCONCLUSIVE", 0.3: "PASS"}) == 0.3
    assert cost_of_pass({0.1: "PASS", 0.3: "FAIL"}) is None and cost_of_pass({}) is None


@given(st.lists(st.tuples(st.floats(0, 50), st.floats(0, 50)), min_size=3, max_size=10))
def test_a_paired_difference_is_that_of_the_paired_t_test(pairs) -> None:
    ours, theirs = map(list, zip(*pairs, strict=True))
    result = paired_difference(ours, theirs)
    assert result["difference"] == pytest.approx(np.mean(ours) - np.mean(theirs), abs=1e-9)
    if np.std(np.subtract(ours, theirs)) > 1e-6:
        low, high = ttest_rel(ours, theirs).confidence_interval()
        assert (result["low"], result["high"]) == (
            pytest.approx(low, abs=1e-6),
            pytest.approx(high, abs=1e-6),
        )
    opposite = paired_difference(theirs, ours)
    assert opposite["low"] == pytest.approx(-result["high"], abs=1e-9)


def test_a_paired_difference_of_fewer_than_three_seeds_has_no_interval() -> None:
    for ours, theirs in (([4.0], [1.0]), ([4.0, 2.0], [1.0, 9.0])):
        result = paired_difference(ours, theirs)
        assert result["difference"] == pytest.approx(np.mean(ours) - np.mean(theirs))
        assert result["low"] is None and result["high"] is None
    few_seeds = stages()
    for stage in few_seeds.values():
        for row in stage["methods"].values():
            if row["failed"] is None:
                row["per_seed"]["gap"] = row["per_seed"]["gap"][:2]
    curves = frontier(few_seeds)
    _, lines = paired_grid(curves)
    cells = [cell for line in lines for cell in line[1:]]
    assert cells and cells == [number(row["difference"]) for row in curves["paired"]]


def stages() -> dict[float, dict]:
    """The stages of a synthetic record by budget."""
    content = at_budgets(0.6, 0.1, 0.3)
    return {float(name.rpartition("@")[2]): stage for name, stage in content["stages"].items()}


def test_a_frontier_is_what_its_stages_say_in_the_order_of_budgets() -> None:
    curves = frontier(stages())
    assert curves["budgets"] == [0.1, 0.3, 0.6] and curves["floor"] == 1.23
    assert curves["methods"].keys() == stages()[0.1]["methods"].keys() - {"original", "retrain"}
    lur = curves["methods"]["lur"]
    assert lur["cost_of_pass"] == 0.3 and curves["methods"]["joint"]["cost_of_pass"] is None
    for point in lur["points"]:
        row = stages()[point["budget"]]["methods"]["lur"]
        assert point["gap"]["mean"] == row["gap"]["mean"] and point["verdict"] == row["verdict"]
        assert point["gradient_evaluations"] == pytest.approx(point["budget"])
        assert point["seconds"] == row["cost"] == pytest.approx(1.2 * point["budget"])
    assert curves["original"] == stages()[0.1]["methods"]["original"]["gap"]["mean"]


def test_a_method_that_failed_stays_and_passes_nowhere() -> None:
    method = frontier(stages())["methods"]["diverged"]
    assert method["cost_of_pass"] is None and all("NaN" in point["failed"] for point in method["points"])


def test_a_pass_beyond_the_budget_does_not_count() -> None:
    by_budget = stages()
    assert frontier(by_budget)["methods"]["lur"]["cost_of_pass"] == 0.3
    by_budget[0.3]["methods"]["lur"]["gradient_evaluations"] *= 1.08
    assert frontier(by_budget)["methods"]["lur"]["cost_of_pass"] == 0.3, "what is measured first is small"
    by_budget[0.3]["methods"]["lur"]["gradient_evaluations"] *= 1.5
    curves = frontier(by_budget)
    assert curves["methods"]["lur"]["cost_of_pass"] == 0.6
    curve_of_lur = {**curves, "methods": {"lur": curves["methods"]["lur"]}}
    assert str(conclusion(curve_of_lur)).startswith("At 60 %")
    header, lines = grid(curves)
    (row,) = (line for line in lines if line[0] == "lur")
    assert row[header.index("0.3")].endswith(" P+") and row[header.index("0.6")].endswith(" P")


def test_the_margin_of_the_gap_is_that_of_its_parts_and_of_mia_as_retrained_models_differ() -> None:
    stage = stages()[0.1]
    low, high = stage["reference"]["null_band"]["mia"]
    parts = [MARGINS["ua"], MARGINS["ra"], MARGINS["ta"], 1.5 * (high - low) / 2]
    assert margin_of_gap(stage) == pytest.approx(sum(parts) / 4)
    assert margin_of_gap({**stage, "margins": None}) is None


def test_methods_are_paired_where_both_ran() -> None:
    by_budget = stages()
    rows = differences("lur", "joint", by_budget)
    assert [row["budget"] for row in rows] == list(by_budget)
    gaps = [by_budget[0.3]["methods"][name]["per_seed"]["gap"] for name in ("lur", "joint")]
    assert rows[list(by_budget).index(0.3)]["difference"] == pytest.approx(
        np.mean(gaps[0]) - np.mean(gaps[1])
    )
    assert differences("lur", "diverged", by_budget) == [] and differences("lur", "absent", by_budget) == []
    pairs = {(row["first"], row["second"]) for row in frontier(by_budget)["paired"]}
    assert pairs == {("lur", "joint"), ("lur-exact", "joint"), ("lur-match", "joint-match")}


def test_a_match_of_each_kind_is_paired_with_one_without_a_lookahead() -> None:
    kinds = [pair for pair in PAIRS if "match" in pair[0]]
    assert kinds == [
        ("lur-match", "joint-match"),
        ("lur-match:recover", "joint-match:recover"),
        ("shrink-perturb:lur-match:recover", "shrink-perturb:joint-match:recover"),
    ]


def test_a_method_that_ran_at_one_of_several_budgets_has_no_curve() -> None:
    by_budget = stages()
    for budget in (0.1, 0.6):
        del by_budget[budget]["methods"]["joint"]
    curves = frontier(by_budget)
    assert "joint" not in curves["methods"]
    assert {row["first"] for row in curves["paired"]} == {"lur-match"}
    assert "joint" in frontier({0.3: by_budget[0.3]})["methods"], "one budget is all there is"


def test_without_the_cost_of_a_retraining_there_is_no_relative_one() -> None:
    by_budget = stages()
    del by_budget[0.1]["reference"]["gradient_evaluations"]
    first, *points = frontier(by_budget)["methods"]["lur"]["points"]
    assert first["gradient_evaluations"] is None and all(point["gradient_evaluations"] for point in points)


def test_the_schema_takes_a_frontier_and_names_what_is_wrong_in_one() -> None:
    content = at_budgets(0.1, 0.3)
    record.validate(content)
    with pytest.raises(ValueError, match="frontier.trace.methods.lur.cost_of_pass does not follow"):
        record.validate(put(content, "frontier", "trace", "methods", "lur", "cost_of_pass", value="none"))


def make_recipe(**changes: object) -> Recipe:
    """The tiny recipe at two budgets, searched on one seed."""
    return tiny(**{"tuning": {"budgets": list(BUDGETS), "seeds": [1000]}, **changes})


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> tuple[Path, dict]:
    """A finished benchmark at two budgets."""
    folder = tmp_path_factory.mktemp("frontier")
    return folder, bench([make_recipe()], folder, methods=["lur", "joint", "short-retrain"], jobs=1, tune=2)


def test_every_budget_is_a_stage_with_searches_within_it(run) -> None:
    folder, content = run
    record.load(folder)
    assert list(content["stages"]) == ["tiny@0.1", "tiny@0.3"]
    for budget, stage in zip(BUDGETS, content["stages"].values(), strict=True):
        assert stage["tuned"]["budget"] == stage["recipe"]["tuning"]["budget"] == budget
        assert stage["methods"]["short-retrain"]["gradient_evaluations"] == budget * 40
        costs = [trial["gradient_evaluations"] for trial in stage["search"]["lur"]]
        assert all(0 < each <= budget * 40 + 4 for each in costs), "and four that measure"
        parsed_recipe = parse(json.loads(json.dumps(stage["recipe"])))
        assert parsed_recipe.tuning.largest_budget == budget and parsed_recipe.tuning.budgets == BUDGETS
    assert {path.name for path in (folder / "tuning").glob("*.toml")} == {"tiny@0.1.toml", "tiny@0.3.toml"}


def test_a_larger_budget_knows_the_best_trial_of_the_smaller_one(run) -> None:
    folder, content = run
    small, large = content["stages"].values()
    assert small["tuned"]["trials"] == large["tuned"]["trials"] == 2
    searches = dict(large["search"])
    assert len(searches.pop("short-retrain")) == 2, "a longer training is another one"
    for name, (start, *trials) in searches.items():
        assert start == {**study_from(small["search"][name]).best_trial, "budget": 0.1} and len(trials) == 2
    second = bench([make_recipe()], folder / "again", methods=["lur"], jobs=1, tuned=folder / "tuning")
    assert second["stages"]["tiny@0.3"]["search"]["lur"] == large["search"]["lur"]


def test_the_order_of_the_budgets_changes_nothing(run, tmp_path) -> None:
    _, content = run
    reversed_recipe = make_recipe(tuning={"budgets": list(reversed(BUDGETS)), "seeds": [1000]})
    second = bench([reversed_recipe], tmp_path, methods=["joint"], jobs=1, tune=2)
    for name, stage in second["stages"].items():
        logs = (each["search"]["joint"] for each in (stage, content["stages"][name]))
        ours, theirs = ([(trial["settings"], trial["value"]) for trial in log] for log in logs)
        assert ours == theirs, name


def test_the_record_has_their_frontier(run) -> None:
    _, content = run
    assert content["frontier"].keys() == {"tiny"}
    stages = dict(zip(BUDGETS, content["stages"].values(), strict=True))
    assert content["frontier"]["tiny"] == frontier(stages)
    points = content["frontier"]["tiny"]["methods"]["short-retrain"]["points"]
    assert [point["gradient_evaluations"] for point in points] == pytest.approx(list(BUDGETS))


def test_stages_share_models_and_the_cells_that_no_budget_changes(run) -> None:
    folder, _ = run
    cells = folder / "cells"
    assert {path.name for path in cells.iterdir()} == {"tiny", "tiny@0.1", "tiny@0.3"}
    files = {path.name.partition(".")[0] for path in (cells / "tiny" / "0").iterdir()}
    assert files == {"original", "retrained"}
    assert {path.name for path in (cells / "tiny@0.1").iterdir()} == {"0", "1"}
    seeds, tuning = 2 * 2 + 2, 3  # originals and references, calibration; a tuning seed has two references
    assert len(list((folder / "models").iterdir())) == seeds + tuning


def test_what_budgets_share_is_made_before_a_second_one_begins(tmp_path) -> None:
    labels: list[str] = []
    bench(
        [make_recipe(), make_recipe(name="other")],
        tmp_path,
        methods=["original"],
        jobs=1,
        tune=1,
        listener=lambda progress: labels.append(progress.label),
    )
    made_labels = [label for label in labels if "tuning" not in label]
    names = [
        [f"{name}@{budget}, seed {seed}" for seed in (0, 1)]
        for budget in BUDGETS
        for name in ("tiny", "other")
    ]
    retrains = [[f"{name}, retrain {seed}" for seed in (100, 101)] for name in ("tiny", "other")]
    assert made_labels == [*names[0], *retrains[0], *names[1], *retrains[1], *names[2], *names[3]]


def test_one_more_budget_leaves_what_is_finished(run) -> None:
    folder, _ = run
    files = [*(folder / "cells").rglob("*.json"), *(folder / "tuning").rglob("*.json")]
    times = {path: path.stat().st_mtime_ns for path in files}
    more = make_recipe(tuning={"budgets": [0.1, 0.3, 0.5], "seeds": [1000]})
    content = bench([more], folder, methods=["lur", "joint", "short-retrain"], jobs=1, tune=2)
    assert {path: path.stat().st_mtime_ns for path in files} == times
    assert content["frontier"]["tiny"]["budgets"] == [0.1, 0.3, 0.5]


def test_an_earlier_search_is_taken_for_each_budget(run, tmp_path) -> None:
    folder, content = run
    second = bench([make_recipe()], tmp_path, methods=["joint"], jobs=1, tuned=folder / "tuning")
    for name, stage in second["stages"].items():
        assert stage["search"]["joint"] == content["stages"][name]["search"]["joint"]


def test_budgets_without_a_search_are_refused_before_anything_runs(tmp_path) -> None:
    with pytest.raises(ValueError, match="found 0.1, 0.3 of 'tiny' and no search: give --tune"):
        bench([make_recipe()], tmp_path / "a", methods=["joint"])
    assert not (tmp_path / "a").exists()


@pytest.fixture
def settings(tmp_path) -> Path:
    """A folder with the tiny recipe, and settings of two methods within a budget of 0.1 and one of 0.3."""
    table = tiny().table()
    data, train = table["data"], table["train"]
    recipe = f"""
        seeds = [0, 1]
        calibration_seeds = [100, 101]
        tuning.budget = 0.2
        data = {{ name = "digits", limit = {data["limit"]}, noise = {data["noise"]} }}
        model = {{ name = "mlp", settings = {{ hidden = 16 }} }}
        train = {{ lr = {train["lr"]}, steps = {train["steps"]}, batch = {train["batch"]} }}
        methods.finetune.how.steps = 5
        methods.joint.how.steps = 5
    """
    (tmp_path / "tiny.toml").write_text(recipe)
    (tmp_path / "tiny@0.1.toml").write_text("[methods]\nfinetune.how.steps = 4\nshort-retrain.how.lr = 0.3")
    (tmp_path / "tiny@0.3.toml").write_text("[methods]\nfinetune.how.steps = 12")
    return tmp_path


def test_a_recipe_with_settings_at_budgets_needs_no_search(settings) -> None:
    recipes = [load(settings / f"{name}.toml") for name in ("tiny@0.3", "tiny", "tiny@0.1")]
    content = bench(
        recipes, settings / "run", methods=["finetune", "short-retrain", "joint"], jobs=1, seeds=1
    )
    stages = content["stages"]
    assert {name: stage["methods"].keys() - {"original"} for name, stage in stages.items()} == {
        "tiny@0.3": {"finetune"},
        "tiny": {"finetune", "short-retrain", "joint"},
        "tiny@0.1": {"finetune", "short-retrain"},
    }
    steps = [stages[name]["methods"]["finetune"]["gradient_evaluations"] for name in ("tiny@0.1", "tiny@0.3")]
    assert steps == [4, 12] and "lr=0.3" in stages["tiny@0.1"]["methods"]["short-retrain"]["repr"]
    assert not any("search" in stage for stage in stages.values()) and not (settings / "run/tuning").exists()
    curves = content["frontier"]["tiny"]
    assert curves["budgets"] == [0.1, 0.2, 0.3] and curves["methods"].keys() == {"finetune", "short-retrain"}
    points = curves["methods"]["finetune"]["points"]
    assert [point["gradient_evaluations"] for point in points] == pytest.approx([0.1, 0.125, 0.3])
    refuse_disproved(record.load(settings / "run"), settings / "run")  # raises nothing


def test_a_stage_named_as_its_recipe_has_the_budget_of_the_recipe() -> None:
    def budgets(**tuning: object) -> set[float]:
        stages = {
            "tiny": {"recipe": {"tuning": tuning}},
            "tiny@0.1": {"recipe": {}},
            "tiny@b": {"recipe": {}},
        }
        return set(stages_by_budget("tiny", stages | {"tiny-2@0.3": {"recipe": {}}}))

    assert budgets(budget=0.2, budgets=[]) == {0.1, 0.2}
    assert budgets(budget=None, budgets=[]) == budgets() == {0.1, 0.5}, "bench gives it half of a retraining"


def test_at_a_budget_no_method_runs_with_the_settings_of_another(settings) -> None:
    message = "budget of 0.3 'tiny' has settings of finetune, found joint, salun: give --tune"
    with pytest.raises(ValueError, match=message):
        bench([load(settings / "tiny@0.3.toml")], settings / "run", methods=["joint", "salun"])
    with pytest.raises(ValueError, match=r"joint has no settings at tiny@0\.3: give --tune, or leave it out"):
        bench([load(settings / "tiny@0.3.toml")], settings / "run", methods=["finetune", "joint", "retrain"])
    (settings / "tiny@0.3.toml").write_text("")
    with pytest.raises(ValueError, match="'tiny' has settings of no method, found lur:recover"):
        bench([load(settings / "tiny@0.3.toml")], settings / "run")
    assert not (settings / "run").exists()


def test_a_budget_of_a_recipe_is_run_once(settings) -> None:
    (settings / "tiny@0.2.toml").write_text("[methods]\nfinetune.how.steps = 8")
    (settings / "tiny@0.20.toml").write_text("[methods]\nfinetune.how.steps = 8")
    for pair in (("tiny", "tiny@0.2"), ("tiny@0.2", "tiny@0.20"), ("tiny@0.1", "tiny@0.1")):
        recipes = [load(settings / f"{name}.toml") for name in pair]
        with pytest.raises(ValueError, match="each recipe can be run once at a budget, found tiny"):
            bench(recipes, settings / "run", methods=["finetune"])


def test_a_method_whose_name_joins_stages_has_files_that_any_system_takes(tmp_path, monkeypatch) -> None:
    name = "shrink:neggrad+:finetune"
    monkeypatch.setitem(METHODS, name, METHODS["finetune"])  # pyright: ignore[reportArgumentType]
    content = bench([make_recipe()], tmp_path, methods=[name], jobs=1, tune=1, seeds=1)
    assert name in content["frontier"]["tiny"]["methods"]
    assert not [path for path in tmp_path.rglob("*") if ":" in path.name]
    assert (tmp_path / "tuning" / "tiny@0.1" / "shrink%3Aneggrad+%3Afinetune.json").is_file()
    place = cell_path(Stage(make_recipe().with_budget(0.3), tmp_path), 0, name)
    assert place.with_name(f"{place.name}.parquet").is_file()
    second = bench(
        [make_recipe()], tmp_path / "b", methods=[name], jobs=1, seeds=1, tuned=tmp_path / "tuning"
    )
    assert second["frontier"]["tiny"]["methods"].keys() == {name}


RECORD = ROOT / "records" / "frontier-digits.json"


@pytest.mark.skipif(not RECORD.parent.exists(), reason="the records are in the clone only")
def test_the_page_counts_the_intervals_of_the_record():
    rows = table("docs/frontier.md", "| Stage | Intervals | below zero | above zero |")
    stages_of_record = json.loads(RECORD.read_text())["stages"]
    assert rows.keys() == stages_of_record.keys()
    for name, (_, *counts) in rows.items():
        pairs = [(each["low"], each["high"]) for each in stages_of_record[name]["paired"]]
        n_nearer, n_farther = sum(high < 0 for _, high in pairs), sum(low > 0 for low, _ in pairs)
        assert [int(each) for each in counts] == [len(pairs), n_nearer, n_farther]
