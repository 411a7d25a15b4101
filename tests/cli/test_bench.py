"""`unweave bench`: what is finished is used again, and the table shows what the record holds."""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pyarrow.parquet as pq
import pytest

import projects
from cli.written import names, stage_of
from unweave.bench import cell, stage_jobs
from unweave.bench.workers import refuse_too_many
from unweave.cli import main
from unweave.descent.descend import Descent
from unweave.methods import METHODS
from unweave.methods.about import About
from unweave.methods.simple import FineTune
from unweave.problem import Problem
from unweave.record import record
from unweave.report.numbers import number
from unweave.space import Log

FLAGS = ("--jobs", 1, "--quiet")
SHORT = "".join(f"\n[methods.{name}]\nhow = {{ steps = 6 }}\n" for name in ("finetune", "salun", "ascent"))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[str, Path]:
    """A recipe with methods of a few steps, and a benchmark of two methods over its two seeds."""
    folder = tmp_path_factory.mktemp("bench")
    recipe = Path(projects.recipe(folder))
    recipe.write_text(recipe.read_text() + SHORT)
    flags = ["--methods", "finetune,salun", "--jobs", "1", "--quiet"]
    assert main(["bench", str(recipe), "--out", str(folder / "run"), *flags]) == 0
    return str(recipe), folder / "run"


@pytest.fixture(scope="module")
def searches(made, tmp_path_factory) -> Path:
    """The folder of searches of one trial each."""
    folder = tmp_path_factory.mktemp("tuned") / "run"
    flags = ["--methods", "finetune", "--seeds", "1", "--tune", "1", "--jobs", "1", "--quiet"]
    assert main(["bench", made[0], "--out", str(folder), *flags]) == 0
    return folder / "tuning"


@pytest.fixture
def copied(made, here) -> tuple[str, Path]:
    """The recipe, and a copy of that benchmark."""
    return made[0], Path(shutil.copytree(made[1], here / "run"))


def cells(folder: Path, listed) -> dict[str, tuple[int, int]]:
    """What must not be worked out again: cells and trained models, with sizes and times."""
    contents = {**listed(folder / "cells"), **listed(folder / "models")}
    files = {name: stat for name, stat in contents.items() if stat != (0, 0)}
    # what two retrained models differ by changes with every seed
    return {name: stat for name, stat in files.items() if Path(name).name != "reported.json"}


