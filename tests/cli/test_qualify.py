"""`unweave qualify`, and `unweave audit --qualified`, which retrains nothing."""

import json
import shutil
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pytest

import projects
from cli.written import stage_of
from unweave.bench.study import Study
from unweave.bench.tune import as_toml
from unweave.cli import INTERRUPTED, main
from unweave.families.classifier import ClassifierFamily
from unweave.record import record

QUICK = """
def train(dataset, seed):
    torch.manual_seed(seed)
    model = Net()
    items = [dataset[i] for i in range(len(dataset))]
    x, label = torch.stack([each["x"] for each in items]), torch.tensor([each["label"] for each in items])
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    for _ in range(12):
        loss = nn.functional.cross_entropy(model(x, torch.ones(1)), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def load():
    return given(model=train(Records(90, 0), 0))
"""
"""A training in one batch a step."""

METHOD = ("--method", "finetune", "--set", "how.epochs=1")
SEARCH = Study({"how.epochs": 1}, 0.0, [{}], method=ClassifierFamily().method_named("finetune"))
TUNED = as_toml({"finetune": SEARCH}, [1000])
"""The same settings, as a search writes them."""

FEW = ("--strata", "random,memorized", "--requests", "4", "--fraction", "0.1", "--quiet")


@dataclass(frozen=True)
class Resumed:
    """A qualification that was stopped when its folds were trained, lost a model, and was resumed.

    Args:
        place: The project.
        folder: The qualification.
        folds: The answers of the folds' models with their times when it was stopped.
        lost: Those of the model whose file was lost then.
        printed: What the command printed that resumed it.
    """

    place: str
    folder: Path
    folds: dict[Path, int]
    lost: Path
    printed: str


