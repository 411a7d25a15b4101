"""`unweave forget` writes into its own folder, and nothing else moves."""

import json
import os
import re
import runpy
import shlex

import pytest
import torch
from safetensors.torch import load_file

import projects
from cli.written import MODEL, names
from projects import TRAINED, loads
from unweave.cli.forget_runs import records
from unweave.cli.forget_runs import run as forget_run
from unweave.cli.options import parse_settings
from unweave.descent.descend import Descent
from unweave.methods import METHODS
from unweave.methods.configure import configure

IDS = ("--ids", "r0/3,r0/5,r0/8")
SHORT = ("--method", "finetune", "--set", "how.epochs=1")


@pytest.fixture
def place(tmp_path) -> str:
    """A project whose model is trained."""
    return projects.project(tmp_path / "mine", TRAINED)


class TestFiles:
    def test_those_named_are_written_and_nothing_else(self, run, here, listed, tmp_path, place):
        files = listed(tmp_path)
        result = run("forget", place, *IDS, *SHORT, "--quiet")
        assert result.code == 0 and names(here) == ["forgotten"] and names(here / "forgotten") == MODEL
        other_files = {path: each for path, each in listed(tmp_path).items() if "/here/forgotten" not in path}
        assert other_files == files
        assert "Forgot 3 of 90 examples with finetune" in result.out
        assert "Next:  unweave audit forgotten" in result.out

    def test_a_damaged_model_is_called_so_and_a_sound_one_is_not(self, run, here, place):
        assert "damaged" not in run("forget", place, *IDS, *SHORT, "--quiet").out
        ruin = ("--method", "ascent", "--set", "how.lr=0.5", "--set", "how.steps=40")
        result = run("forget", place, *IDS, *ruin, "--quiet")
        damage = re.search(r"This model is damaged: RA fell by ([\d.]+) points", result.out)
        before, after = re.search(
            r"RA: accuracy on the retain set, % +([\d.]+) +([\d.]+)", result.out
        ).groups()
        assert result.code == 0 and abs(float(damage[1]) - (float(before) - float(after))) < 0.06

    def test_weights_on_disk_stay_as_they_are(self, run, here, tmp_path):
        change = f"{SAVED}\n\n{loads('given(model=saved())')}"
        place = projects.project(tmp_path / "mine", change)
        space = runpy.run_path(place)
        torch.save(space["train"](space["Records"](90, 0), 0).state_dict(), tmp_path / "mine" / "weights.pt")
        content = (tmp_path / "mine" / "weights.pt").read_bytes()
        assert run("forget", place, *IDS, *SHORT, "--quiet").code == 0
        assert (tmp_path / "mine" / "weights.pt").read_bytes() == content
        original_weights, weights = (
            torch.load(tmp_path / "mine" / "weights.pt", weights_only=True),
            load_file("forgotten/model.safetensors"),
        )
        assert original_weights.keys() == weights.keys() and not torch.equal(
            original_weights["last.weight"], weights["last.weight"]
        )

    @pytest.mark.parametrize(("mask", "mode"), [(0o027, 0o640), (0o077, 0o600)])
    def test_all_may_be_read_by_whom_the_process_lets(self, run, here, tmp_path, mask, mode):
        place = projects.project(tmp_path / "mine", OWN_FORM)
        mask_before = os.umask(mask)
        try:
            assert run("forget", place, *IDS, *SHORT, "--quiet").code == 0
            assert run("audit", "forgotten", "--references", 1, "--quiet").code == 1
        finally:
            os.umask(mask_before)
        modes = {path.name: path.stat().st_mode & 0o777 for path in here.rglob("*") if path.is_file()}
        assert {"own.safetensors", "model.safetensors", "report.html", "evidence.parquet"} <= modes.keys()
        assert set(modes.values()) == {mode}, modes

    def test_a_command_that_is_named_can_be_pasted(self, run, here, place):
        result = run("forget", place, *IDS, *SHORT, "--quiet", "--out", "my models/it's new")
        (command,) = re.findall("^Next:  (.*)$", result.out, re.MULTILINE)
        assert shlex.split(command) == ["unweave", "audit", "my models/it's new"]

    def test_a_finished_run_that_is_asked_for_again_is_done_already(self, run, here, listed, place):
        request = ("forget", place, *IDS, *SHORT, "--out", "new/run")
        assert run(*request, "--quiet").code == 0
        files = listed(here)
        for command in (request, (*request, "--dry-run")):
            result = run(*command)
            assert result.code == 0 and result.error == "" and listed(here) == files
            assert result.out.startswith(
                "Done already: new/run holds this run, 3 of 90 examples forgotten with"
            )
            assert "Model: new/run/model.safetensors\nNext:  unweave audit new/run\n" in result.out
        content = json.loads(run(*request, "--json").out)
        assert (content["out"], content["done_before"], content["forgotten"]) == ("new/run", True, 3)
        assert listed(here) == files

    def test_a_run_that_lost_a_file_is_done_again(self, run, here, place):
        assert run("forget", place, *IDS, *SHORT, "--quiet").code == 0
        for name in ("model.safetensors", "record.json", "split.json"):
            (here / "forgotten" / name).unlink()
            facts = json.loads(run("forget", place, *IDS, *SHORT, "--quiet", "--json").out)
            assert (facts["out"], facts["done_before"]) == ("forgotten", False)
            assert names(here) == ["forgotten"] and names(here / "forgotten") == MODEL

    @pytest.mark.parametrize("name", ["model.safetensors", "record.json", "split.json"])
    def test_a_run_with_a_broken_file_is_done_again(self, run, here, place, name):
        assert run("forget", place, *IDS, *SHORT, "--quiet").code == 0
        file = here / "forgotten" / name
        content = file.read_bytes()
        file.write_bytes(content.replace(b"examples", b"exempla") if name == "record.json" else content[:60])
        facts = json.loads(run("forget", place, *IDS, *SHORT, "--quiet", "--json").out)
        assert (facts["out"], facts["done_before"]) == ("forgotten", False)
        assert name == "record.json" or file.read_bytes() == content

    def test_a_run_of_anything_else_gets_a_number(self, run, here, listed, place):
        assert run("forget", place, *IDS, *SHORT, "--quiet").code == 0
        files = listed(here)
        changes = [("--ids", "r0/3"), (*IDS, "--set", "how.lr=0.01"), (*IDS, "--seed", 1)]
        for number, change in enumerate(changes, 2):
            facts = json.loads(run("forget", place, *SHORT, *change, "--quiet", "--json").out)
            assert (facts["out"], facts["done_before"]) == (f"forgotten-{number}", False)
        assert files.items() <= listed(here).items()

    def test_a_run_of_other_weights_data_or_code_gets_a_number(self, run, here, tmp_path, monkeypatch):
        change = "\n".join([READ, loads("given(model=read('weights'), train=Moved())")])
        place = projects.project(tmp_path / "mine", change)
        runs = iter(["forgotten", "forgotten-2", "forgotten-3", "forgotten-4"])
        for weights, shift in [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0)]:
            torch.save(torch.tensor(weights), tmp_path / "mine" / "weights.pt")
            torch.save(torch.tensor(shift), tmp_path / "mine" / "moved.pt")
            facts = json.loads(run("forget", place, *IDS, *SHORT, "--quiet", "--json").out)
            assert (facts["out"], facts["done_before"]) == (next(runs), False)
        monkeypatch.setattr(records, "package_digest", lambda: "edited")
        assert json.loads(run("forget", place, *IDS, *SHORT, "--json").out)["out"] == next(runs)

    def test_a_stopped_run_goes_on_with_the_original_it_trained(
        self, run, here, listed, monkeypatch, tmp_path
    ):
        def stopped(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        recipe = projects.recipe(tmp_path)
        with monkeypatch.context() as patch:
            patch.setattr(forget_run, "unlearn", stopped)
            result = run("forget", recipe, *SHORT, "--quiet")
        assert result.code == 130 and "the same command goes on" in result.error
        original_files = {path: each for path, each in listed(here).items() if "/models/" in path}
        assert names(here / "forgotten") == ["forget.json", "models"] and len(original_files) == 3
        assert run("forget", recipe, *SHORT, "--quiet").code == 0
        assert names(here) == ["forgotten"] and names(here / "forgotten") == sorted([*MODEL, "models"])
        assert original_files.items() <= listed(here).items()

    def test_a_run_that_fails_leaves_nothing(self, run, here, place):
        result = run("forget", place, *IDS, "--method", "original", "--quiet", "--out", "new/run")
        assert result.code == 3 and "nothing changed" in result.error and names(here) == []

    def test_a_dry_run_writes_nothing_and_says_what_would_be_done(self, run, here, listed, tmp_path, place):
        files = listed(tmp_path)
        result = run("forget", place, *IDS, *SHORT, "--dry-run")
        content = json.loads(run("forget", place, *IDS, *SHORT, "--dry-run", "--json").out)
        assert result.code == 0 and listed(tmp_path) == files
        assert result.out.startswith("Would forget 3 of 90 examples with finetune in about ")
        labels = runpy.run_path(place)["Records"](90, 0).labels[[3, 5, 8]].tolist()
        assert content["labels"] == {str(label): labels.count(label) for label in sorted(set(labels))}
        (method,) = re.findall("^Method: (.*)$", result.out, re.MULTILINE)
        assert method.startswith("finetune, how.") and "how.epochs=1" in method
        assert configure(METHODS["finetune"], parse_settings(method.split(", ")[1:])) == eval(
            content["repr"], {kind.__name__: kind for kind in (type(METHODS["finetune"]), Descent)}
        )
        assert content["data"]["forget"] == 3 and content["out"] == "forgotten"


class TestProgress:
    def test_it_is_told_beside_the_result_in_plain_lines(self, run, here, place, monkeypatch):
        monkeypatch.delenv("FORCE_COLOR", raising=False)
        result = run("forget", place, *IDS, *SHORT)
        lines = [f"Loaded {place}", "1/2  the original; now finetune", "2/2  finetune"]
        assert result.error.splitlines() == lines and "1/2" not in result.out
        assert "\x1b" not in result.out + result.error and "\r" not in result.error

    def test_quiet_tells_none(self, run, here, place):
        result = run("forget", place, *IDS, *SHORT, "--quiet")
        assert result.error == "" and result.out.startswith("Forgot 3")


OWN_FORM = """
class Formatted(Net):
    def save_pretrained(self, folder):
        from pathlib import Path
        from safetensors.torch import save_file

        Path(folder).mkdir()
        save_file(self.state_dict(), Path(folder) / "own.safetensors")


def load():
    torch.manual_seed(0)
    return given(model=Formatted())


def train(dataset, seed):
    torch.manual_seed(1 + seed)  # no reference is the original
    return Formatted()
"""
READ = """
from pathlib import Path


def stored(name):
    return torch.load(Path(__file__).parent / f"{name}.pt", weights_only=True)


def read(name):
    torch.manual_seed(0)
    model = Net()
    nn.init.constant_(model.last.bias, float(stored(name)))
    return model


class Moved(Records):
    def __init__(self):
        super().__init__(90, 0)
        self.x = self.x + stored("moved")
"""
SAVED = """
def saved():
    from pathlib import Path

    model = Net()
    model.load_state_dict(torch.load(Path(__file__).parent / "weights.pt", weights_only=True))
    return model
"""