class TestRuns:
    def test_the_record_is_valid_and_has_a_row_per_method(self, made):
        _, folder = made
        stage = stage_of(folder)
        assert list(record.load(folder)["stages"]) == ["tiny"] and stage["seeds"] == [0, 1]
        assert list(stage["methods"]) == ["finetune", "salun", "original"]
        assert all(row["scores"]["ua"]["n"] == 2 for row in stage["methods"].values())
        assert names(folder) == ["cells", "models", "record.json", "report.html", "run.json"]
        methods = {path.name.partition(".")[0] for path in (folder / "cells" / "tiny" / "1").iterdir()}
        assert methods == {"finetune", "salun", "original", "retrained"}

    def test_no_finished_method_ends_with_3_and_a_record(self, run, made, here):
        """One that finishes is enough for 0: the others' reasons are rows of the table."""
        recipe = Path(shutil.copy(made[0], here / "diverging.toml"))
        recipe.write_text(recipe.read_text().replace("ascent]\nhow = {", "ascent]\nhow = { lr = 1e30,"))
        one = run("bench", recipe, "--methods", "ascent", "--out", here / "run", *FLAGS)
        assert one.code == 3 and "no method finished: ascent" in one.error
        assert stage_of(here / "run")["methods"]["ascent"]["failed"] in one.error
        assert run("bench", recipe, "--methods", "ascent,finetune", "--out", here / "both", *FLAGS).code == 0

    def test_the_same_again_works_nothing_out(self, run, copied, listed, here):
        recipe, folder = copied
        files = cells(folder, listed)
        result = run("bench", recipe, "--methods", "salun,finetune", "--out", folder, *FLAGS)
        assert result.code == 0 and cells(folder, listed) == files and names(here) == ["run"]

    def test_another_method_and_more_seeds_leave_the_finished_cells(self, run, copied, listed, here):
        recipe, folder = copied
        files = cells(folder, listed)
        names_ = "finetune,salun,ascent"
        assert run("bench", recipe, "--methods", names_, "--out", folder, *FLAGS).code == 0
        new_files = cells(folder, listed).keys() - files.keys()
        assert {Path(each).name.partition(".")[0] for each in new_files} == {"ascent"} and len(new_files) == 6
        recipe_text = Path(recipe).read_text().replace("seeds = [0, 1]", "seeds = [0, 1, 2]")
        (here / "tiny.toml").write_text(recipe_text)
        assert run("bench", "tiny.toml", "--methods", names_, "--out", folder, *FLAGS).code == 0
        assert files.items() <= cells(folder, listed).items() and names(here) == ["run", "tiny.toml"]
        assert stage_of(folder)["seeds"] == [0, 1, 2] and "ascent" in stage_of(folder)["methods"]

    @pytest.mark.parametrize(
        ("flags", "seeds", "methods"),
        [
            (("--methods", "finetune"), [0, 1], ["finetune", "original"]),
            (("--methods", "finetune,salun", "--seeds", 1), [0], ["finetune", "salun", "original"]),
            (("--methods", "finetune,salun", "--seed", 7), [7, 8], ["finetune", "salun", "original"]),
        ],
        ids=["fewer methods", "fewer seeds", "other seeds"],
    )
    def test_less_or_other_gets_a_folder_of_its_own(self, run, copied, listed, here, flags, seeds, methods):
        recipe, folder = copied
        files = listed(folder)
        content = json.loads(run("bench", recipe, *flags, "--out", folder, "--json", *FLAGS).out)
        assert listed(folder) == files and content["out"] == str(here / "run-2")
        stage = content["stages"]["tiny"]
        assert stage["seeds"] == seeds and list(stage["methods"]) == methods
        seed_folders = set(names(here / "run-2" / "cells" / "tiny")) - {"reported.json"}
        assert seed_folders == set(map(str, seeds))

    def test_a_stopped_run_goes_on(self, run, made, here, listed, monkeypatch):
        def stops(stage, seed: int, methods: tuple[str, ...]) -> None:
            if seed == 1:
                raise KeyboardInterrupt
            cell.run_seed(stage, seed, methods)

        command = ("bench", made[0], "--methods", "finetune", *FLAGS)
        with monkeypatch.context() as patch:
            patch.setattr(stage_jobs, "run_seed", stops)
            result = run(*command)
        assert result.code == 130 and "the same command goes on from there" in result.error
        folder = here / "unweave-bench"
        files = cells(folder, listed)
        assert names(folder) == ["cells", "models", "run.json"] and names(folder / "cells" / "tiny") == ["0"]
        assert run(*command).code == 0 and names(here) == ["unweave-bench"]
        assert files.items() <= cells(folder, listed).items()
        scores = stage_of(folder)["methods"]["finetune"]["scores"]
        assert scores == stage_of(made[1])["methods"]["finetune"]["scores"]

    def test_two_recipes_are_two_stages(self, run, made, here, tmp_path):
        second = shutil.copy(made[0], tmp_path / "second.toml")
        flags = ("--methods", "finetune", "--seeds", 1)
        result = run("bench", made[0], second, *flags, "--jobs", 1)
        assert list(record.load(here / "unweave-bench")["stages"]) == ["tiny", "second"]
        assert result.error.splitlines()[-2:] == ["4/5  tiny, seed 0", "5/5  second, seed 0"], "one original"
        assert "\x1b" not in result.out + result.error

    def test_what_is_printed_is_the_table_and_where_the_report_is(self, run, copied):
        recipe, folder = copied
        result = run("bench", recipe, "--methods", "finetune,salun", "--out", folder, *FLAGS)
        table = run("bench", "table", folder).out
        assert result.out == f"{table}\nReport: {folder / 'report.html'}\n" and result.error == ""


