"""`unweave audit` of what forget wrote: retrained models are kept, and a verdict says what it lacks."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import projects
import unweave
from cli.written import bits, names, row_of, stage_of
from unweave.audits.classifier import parquet
from unweave.bench.workers import Crew, run_serially
from unweave.cli.audits import run as audit_run
from unweave.cli.audits.run import CALIBRATION
from unweave.cli.inputs import run_folder
from unweave.cli.inputs.executor import Executor
from unweave.record import record

FILES = ["evidence.parquet", "record.json", "references", "report.html", "run.json"]


@pytest.fixture
def untouched(run, tmp_path):
    """A run on data with wrong labels whose model has hardly changed."""
    place = projects.project(tmp_path / "mine", projects.TRAINED)
    method_flags = ("--method", "finetune", "--set", "how.epochs=1", "--set", "how.lr=1e-4")
    result = run("forget", place, "--random", 0.3, *method_flags, "--out", tmp_path / "run", "--quiet")
    assert result.code == 0
    return tmp_path / "run"


class TestVerdict:
    def test_few_references_give_none_and_what_is_missing_is_named(self, run, here, forgotten):
        result = run("audit", forgotten, "--references", 2, "--quiet")
        reason = "INCONCLUSIVE: no verdict: 2 seeds, 10 needed; 0 calibration retrains, 12 needed"
        assert result.code == 1 and result.out.startswith(f"{reason}\n")
        assert row_of(forgotten / "audit")["reason"] == reason
        assert result.out.endswith(f"Report: {forgotten / 'audit' / 'report.html'}\n")

    def test_models_of_an_earlier_audit_are_found_and_not_called_retrained(self, run, here, forgotten):
        assert run("audit", forgotten, "--references", 2).code == 1
        two, three = (run("audit", forgotten, "--references", n).error.splitlines() for n in (2, 3))
        assert two[1:] == ["2/2  2 retrained models found"]
        assert three[1:] == ["2/3  2 retrained models found", "3/3  retrained with seed 2"]

    def test_without_references_only_what_needs_none_is_measured(self, run, here, forgotten):
        result = run("audit", forgotten, "--references", 0, "--json")
        content = json.loads(result.out)
        assert (
            result.code == 1 and "no retrained model" in content["reason"] and "no retrained" in result.error
        )
        assert {"ua", "ra", "ta", "auc"} <= content["scores"].keys() and "tv" not in content["scores"]
        assert "references" not in names(forgotten / "audit")

    def test_too_few_models_for_margins(self, refused, untouched):
        refused("--calibration must be at least 12, found 11", "audit", untouched, "--calibration", 11)
        refused("needs 10 references, found 3", "audit", untouched, "--references", 3, "--calibration", 20)

    @pytest.mark.slow  # the usual twelve: below
    def test_more_models_may_fix_the_margins(self, run, untouched):
        assert run("audit", untouched, "--calibration", 14, "--quiet").code == 1
        assert len([*(untouched / "audit" / "references").glob("*.parquet")]) == 10 + 14
        rerun = run("audit", untouched, "--json")
        assert json.loads(rerun.out)["out"] == str(untouched / "audit-2")
        assert "22 retrained models found" in rerun.error and "retrained with seed" not in rerun.error
        margins = [
            record.load(untouched / name)["stages"]["audit"]["margins"] for name in ("audit", "audit-2")
        ]
        assert margins[0] != margins[1]

    def test_a_model_that_has_not_forgotten_fails(self, run, here, untouched):
        result = run("audit", untouched, "--quiet", "--json")
        content = json.loads(result.out)
        assert result.code == 1 and content["verdict"] == "FAIL" and "under-forgetting" in content["reason"]
        seeds = [path.stem.rpartition("-")[2] for path in (untouched / "audit" / "references").glob("*.json")]
        fixing = range(CALIBRATION, CALIBRATION + 12)
        assert sorted(map(int, seeds)) == [*range(10), *fixing]

    def test_a_project_that_cannot_retrain_gets_none(self, run, here, tmp_path):
        place = projects.project(tmp_path / "mine", "train = None")
        flags = ("--method", "finetune", "--set", "how.epochs=1", "--quiet")
        assert run("forget", place, "--random", 0.3, *flags).code == 0
        result = run("audit", "forgotten", "--quiet")
        assert result.code == 1 and result.out.startswith("INCONCLUSIVE: no verdict: no retrained model")


SILENT = """
import os


class Silent(Net):
    def forward(self, x, scale):
        return super().forward(x, scale) * float(os.environ["ANSWER"])


def train(dataset, seed):
    raise AssertionError("it was retrained")


def load():
    torch.manual_seed(0)
    return given(model=Silent())
