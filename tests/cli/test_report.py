"""`unweave report` and `unweave demo`: the page that stands alone, and the first thing that a user runs."""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

import projects
from cli.written import names, row_of
from unweave.bench.recipe import Recipe, load
from unweave.cli import demo, main
from unweave.record import record

METHODS = "scissorhands,short-retrain"
"""Methods of a demo: the first runs on one of its two problems, the other on both."""


@pytest.fixture(autouse=True, scope="module")
def undrawn_figures() -> None:
    """Draws the figures: here a page made anew must have the same bytes."""


@pytest.fixture(scope="module")
def audited(tmp_path_factory) -> Path:
    """A run of forget and its audit."""
    folder = tmp_path_factory.mktemp("audited")
    method_flags = ["--method", "finetune", "--set", "how.epochs=1", "--quiet"]
    assert main(["forget", projects.recipe(folder), "--out", str(folder / "run"), *method_flags]) == 0
    assert main(["audit", str(folder / "run"), "--references", "2", "--quiet"]) == 1
    return folder / "run"


def short(recipe: Recipe) -> Recipe:
    """The recipe with fewer images and a training of a moment."""
    data, train = replace(recipe.data, limit=400), replace(recipe.train, epochs=3)
    return replace(recipe, data=data, train=train)


@pytest.fixture(scope="module")
def shortened() -> Iterator[None]:
    """Shortens the recipes of the demo."""

    def digits(quick: bool) -> demo.Demonstration:
        plan = demo.digits(quick)
        assert plan.untuned is not None
        return replace(plan, recipes=tuple(map(short, plan.recipes)), untuned=short(plan.untuned))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "DEMONSTRATIONS", {"digits": digits})
        yield


@pytest.fixture(scope="module")
def place(shortened, tmp_path_factory) -> Path:
    """The shortest demo."""
    folder = tmp_path_factory.mktemp("demo") / "run"
    flags = ["--methods", METHODS, "--seeds", "1", "--jobs", "1", "--quiet"]
    assert main(["demo", "--quick", *flags, "--out", str(folder)]) == 0
    return folder


BUDGETS = [0.1, 0.3]
STAGES = [*(f"digits-trace@{budget}" for budget in BUDGETS), "digits-class@0.3"]