@dataclass(frozen=True)
class Misspelt:
    """A method whose space names a field that its descent lacks."""

    about: ClassVar[About] = About("none", "none", "0")
    how: Descent = Descent(lr=0.1, steps=1)

    def space(self, budget: int) -> dict[str, Log]:
        return {"how.lrr": Log(0.1, 1.0)}

    def __call__(self, problem: Problem) -> None:
        raise AssertionError("nothing is to be computed")


class TestTuned:
    def test_an_earlier_search_is_taken_where_it_fits(self, run, made, searches, here):
        flags = ("--methods", "finetune", "--seeds", 1, "--tuned", searches, *FLAGS)
        assert run("bench", made[0], *flags).code == 0
        assert stage_of(here / "unweave-bench")["tuned"]["trials"] == 1
        search, source = (stage_of(each)["search"] for each in (here / "unweave-bench", searches.parent))
        assert search == source

    @pytest.mark.parametrize(
        ("was", "becomes", "named"),
        [
            ("fraction = 0.1", "fraction = 0.2", "data set or forget set"),
            ("hidden = 16", "hidden = 17", "model: expected .*17.*, found .*16"),
            ("lr = 0.1", "lr = 0.2", "train"),
            ("[model]", "[tuning]\nseeds = [5]\n[model]", r"tuning: expected .*\(5,\).*, found .*1000, 1001"),
            ("finetune]\nhow = { steps = 6 }", "finetune]\nhow = { steps = 7 }", "setting to begin with"),
        ],
        ids=["data", "model", "train", "tuning", "method"],
    )
    def test_of_something_else_is_refused(self, refused, made, searches, here, was, becomes, named):
        text = Path(made[0]).read_text()
        assert text.count(was) == 1
        (here / "tiny.toml").write_text(text.replace(was, becomes))
        sentence = f"finetune.json was searched with a different {named}.*: tune it again"
        refused(sentence, "bench", "tiny.toml", "--methods", "finetune", "--tuned", searches)

    def test_of_another_space_or_against_something_else_is_refused(
        self, refused, made, searches, monkeypatch
    ):
        flags = ("bench", made[0], "--methods", "finetune", "--tuned", searches)
        refused("different tuning: expected .*retrain.*, found .*proxy", *flags, "--against", "retrain")
        monkeypatch.setattr(FineTune, "space", lambda self, budget: {"how.lr": Log(0.1, 1.0)})
        refused("finetune.json was searched with a different search space", *flags)

    def test_of_other_methods_or_of_nothing_known_is_refused(self, refused, made, searches, here):
        refused(
            "no searches for the stage 'tiny' of salun", "bench", made[0], "--methods", "finetune,salun",
            "--tuned", searches,
        )  # fmt: skip
        old_folder = Path(shutil.copytree(searches, here / "old"))
        for content, sentence in (
            ('{"trials": []}', "does not name what was searched"),
            ("{", "is not JSON"),
        ):
            (old_folder / "tiny" / "finetune.json").write_text(content)
            refused(sentence, "bench", made[0], "--methods", "finetune", "--tuned", "old")

    def test_a_space_that_names_an_unknown_field_is_refused(self, refused, made, monkeypatch):
        monkeypatch.setitem(METHODS, "finetune", Misspelt())
        flags = ("--methods", "finetune", "--tune", 1, *FLAGS)
        refused("unknown key 'how.lrr' in the search space of finetune .*'how.lr'", "bench", made[0], *flags)

    def test_a_request_too_large_for_proxies_is_refused(self, refused, made, here):
        text = Path(made[0]).read_text()
        (here / "tiny.toml").write_text(text.replace("fraction = 0.1", "fraction = 0.8"))
        flags = ("--methods", "finetune", "--tune", 1, *FLAGS)
        refused("found 160 examples to forget and 40 to retain", "bench", "tiny.toml", *flags)


SEARCHED = ("--methods", "short-retrain", "--seeds", 1, "--tune", 1, *FLAGS)


@pytest.fixture(scope="module")
def at_two(made, tmp_path_factory) -> Path:
    """A benchmark at two budgets."""
    folder = tmp_path_factory.mktemp("budgets") / "run"
    flags = [str(each) for each in SEARCHED]
    assert main(["bench", made[0], "--budgets", "0.2,0.5", "--out", str(folder), *flags]) == 0
    return folder