"""


def test_a_model_that_answers_nan_is_bad_input_and_nothing_is_retrained(refused, run, tmp_path, monkeypatch):
    place = projects.project(tmp_path / "mine", SILENT)
    monkeypatch.setenv("ANSWER", "1")
    flags = ("--method", "finetune", "--set", "how.epochs=1", "--out", tmp_path / "run", "--quiet")
    assert run("forget", place, "--random", 0.3, *flags).code == 0
    monkeypatch.setenv("ANSWER", "nan")
    refused("the unlearned model can't be audited: NaN: the logits", "audit", tmp_path / "run", "--quiet")


def test_a_run_with_a_recipe_elsewhere_is_audited_from_any_folder(run, here, trained, folder, monkeypatch):
    (folder / "recipe.toml").rename(here / "mine.toml")
    result = run("forget", folder, "--recipe", "mine.toml", "--method", "finetune", "--set", "how.epochs=1")
    assert result.code == 0
    (here / "below").mkdir()
    monkeypatch.chdir(here / "below")
    assert run("audit", here / "forgotten", "--references", 0).code == 1


class TestFigures:
    def test_they_are_those_of_the_answers_that_were_kept(self, run, here, forgotten):
        content = json.loads(run("audit", forgotten, "--references", 2, "--json", "--quiet").out)
        reference_files = sorted((forgotten / "audit" / "references").glob("*.parquet"))
        evidence = parquet.load(forgotten / "audit" / "evidence.parquet")
        expected = unweave.audit(evidence, [parquet.load(path) for path in reference_files])
        for name, score in expected.scores.items():
            assert content["scores"][name]["value"] == pytest.approx(score.value)
            assert content["scores"][name]["reference"] == pytest.approx(score.reference, nan_ok=True)
        assert len(reference_files) == 2 and content["scores"]["tv"]["n"] == 2

    def test_json_text_and_record_agree(self, run, here, forgotten):
        content = json.loads(run("audit", forgotten, "--references", 2, "--json", "--quiet").out)
        output = run("audit", forgotten, "--references", 2, "--quiet").out
        row = row_of(forgotten / "audit")
        assert {key: row[key] for key in ("verdict", "reason", "scores", "gap")}.items() <= content.items()
        assert content["margins"] == stage_of(forgotten / "audit")["margins"] is None
        score = row["scores"]["ra"]
        numbers = [content["original"]["ra"]["value"], *(score[key] for key in ("value", "reference", "gap"))]
        (line,) = [line for line in output.splitlines() if line.startswith("RA ")]
        assert line.split()[1:6] == ["%", *(f"{each:.2f}" for each in numbers)]
        assert content["report"] == str(forgotten / "audit" / "report.html")

    def test_references_are_trained_without_what_is_forgotten(self, run, here, tmp_path):
        place = projects.project(tmp_path / "mine", TELLING)
        flags = ("--method", "finetune", "--set", "how.epochs=1", "--quiet")
        assert run("forget", place, "--ids", "r0/1,r0/2,r0/3", *flags).code == 0
        result = run("audit", "forgotten", "--references", 2, "--seed", 40, "--quiet")
        assert result.out.startswith("87 40\n87 41\nINCONCLUSIVE")


class TestRequest:
    """What was deleted, from which model, how it was asked and what it cost: in the record and said."""

    def test_it_is_that_of_forget(self, run, here, tmp_path):
        place = projects.project(tmp_path / "mine")
        flags = ("--method", "finetune", "--set", "how.epochs=1", "--quiet")
        assert run("forget", place, "--ids", "r0/1,r0/2,r0/3", *flags).code == 0
        run("audit", "forgotten", "--references", 1, "--quiet")
        request, forget_request = (
            stage_of(Path(folder))["request"] for folder in ("forgotten/audit", "forgotten")
        )
        assert (request["examples"], request["of"], request["ids"]) == (3, 90, ["r0/1", "r0/2", "r0/3"])
        assert sum(request["classes"].values()) == 3 and request["model"] == "mine/project.py"
        assert request["asked"] == "--ids r0/1,r0/2,r0/3"
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", request["date"])
        assert request == forget_request
        page = Path("forgotten/audit/report.html").read_text()
        first = page[: page.index("<main>")]
        for sentence in ("3 of 90 examples", "r0/1, r0/2, r0/3", "mine/project.py", "--ids", request["date"]):
            assert sentence in first

    def test_of_a_recipe_it_is_what_the_recipe_says(self, run, here, forgotten):
        assert stage_of(forgotten)["request"]["asked"] == "as the recipe says"

    def test_a_run_of_an_earlier_version_tells_less_and_is_audited(self, run, here, forgotten):
        content = json.loads((forgotten / "record.json").read_text())
        del content["digest"], content["stages"]["audit"]["request"]
        (forgotten / "record.json").write_text(json.dumps(content | {"schema": record.EARLIER}))
        assert run("audit", forgotten, "--references", 1, "--quiet").code == 1
        request = stage_of(forgotten / "audit")["request"]
        assert request["asked"] is None and request["examples"] > 0

    def test_what_it_cost_stands_beside_a_retraining(self, run, here, forgotten):
        output = run("audit", forgotten, "--references", 2, "--quiet").out
        stage, row = stage_of(forgotten / "audit"), row_of(forgotten / "audit")
        reference = stage["reference"]
        assert row["cost"] == pytest.approx(row["seconds"] / reference["seconds"])
        assert reference["gradient_evaluations"] > row["gradient_evaluations"] > 0
        cost = f"{row['gradient_evaluations']} gradient evaluations and {row['seconds']:.1f} s"
        price = f"{reference['gradient_evaluations']} gradient evaluations and {reference['seconds']:.1f} s"
        expected = f"Unlearning took {cost}; a retraining takes {price}. Seconds vary with the machine"
        assert expected in " ".join(output.split())
        page = (forgotten / "audit" / "report.html").read_text()
        assert f"<td>{row['cost']:.2f} <small>" in page


class TestFolder:
    def test_it_lies_in_the_run_whose_files_stay(self, run, here, listed, forgotten):
        before, model = listed(forgotten), bits(forgotten)
        run("audit", forgotten, "--references", 1, "--quiet")
        assert names(forgotten / "audit") == FILES and names(here) == []
        after = listed(forgotten)
        assert before.items() <= after.items() and bits(forgotten) == model
        assert all("/audit" in path for path in after.keys() - before.keys())

    def test_more_references_go_on_with_the_earlier_ones(self, run, here, listed, forgotten):
        assert run("audit", forgotten, "--references", 1, "--quiet").code == 1
        before = listed(forgotten / "audit" / "references")
        content = json.loads(run("audit", forgotten, "--references", 3, "--quiet", "--json").out)
        after = listed(forgotten / "audit" / "references")
        assert before.items() <= after.items() and (len(before), len(after)) == (5, 15)
        assert content["out"] == str(forgotten / "audit") and content["scores"]["tv"]["n"] == 3

    def test_models_are_stored_unless_the_user_declines(self, run, here, forgotten):
        reference_folder = forgotten / "audit" / "references"
        result = run(
            "audit", forgotten, "--references", 2, "--answers-only", "--attacks", "compression", "--quiet"
        )
        assert len([*reference_folder.glob("*.parquet")]) == 2, result.error
        assert not [*reference_folder.rglob("model.*")]
        assert "MiB" not in result.out
        output = run("audit", forgotten, "--references", 3, "--attacks", "compression", "--quiet").out
        (path,) = reference_folder.rglob("model.safetensors")
        size = f"{path.stat().st_size / 2**20:,.1f}"
        assert f"1 retrained model takes {size} MiB in" in output and "--answers-only" in output

    def test_fewer_references_get_a_folder_of_their_own(self, run, here, listed, forgotten):
        run("audit", forgotten, "--references", 2, "--quiet")
        files = listed(forgotten / "audit")
        content = json.loads(run("audit", forgotten, "--references", 1, "--quiet", "--json").out)
        assert content["out"] == str(forgotten / "audit-2") and listed(forgotten / "audit") == files

    def test_a_stopped_audit_goes_on(self, run, here, listed, forgotten, monkeypatch):
        def stops(run: str, seed: int, folder: str, device: str | None) -> None:
            if seed == 1:
                raise KeyboardInterrupt
            retrain_one(run, seed, folder, device)

        retrain_one = run_folder.retrain_one
        with monkeypatch.context() as patch:
            patch.setattr(run_folder, "retrain_one", stops)
            result = run("audit", forgotten, "--references", 2, "--quiet")
        assert result.code == 130 and names(forgotten / "audit") == ["references", "run.json"]
        files = listed(forgotten / "audit" / "references")
        assert run("audit", forgotten, "--references", 2, "--quiet").code == 1
        assert files.items() <= listed(forgotten / "audit" / "references").items() and len(files) == 5

    def test_workers_live_while_models_are_retrained_and_no_longer(self, run, here, forgotten, monkeypatch):
        events = []

        @contextmanager
        def crew(self: Executor, device: str, jobs: int) -> Iterator[Crew]:
            events.append(f"workers on {device}")
            yield run_serially
            events.append("no workers")

        def note(function: Callable[..., Any]) -> None:
            def call(*arguments: Any, **more: Any) -> Any:
                events.append(function.__name__)
                return function(*arguments, **more)

            monkeypatch.setattr(audit_run, function.__name__, call)

        note(audit_run.collect_answer_pair)
        note(audit_run.audit_answers)
        monkeypatch.setattr(Executor, "crew", crew)
        assert run("audit", forgotten, "--references", 1, "--quiet").code == 1
        assert events == ["collect_answer_pair", "workers on cpu", "no workers", "audit_answers"]

    def test_out_may_be_elsewhere(self, run, here, listed, forgotten):
        files = listed(forgotten)
        run("audit", forgotten, "--references", 1, "--quiet", "--out", "report/of it")
        assert names(here / "report" / "of it") == FILES and listed(forgotten) == files

    @pytest.mark.slow
    def test_two_processes_find_what_one_found(self, run, here, forgotten):
        contents = [
            json.loads(run("audit", forgotten, "--references", 2, *flags, "--json", "--quiet").out)
            for flags in (("--jobs", 2, "--out", "two"), ("--out", "one"))
        ]
        assert contents[0]["scores"] == contents[1]["scores"]


TELLING = """
quietly = train


def train(dataset, seed):
    print(len(dataset), seed)
    return quietly(dataset, seed)
"""