class Page(HTMLParser):
    """What a page names: links, sources, and the tags that load something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "iframe", "object", "embed", "img")
        self.names += [value or "" for name, value in attrs if name.split(":")[-1] in ("src", "href")]


class TestReport:
    def test_the_page_of_a_run_is_made_anew_beside_its_record(self, run, here, audited):
        run_copy = Path(shutil.copytree(audited, here / "run"))
        page = (run_copy / "audit" / "report.html").read_bytes()
        (run_copy / "audit" / "report.html").unlink()
        result = run("report", run_copy)
        place = run_copy / "audit"
        card = f"Model card: {place / 'model-card.md'}"
        assert result.out == f"Report: {place / 'report.html'}\n{card}\n" and result.code == 0
        assert (place / "report.html").read_bytes() == page and names(here) == ["run"]

    def test_two_records_in_one_folder_do_not_overwrite_each_others_pages(self, run, here, audited):
        (here / "both").mkdir()
        for name in ("one", "other"):
            shutil.copy(audited / "audit" / "record.json", here / "both" / f"{name}.json")
            assert run("report", f"both/{name}.json").code == 0
        assert names(here / "both") == ["one.json", "other.json"]
        assert names(here) == ["both", "unweave-report", "unweave-report-2"]

    def test_the_page_stands_alone_and_says_the_verdict(self, run, here, audited):
        content = json.loads(run("report", audited, "--out", "page", "--json").out)
        assert content == {"report": "page/report.html", "card": "page/model-card.md"}
        text = (here / content["report"]).read_text()
        links = Page(text).names
        assert links and all(name.startswith("#") for name in links)
        assert not re.search(r"https?://|@import|url\((?!#)", text)
        assert "INCONCLUSIVE" in text and "2 seeds, 10 needed" in text

    def test_the_model_card_has_the_verdict_and_the_figures_of_the_audit(self, run, here, audited):
        run("report", audited, "--out", "page")
        card, row = (here / "page" / "model-card.md").read_text(), row_of(audited / "audit")
        assert card.startswith("## audit\n") and row["reason"] in card
        (line,) = [line for line in card.splitlines() if line.startswith("| FineTune ")]
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        (header,) = [line for line in card.splitlines() if line.startswith("| Method ")]
        values = dict(zip((cell.strip() for cell in header.strip("|").split("|")), cells, strict=True))
        assert values["UA"] == f"{row['scores']['ua']['value']:.2f}"
        assert values["RA"] == f"{row['scores']['ra']['value']:.2f}"
        assert values["AUC"] == f"{row['scores']['auc']['value']:.3f}"

    def test_several_runs_share_a_page_in_a_folder_of_their_own(self, run, here, audited, trained, listed):
        _, unaudited_run = trained
        files = listed(audited), listed(unaudited_run)
        result = run("report", audited, unaudited_run)
        assert result.code == 0 and names(here) == ["unweave-report"]
        assert names(here / "unweave-report") == ["model-card.md", "report.html", "run.json"]
        assert (listed(audited), listed(unaudited_run)) == files
        headings = re.findall(
            "^## (.*)$", (here / "unweave-report" / "model-card.md").read_text(), re.MULTILINE
        )
        expected = [f"{audited}: audit", f"{unaudited_run}: audit"]
        assert [heading.replace("\\", "") for heading in headings] == expected
        assert "was not audited yet" in (here / "unweave-report" / "report.html").read_text()


class TestDemo:
    def test_few_seeds_show_figures_and_no_verdict(self, run, here, place):
        flags = ("--methods", METHODS, "--seeds", 1, "--jobs", 1, "--out", place)
        result = run("demo", *flags)
        assert result.code == 0 and result.out.startswith("no verdict: 1 seed, 10 needed\n")
        stages = record.load(place)["stages"]
        assert list(stages) == STAGES
        for name, stage in stages.items():
            has_scissorhands = name.startswith("digits-trace")
            assert stage["methods"].keys() == {
                "original",
                "short-retrain",
                *(["scissorhands"] if has_scissorhands else []),
            }
            (first,) = stage["methods"].keys() & {stage["headline"]}
            assert f"\n{name}\n{first}: INCONCLUSIVE: no verdict: 1 seed, 10 needed" in result.out
        assert result.out.endswith(f"Report: {place / 'report.html'}\n")
        labels = [line.partition("  ")[2] for line in result.error.splitlines()[1:]]
        models = ("original of seed 0", "retrained model of seed 0")
        problems, (first, *more, last) = ("digits-trace", "digits-class"), STAGES
        model_labels = [f"{name}, {model}" for name in problems for model in models]
        assert labels == model_labels + [f"{name}, seed 0" for name in (first, last, *more)]

    def test_the_page_opens_with_the_frontier_of_a_search_that_is_not_made_here(self, place):
        content = record.load(place)
        curves = content["frontier"]["digits-trace"]
        assert curves["budgets"] == BUDGETS and curves["methods"].keys() == set(METHODS.split(","))
        assert not any("search" in stage for stage in content["stages"].values())
        page = (place / "report.html").read_text()
        assert 0 < page.index("Gap against cost of") < page.index("<table")

    def test_a_method_without_settings_at_budgets_runs_where_there_are_none(self):
        digits = demo.digits(quick=True)
        for methods, budgets in (("ascent,scrub", ()), ("scissorhands,scrub", (0.1, 0.3))):
            *tuned_recipes, untuned_recipe = digits.recipes_for(methods)
            assert untuned_recipe == load("digits-class")
            assert tuple(recipe.tuning.largest_budget for recipe in tuned_recipes) == budgets
        assert digits.recipes_for(digits.methods) == digits.recipes_for(None) == list(digits.recipes)

    def test_the_frontier_is_of_few_methods(self):
        methods = {"lur:recover", "lur-lagged:recover", "joint:recover", "salun:recover", "short-retrain"}
        at_01, at_03, on_class = (recipe.configured_methods() for recipe in demo.digits(quick=False).recipes)
        assert on_class == methods and at_01 == at_03 == methods | {"scissorhands"}

    def test_the_two_problems_are_a_tenth_with_wrong_labels_and_one_digit(self, place):
        trace, *_, class_stage = record.load(place)["stages"].values()
        assert trace["recipe"]["data"]["noise"] > 0
        assert trace["data"]["forget"] / (trace["data"]["forget"] + trace["data"]["retain"]) == pytest.approx(
            0.1, abs=0.01
        )
        assert (
            len(class_stage["data"]["forgotten_classes"]) == 1
            and "relearn" in class_stage["methods"]["original"]["scores"]
        )

    def test_json_names_the_files_and_is_nothing_but_json(self, run, here, place):
        flags = ("--methods", METHODS, "--seeds", 1, "--jobs", 1, "--out", place)
        content = json.loads(run("demo", *flags, "--quiet", "--json").out)
        assert content["report"] == str(place / "report.html") and Path(content["record"]).is_file()
        assert list(content["stages"]) == STAGES