class TestBudgets:
    def test_each_is_a_stage_and_the_frontier_comes_first(self, run, at_two):
        result = run("bench", "table", at_two)
        lines = result.out.splitlines()
        assert lines[0] == "tiny: gap against cost"
        (header,) = [line for line in lines if "Cost of a PASS" in line and "Method" in line]
        assert header.split()[:3] == ["Method", "0.2", "0.5"]
        assert [line for line in lines if line.startswith("tiny@")] == ["tiny@0.2", "tiny@0.5"]
        points = record.load(at_two)["frontier"]["tiny"]["methods"]["short-retrain"]["points"]
        assert [point["gradient_evaluations"] for point in points] == [0.2, 0.5]

    def test_one_more_goes_on_in_the_same_folder_and_one_less_does_not(self, run, made, at_two, here):
        folder = Path(shutil.copytree(at_two, here / "run"))
        three_budgets = ("bench", made[0], "--budgets", "0.2,0.5,0.9", "--out", folder, "--json", *SEARCHED)
        content = json.loads(run(*three_budgets).out)
        assert names(here) == ["run"] and content["frontier"]["tiny"]["budgets"] == [0.2, 0.5, 0.9]
        one_budget = ("bench", made[0], "--budgets", "0.2", "--out", folder, *SEARCHED)
        assert run(*one_budget).code == 0 and names(here) == ["run", "run-2"]

    def test_frontiers_of_one_name_are_told_apart_by_their_folders(self, run, at_two, here):
        copy = Path(shutil.copytree(at_two, here / "copy"))
        output = run("bench", "table", at_two, copy).out
        titles = [line for line in output.splitlines() if line.endswith("tiny: gap against cost")]
        assert titles == [f"{folder}: tiny: gap against cost" for folder in (at_two, copy)]

    @pytest.mark.slow  # bench/test_frontier.py has budgets of a recipe, and the refusals below read its table
    def test_a_recipe_may_name_them(self, run, made, here):
        text = Path(made[0]).read_text().replace("[model]", "[tuning]\nbudgets = [0.2, 0.5]\n[model]")
        (here / "tiny.toml").write_text(text)
        assert run("bench", "tiny.toml", *SEARCHED).code == 0
        assert record.load(here / "unweave-bench")["frontier"]["tiny"]["budgets"] == [0.2, 0.5]

    @pytest.mark.parametrize(
        ("budgets", "sentence"),
        [
            ("0.1,x", "--budgets must be numbers with commas between, such as 0.1,0.3, found '0.1,x'"),
            ("", "--budgets must be numbers"),
            ("0.1,0", r"a budget must be a fraction of retraining in \(0, 1\], found 0.0"),
            ("0.1,1.5", "found 1.5"),
            ("nan", "found nan"),
            ("0.1,0.3,0.1", "budgets must differ, found 0.1, 0.3, 0.1"),
        ],
    )
    def test_wrong_ones_are_refused(self, refused, made, budgets, sentence):
        refused(sentence, "bench", made[0], "--budgets", budgets, *SEARCHED)

    def test_without_a_search_they_are_refused(self, refused, made, here):
        refused("give it with --tune or --tuned", "bench", made[0], "--budgets", "0.1")
        text = Path(made[0]).read_text().replace("[model]", "[tuning]\nbudgets = [0.2, 0.5]\n[model]")
        (here / "tiny.toml").write_text(text)
        refused(
            "found 0.2, 0.5 of 'tiny' and no search", "bench", "tiny.toml", "--methods", "finetune", *FLAGS
        )


