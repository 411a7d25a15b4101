"""Forged records are refused by every verb that shows them: by their digest, or by the files next to them."""

import json
import shutil
from pathlib import Path

import pytest

import projects
from bench.tiny import tiny
from records import at_budgets, put, synthetic
from unweave.audits.classifier import parquet
from unweave.bench.bench import bench as run_bench
from unweave.cli import main
from unweave.record import record
from unweave.record.digest import seal


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A run of forget with an audit, and a benchmark of one method over two seeds."""
    folder = tmp_path_factory.mktemp("forged")
    recipe, method_flags = (
        projects.recipe(folder),
        ["--method", "finetune", "--set", "how.epochs=1", "--quiet"],
    )
    assert main(["forget", recipe, "--out", str(folder / "run"), *method_flags]) == 0
    assert main(["audit", str(folder / "run"), "--references", "2", "--quiet"]) == 1
    bench = ["--methods", "finetune", "--jobs", "1", "--quiet", "--out", str(folder / "bench")]
    assert main(["bench", recipe, *bench]) == 0
    recipe = tiny(name="costs", tuning={"budgets": [0.1, 0.3], "seeds": [1000]})
    run_bench([recipe], folder / "costs", methods=["lur:recover"], jobs=1, tune=1)
    return folder


@pytest.fixture
def forge(made, here):
    """A copy of a folder whose record says something else at one place; sealed again if asked for."""

    def forge(name: str, *path: str, value: object, again: bool = False) -> Path:
        place = Path(shutil.copytree(made / name, here / name))
        file = place / ("audit" if name == "run" else "") / "record.json"
        content = put(json.loads(file.read_text()), *path, value=value)
        file.write_text(json.dumps(seal(content) if again else content))
        return place

    return forge


FORGOT = ("stages", "audit", "methods", "FineTune")
TINY = ("stages", "tiny", "methods", "finetune")


@pytest.mark.parametrize("verb", [("report",), ("bench", "table"), ("bench", "table", "--json")])
@pytest.mark.parametrize(
    ("path", "value"),
    [
        ((*FORGOT, "scores", "ra", "value"), 55.5),
        (("stages", "audit", "methods", "original", "verdict"), "PASS"),
    ],
)
def test_a_changed_figure_or_verdict_is_shown_by_nobody(run, forge, verb, path, value):
    place = forge("run", *path, value=value)
    page = (place / "audit" / "report.html").read_bytes()
    result = run(*verb, place)
    assert result.code == 2 and result.out == ""
    assert result.error.startswith(
        f"unweave: {place / 'audit' / 'record.json'} was changed after it was written"
    )
    assert result.error.endswith("make it again with unweave audit RUN\n")
    assert (place / "audit" / "report.html").read_bytes() == page


@pytest.mark.parametrize("metric", ["ua", "ra", "ta", "auc"])
def test_a_new_digest_does_not_help_against_the_evidence(run, forge, metric):
    place = forge("run", *FORGOT, "scores", metric, "value", value=0.555, again=True)
    result = run("report", place)
    assert result.code == 2
    assert f"FineTune has {metric.upper()} 0.555, but evidence.parquet next to it gives " in result.error


def test_the_earlier_schema_does_not_help_against_the_evidence(run, forge):
    place = forge("run", *FORGOT, "scores", "ra", "value", value=0.555)
    file = place / "audit" / "record.json"
    content = json.loads(file.read_text()) | {"schema": record.EARLIER}
    del content["digest"]
    file.write_text(json.dumps(content))
    for verb in (("report",), ("bench", "table")):
        result = run(*verb, place)
        assert result.code == 2 and "FineTune has RA 0.555, but evidence.parquet next to it" in result.error


def test_a_verdict_that_its_own_figures_contradict_is_refused(run, forge, made, here):
    for verdict in ("PASS", "FAIL"):
        shutil.rmtree(here / "run", ignore_errors=True)
        place = forge("run", *FORGOT, "verdict", value=verdict, again=True)
        result = run("bench", "table", place)
        assert result.code == 2 and f"FineTune has the verdict {verdict}, " in result.error


@pytest.mark.parametrize("path", [("scores", "ra", "value"), ("per_seed", "ra")])
def test_a_benchmark_is_compared_with_its_cells(run, forge, path):
    value = [55.5, 55.5] if path[0] == "per_seed" else 55.5
    place = forge("bench", *TINY, *path, value=value, again=True)
    result = run("bench", "table", place)
    assert result.code == 2 and "finetune has RA 55.5, but its cells next to it give " in result.error


@pytest.mark.parametrize("path", [("scores", "ua", "value"), ("per_seed", "ua")])
def test_the_figures_of_retrained_models_are_compared_as_well(run, forge, path):
    value = [55.5, 55.5] if path[0] == "per_seed" else 55.5
    result = run("report", forge("bench", "stages", "tiny", "reference", *path, value=value, again=True))
    assert result.code == 2 and "Retrain has UA 55.5, but its cells next to it give " in result.error


COSTS = ("stages", "costs@0.3", "methods", "lur:recover")


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ((*COSTS, "scores", "ra", "value"), 55.5, "lur:recover has RA 55.5, but its cells next to it give "),
        ((*COSTS, "per_seed", "gap"), [0.5, 0.5], "lur:recover has gap 0.5, but its cells next to it give "),
        ((*COSTS, "gap", "mean"), 0.5, "lur:recover has gap 0.5, but its cells next to it give "),
        (
            ("stages", "costs@0.3", "reference", "scores", "ua", "value"),
            55.5,
            "Retrain has UA 55.5, but its cells next to it give ",
        ),
        ((*COSTS, "gradient_evaluations"), 1, "lur:recover has gradient_evaluations 1, but its cells next "),
    ],
)
def test_pipelines_and_stages_at_budgets_are_compared_with_their_cells(run, forge, path, value, sentence):
    answer = run("bench", "table", forge("costs", *path, value=value, again=True))
    assert answer.code == 2 and sentence in answer.error


FRONTIER, STAGE = ("frontier", "trace"), ("stages", "trace@0.3", "methods", "lur")
LUR = (*FRONTIER, "methods", "lur")
EMPTY = {"budgets": [0.3], "floor": None, "margin": None, "original": None, "methods": {}, "paired": []}
NEARER = {"first": "lur", "second": "joint", "budget": 0.3, "difference": -5.0, "low": -6.0, "high": -4.0}


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ((*LUR, "cost_of_pass"), 0.2, "says lur: cost of a PASS 0.2, but its stages say 0.3"),
        ((*LUR, "points", 0, "verdict"), "FAIL", "says lur at 0.3: verdict FAIL, but its stages say PASS"),
        ((*LUR, "points", 1, "gap", "mean"), 0.2, "says lur at 0.6: gap mean 0.2, but its stages say "),
        ((*LUR, "points", 0, "gap", "high"), 0.0, "says lur at 0.3: gap high 0.0, but its stages say "),
        ((*LUR, "points", 0, "seconds"), 0.01, "says lur at 0.3: seconds 0.01, but its stages say 0.36"),
        ((*LUR, "points", 0, "budget"), 0.2, "but its stages say nothing"),
        ((*LUR, "points"), [], "says lur at 0.3: gap mean nothing, but its stages say "),
        (
            (*FRONTIER, "methods", "diverged", "points", 0, "failed"),
            None,
            "failed None, but its stages say the ",
        ),
        ((*FRONTIER, "methods"), {}, "says lur: cost of a PASS nothing, but its stages say 0.3"),
        ((*FRONTIER, "budgets"), [0.3], "says the budgets 0.3, but its stages say 0.3, 0.6"),
        ((*FRONTIER, "floor"), 9.0, "says floor 9.0, but its stages say 1.23"),
        ((*FRONTIER, "margin"), 99.0, "says margin 99.0, but its stages say "),
        ((*FRONTIER, "original"), 0.1, "says original 0.1, but its stages say "),
        ((*FRONTIER, "paired"), [NEARER], "says lur less joint at 0.3: difference -5.0, but its stages say "),
        (("frontier", "other"), {**EMPTY}, "the frontier of other has no stage"),
        ((*STAGE, "verdict"), "INCONCLUSIVE", "and its reason says: PASS: "),
        ((*STAGE, "cost"), 0.01, "lur has cost 0.01, but its seeds give 0.36"),
        ((*STAGE, "gap", "mean"), 0.01, "lur has gap 0.01, but its seeds give "),
        ((*STAGE, "scores", "ra", "value"), 95.5, "lur has RA 95.5, but its seeds give "),
        ((*STAGE, "per_seed", "cost"), [None] * 10, "a figure is missing or of another kind (TypeError"),
        (
            (*STAGE, "per_seed", "cost"),
            [10**400] * 10,
            "a figure is missing or of another kind (OverflowError",
        ),
        (
            ("stages", "trace@0.3", "reference", "null_band"),
            {},
            "a figure is missing or of another kind (Key",
        ),
    ],
)
def test_a_frontier_says_what_its_stages_say_and_a_verdict_what_its_reason_says(
    run, here, path, value, sentence
):
    content = record.to_json_values(at_budgets(0.3, 0.6))
    (here / "forged").mkdir()
    (here / "forged" / "record.json").write_text(json.dumps(seal(put(content, *path, value=value))))
    answer = run("bench", "table", "forged")
    assert answer.code == 2 and sentence in answer.error


def test_a_pass_over_few_seeds_is_refused(run, here):
    content = put(synthetic(), "stages", "class", "seeds", value=[0, 1])
    (name,) = [each for each, row in content["stages"]["class"]["methods"].items() if row["failed"] is None][
        :1
    ]
    content = put(content, "stages", "class", "methods", name, "verdict", value="PASS")
    content = put(content, "stages", "class", "methods", name, "reason", value="PASS: all")
    record.write(content, here / "few")
    result = run("report", here / "few")
    assert result.code == 2 and f"{name} has the verdict PASS over 2 seeds, and 10 are needed" in result.error


def test_what_is_as_it_was_written_is_shown_with_and_without_what_lies_beside_it(run, made, here):
    for name in ("run", "bench", "costs"):
        assert run("bench", "table", made / name).code == 0
        shutil.copy(made / name / ("audit" if name == "run" else "") / "record.json", here / f"{name}.json")
        assert run("bench", "table", here / f"{name}.json").code == 0


def test_evidence_that_is_no_number_is_nothing_to_compare(run, made, here):
    place = Path(shutil.copytree(made / "run" / "audit", here / "audit"))
    scores = {"ra": None, "ua": None, "ta": None, "auc": None}
    content = json.loads((place / "record.json").read_text())
    for name in scores:
        content = put(content, *FORGOT, "scores", name, "value", value=None)
    (place / "record.json").write_text(json.dumps(seal(content)))
    assert parquet.load(place / "evidence.parquet") and run("bench", "table", place).code == 0


class TestEarlier:
    """Records of the schema before digests."""

    NOTE = "Made by an earlier version (unweave.record/1), without a digest: its figures can't be verified."

    @pytest.fixture
    def earlier(self, here) -> Path:
        (here / "old").mkdir()
        content = record.to_json_values(synthetic()) | {"schema": record.EARLIER}
        (here / "old" / "record.json").write_text(json.dumps(content))
        return here / "old"

    @pytest.mark.parametrize("form", ["text", "markdown", "latex"])
    @pytest.mark.parametrize("protocol", [(), ("--protocol", "deep-unlearn")])
    def test_it_is_shown_alone_and_says_so_first(self, run, earlier, form, protocol):
        result = run("bench", "table", earlier, "--format", form, *protocol)
        assert result.code == 0
        first = " ".join(result.out.replace("\\", "").split())
        assert first.removeprefix("% ").startswith(self.NOTE)

    @pytest.mark.parametrize("flags", [("--json",), ("--format", "parquet", "--out", "table")])
    def test_what_holds_figures_alone_says_so_beside_them(self, run, earlier, flags):
        result = run("bench", "table", earlier, *flags)
        assert result.code == 0 and result.error == f"unweave: {self.NOTE}\n"

    def test_the_page_and_the_card_say_so(self, run, here, earlier):
        assert run("report", earlier, "--out", "page").code == 0
        page = (here / "page" / "report.html").read_text()
        assert page.index(self.NOTE.replace("'", "&#39;")) < page.index("<table")
        assert self.NOTE in (here / "page" / "model-card.md").read_text().replace("\\", "")

    def test_beside_a_new_one_it_is_refused_with_the_command_that_makes_it_again(self, run, here, earlier):
        record.write(synthetic(), here / "new")
        for verb in (("bench", "table"), ("report",)):
            result = run(*verb, "new", "old")
            assert result.code == 2 and result.out == ""
            assert result.error.startswith(
                "unweave: new and old can't share a table or a page: old was made by"
            )
            assert result.error.endswith("make it again with unweave bench trace class --tune 20\n")