def stop(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.fixture(scope="session")
def resumed(tmp_path_factory) -> Resumed:
    """A project and its qualification, by the same command twice."""
    folder = tmp_path_factory.mktemp("qualified")
    place, out = projects.project(folder / "mine", QUICK), folder / "done"
    (folder / "tuned.toml").write_text(TUNED)
    command = ["qualify", place, *METHOD[:2], "--tuned", str(folder / "tuned.toml"), *FEW, "--out", str(out)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unweave.bench.qualification.compare", stop)
        assert main(command) == INTERRUPTED
    folds = {path: path.stat().st_mtime_ns for path in (out / "cells").rglob("*.parquet")}
    reference = next(out.glob("cells/fold-0-1/*/retrained.json"))
    reference.unlink()
    output = StringIO()
    with redirect_stdout(output):
        assert main(command) == 0
    return Resumed(place, out, folds, reference.with_suffix(".parquet"), output.getvalue())


@pytest.fixture(scope="session")
def qualified(resumed) -> tuple[str, Path]:
    """A project and its qualification."""
    return resumed.place, resumed.folder


@pytest.fixture
def forgot(run, here, qualified):
    """Forgets something of that project, into a folder of this name."""

    def call(name: str, *request: object, method: tuple[str, ...] = METHOD) -> Path:
        result = run("forget", qualified[0], *request, *method, "--out", here / name, "--quiet")
        assert result.code == 0, result.error
        return here / name

    return call


class TestQualification:
    def test_every_proxy_request_has_a_verdict_from_its_retrained_models(self, qualified):
        content = record.load(qualified[1])
        assert list(content["stages"]) == [f"random-{i}" for i in range(1, 5)]
        for name, stage in content["stages"].items():
            assert len(stage["seeds"]) == 10 and len(stage["calibration_seeds"]) == 12
            row = content["qualification"]["requests"][name]
            assert row["verdict"] == stage["methods"]["finetune"]["verdict"]
            assert row["about"]["size"] == 9 == stage["data"]["forget"]
            assert row["offsets"].keys() == row["margins"].keys() == {"ua", "ra", "ta", "auc", "held_out_tv"}

    def test_it_counts_how_verdicts_without_retraining_agree(self, qualified):
        rows = record.load(qualified[1])["qualification"]["agreement"]
        models = {row["model"]: sum(row["pairs"].values()) for row in rows}
        assert models == {"finetune": 40, "original": 4, "retrained": 4}
        assert all(row["requests"] == 4 and row["stratum"] == "random" for row in rows)

    def test_a_stratum_with_too_few_records_is_named(self, qualified):
        why = record.load(qualified[1])["qualification"]["skipped"]
        assert why.keys() == {"memorized"}
        assert "memorized: 4 requests of 9 records need at most 30 of 90" in (
            (qualified[1] / "report.html").read_text()
        )

    def test_the_same_command_goes_on_and_trains_nothing_again(self, resumed):
        assert "Cost, retrains" in resumed.printed
        assert "models of 4 requests" in " ".join(resumed.printed.split())
        assert len(resumed.folds) == 15
        new_files = {path for path, time in resumed.folds.items() if path.stat().st_mtime_ns != time}
        assert new_files == {resumed.lost}


class TestAudit:
    def test_nothing_is_retrained_and_everything_says_so(self, run, forgot, qualified):
        folder = forgot("run", "--random", 0.1)
        result = run("audit", folder, "--qualified", qualified[1], "--quiet")
        output = " ".join(result.out.split())
        assert result.code in (0, 1), result.error
        assert "no reference of this request was retrained" in output and "stratum random" in output
        out = folder / "audit-qualified"
        assert not (out / "references").exists()
        stage = stage_of(out)
        assert stage["reference"]["scores"] == {} and stage["qualified"]["stratum"] == "random"
        assert "No reference of this request was retrained" in (out / "report.html").read_text()
        report = run("report", out)
        assert report.code == 0, report.error

    def test_json_says_what_the_verdict_rests_on(self, run, forgot, qualified):
        result = run(
            "audit", forgot("run", "--random", 0.1), "--qualified", qualified[1], "--json", "--quiet"
        )
        content = json.loads(result.out)["qualified"]
        assert content["requests"] == 4 and content["about"]["size"] == 9 and len(content["like"]) == 4

    @pytest.mark.parametrize(
        ("request_flags", "why"),
        [(("--class", 1), "it holds whole classes"), (("--random", 0.4), "its size is 36, theirs 9")],
    )
    def test_a_request_that_no_stratum_covers_is_inconclusive(
        self, run, forgot, qualified, request_flags, why
    ):
        result = run("audit", forgot("run", *request_flags), "--qualified", qualified[1], "--quiet")
        output = " ".join(result.out.split())
        assert (
            result.code == 1
            and output.startswith("INCONCLUSIVE: no stratum covers the request")
            and why in output
        )


class TestRefused:
    def test_another_method(self, refused, forgot, qualified):
        other = forgot("run", "--random", 0.1, method=("--method", "finetune", "--set", "how.epochs=2"))
        refused(
            "differs in the method and its settings: .* has epochs=1.0, the run has epochs=2.0: qualify",
            "audit",
            other,
            "--qualified",
            qualified[1],
            "--quiet",
        )

    def test_methods_of_another_format(self, refused, forgot, qualified, monkeypatch):
        other = forgot("run", "--random", 0.1)
        monkeypatch.setattr("unweave.cli.inputs.qualification.METHODS_FORMAT", -1)
        refused("unweave's methods, since changed", "audit", other, "--qualified", qualified[1], "--quiet")

    def test_another_model(self, refused, run, here, qualified, tmp_path):
        change = QUICK.replace("(90, 0), 0))", "(90, 0), 1))")
        place = projects.project(tmp_path / "other", change)
        assert run("forget", place, "--random", 0.1, *METHOD, "--out", here / "run", "--quiet").code == 0
        refused("the original's weights", "audit", here / "run", "--qualified", qualified[1], "--quiet")

    def test_other_data(self, refused, run, here, qualified, tmp_path):
        change = QUICK.replace("given(model=", "given(test=Records(120, 2), model=")
        place = projects.project(tmp_path / "other", change)
        assert run("forget", place, "--random", 0.1, *METHOD, "--out", here / "run", "--quiet").code == 0
        refused("differs in the data: ", "audit", here / "run", "--qualified", qualified[1], "--quiet")

    def test_an_interrupted_one(self, refused, forgot, qualified, tmp_path):
        folder = Path(shutil.copytree(qualified[1], tmp_path / "copied"))
        (folder / "record.json").unlink()
        refused("was interrupted", "audit", forgot("run", "--random", 0.1), "--qualified", folder, "--quiet")

    def test_one_that_lost_a_model(self, refused, forgot, qualified, tmp_path):
        folder = Path(shutil.copytree(qualified[1], tmp_path / "copied"))
        next(folder.glob("cells/fold-0-0/*/retrained.parquet")).write_bytes(b"")
        refused("was changed", "audit", forgot("run", "--random", 0.1), "--qualified", folder, "--quiet")

    @pytest.mark.parametrize("flags", [("--references", 2), ("--attacks", "default"), ("--jobs", 2)])
    def test_flags_that_retrain(self, refused, tmp_path, flags):
        refused("does not go with", "audit", tmp_path, "--qualified", tmp_path, *flags, "--quiet")

    def test_what_is_no_given_classifier(self, refused, tmp_path):
        refused("one given model", "qualify", "digits", "--quiet")
        place = projects.project(tmp_path / "mine", "train = None")
        refused("no way to retrain", "qualify", place, "--quiet")
        (tmp_path / "part.toml").write_text("[methods.finetune]\nhow.epochs = 1")
        part = ("--method", "finetune", "--tuned", tmp_path / "part.toml")
        refused(r"part\.toml must name all settings of finetune", "qualify", place, *part, "--quiet")
        refused("found 'hard'", "qualify", place, "--strata", "hard", "--quiet")
        for name in ("retrain", "original"):
            refused(f"tests a method, found {name}", "qualify", place, "--method", name, "--quiet")