class TestRefused:
    def test_more_jobs_than_cores(self, refused, made, monkeypatch):
        monkeypatch.setattr("os.cpu_count", lambda: 3)
        refused("--jobs must be at most the 3 cores of this machine, found 4", "bench", made[0], "--jobs", 4)

    @pytest.mark.parametrize(("device", "gpus"), [("cuda", 2), ("cuda:1", 1)])
    def test_more_jobs_than_gpus(self, monkeypatch, device, gpus):
        monkeypatch.setattr("os.cpu_count", lambda: 8)
        monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
        refuse_too_many(gpus, device)
        with pytest.raises(ValueError, match=f"at most the number of GPUs in {device}, {gpus}, found 3"):
            refuse_too_many(3, device)

    def test_a_method_for_other_models_than_the_recipes(self, refused, made):
        refused("'esd'.*classifier|classifier.*'esd'", "bench", made[0], "--methods", "esd", *FLAGS)

    def test_a_search_and_an_earlier_one(self, refused, made, here):
        refused("give one of them", "bench", made[0], "--tune", 1, "--tuned", here)


class TestTable:
    @pytest.mark.parametrize("format", ["text", "markdown", "latex"])
    def test_figures_are_the_records(self, run, here, made, format):
        result = run("bench", "table", made[1], "--format", format)
        assert result.code == 0 and result.error == "" and names(here) == []
        for name, row in stage_of(made[1])["methods"].items():
            (line,) = [
                each for each in result.out.splitlines() if re.match(rf"(\| |\\textbf{{)?{name}[ }}]", each)
            ]
            figures = set(re.findall(r"\d+\.\d+", line))
            expected = {number(row["scores"][metric]["value"]) for metric in ("ua", "ra", "ta", "mia")}
            expected |= {number(row["scores"][metric]["value"], 3) for metric in ("auc", "tv")}
            assert expected | {number(row["gap"]["mean"])} <= figures

    def test_json_is_the_record_without_what_only_a_page_draws(self, run, here, made):
        content, stage = json.loads(run("bench", "table", made[1], "--json").out), stage_of(made[1])
        assert content.keys() == {"tiny"} and stage.keys() - content["tiny"].keys() == {"histograms"}
        for name, row in stage["methods"].items():
            assert content["tiny"]["methods"][name] == {key: row[key] for key in row if key != "trace"}
        assert content["tiny"]["reference"] == stage["reference"]

    @pytest.mark.parametrize(
        ("format", "file"), [("text", "table.txt"), ("latex", "table.tex"), ("markdown", "table.md")]
    )
    def test_out_gets_what_would_be_printed(self, run, here, made, format, file):
        output = run("bench", "table", made[1], "--format", format).out
        result = run("bench", "table", made[1], "--format", format, "--out", "kept")
        assert result.out == f"Table: kept/{file}\n" and names(here / "kept") == sorted(["run.json", file])
        assert (here / "kept" / file).read_text() == output

    def test_parquet_holds_the_records_numbers(self, run, here, made):
        content = json.loads(
            run("bench", "table", made[1], "--format", "parquet", "--out", "kept", "--json").out
        )
        rows = pq.read_table(here / content["table"]).to_pylist()
        methods = stage_of(made[1])["methods"]
        values = {(row["method"], row["metric"]): row["value"] for row in rows}
        assert {name for name, _ in values} == {*methods, "Retrain"} and methods.keys() <= METHODS.keys()
        for name, row in methods.items():
            assert all(values[name, metric] == score["value"] for metric, score in row["scores"].items())

    def test_stages_of_one_name_are_told_apart_by_their_folders(self, run, made, copied):
        stages = json.loads(run("bench", "table", made[1], copied[1] / "record.json", "--json").out)
        assert list(stages) == [f"{made[1]}: tiny", f"{copied[1] / 'record.json'}: tiny"]
        assert len({json.dumps(stage) for stage in stages.values()}) == 1


def test_what_trained_models_choose_is_kept_in_the_folder_of_the_run(run, here):
    recipe = Path(projects.recipe(here))
    text = recipe.read_text().replace('name = "digits"', 'name = "digits"\nfolds = 2\nforget = "memorized"')
    recipe.write_text(text)
    result = run("bench", recipe, "--methods", "finetune", "--seeds", 1, *FLAGS, "--out", "kept")
    assert result.code == 0, result.error
    assert names(here) == ["kept", recipe.name]
    assert names(here / "kept" / "strata") == ["tiny.json"]


def test_what_trained_models_chose_outlives_an_error(run, here):
    recipe = Path(projects.recipe(here))
    text = recipe.read_text().replace('name = "digits"', 'name = "digits"\nfolds = 2\nforget = "memorized"')
    recipe.write_text(text)
    (here / "tuning" / "tiny").mkdir(parents=True)
    (here / "tuning" / "tiny" / "finetune.json").write_text('{"facts": [{}], "trials": []}')
    result = run("bench", recipe, "--methods", "finetune", "--tuned", "tuning", *FLAGS, "--out", "kept")
    assert result.code == 3 and "was searched with a different data set or forget set" in result.error
    assert names(here / "kept" / "strata") == ["tiny.json"] and len(names(here / "kept" / "models")) == 2


def test_a_claim_that_is_somebody_elses_file_is_left_alone(run, made, copied):
    recipe, folder = copied
    (folder / "run.json").write_text("[]")
    result = run("bench", recipe, "--methods", "finetune", "--seeds", 1, *FLAGS, "--out", folder)
    assert result.code == 0 and f"Report: {folder}-2/report.html" in result.out
    assert (folder / "run.json").read_text() == "[]"


class TestProtocol:
    def test_bench_and_its_table_print_the_columns_of_deep_unlearn(self, run, copied):
        recipe, folder = copied
        flags = ("--methods", "finetune,salun", "--protocol", "deep-unlearn")
        result = run("bench", recipe, *flags, "--out", folder, *FLAGS)
        table = run("bench", "table", folder, "--protocol", "deep-unlearn").out
        assert result.code == 0 and result.out == f"{table}\nReport: {folder / 'report.html'}\n"
        assert "2 seeds; the protocol has 10." in table and "Speed-up" in table
        for name, row in stage_of(folder)["methods"].items():
            (line,) = [each for each in table.splitlines() if each.startswith(f"{name} ")]
            retentions = row["per_seed"]["retain_retention"]
            assert number(sum(retentions) / 2, 3) in line and number(row["per_seed"]["t_mia"][0], 3) != "–"

    @pytest.mark.parametrize("format", ["text", "latex", "markdown", "parquet", "html"])
    def test_every_format_and_json_have_them(self, run, made, here, format):
        flags = ("--protocol", "deep-unlearn", "--format", format, "--out", "kept")
        assert run("bench", "table", made[1], *flags).code == 0
        (file,) = set(names(here / "kept")) - {"run.json"}
        assert (here / "kept" / file).stat().st_size > 500
        content = json.loads(run("bench", "table", made[1], "--protocol", "deep-unlearn", "--json").out)
        assert content["agreement"] == {"tau": None, "pairs": 0}
        assert content["stages"]["tiny"]["methods"]["salun"]["indiscernibility"]["n"] == 2

    def test_generators_and_unknown_protocols_are_refused_before_anything_runs(self, refused):
        sentence = "--protocol deep-unlearn is for recipes of classifiers, found 'digit-images-class'"
        refused(sentence, "bench", "digit-images-class", "--protocol", "deep-unlearn")
        refused("deep-unlern.*deep-unlearn", "bench", "digits-clean", "--protocol", "deep-unlern")


class TestAttacks:
    def test_those_that_need_more_than_answers_are_refused(self, refused):
        refused(
            "found representation, which needs more", "bench", "digits-clean", "--attacks", "representation"
        )
        refused("unknown attack 'rmi'", "bench", "digits-clean", "--attacks", "rmi")

    def test_they_are_shown_and_a_finished_run_takes_them_on(self, run, here, tmp_path):
        flags = (projects.recipe(tmp_path), "--methods", "finetune", "--out", here / "run", *FLAGS)
        assert run("bench", *flags).code == 0
        cells = {path: path.stat().st_mtime_ns for path in (here / "run/cells").rglob("*.parquet")}
        result = run("bench", *flags, "--attacks", "functional-distance")
        assert result.code == 0 and "functional-distance" in result.out
        assert {row["attack"] for row in stage_of(here / "run")["attacked_methods"]} == {
            "functional-distance"
        }
        later_cells = {path: path.stat().st_mtime_ns for path in (here / "run/cells").rglob("*.parquet")}
        assert later_cells == cells
