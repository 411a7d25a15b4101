"""`unweave attacks` and `unweave audit --attacks`."""

import json
import re
import shutil
from pathlib import Path

import pytest

import launched
import projects
import unweave
from audits.attacks.toy import CALIBRATION, ORIGINAL, REFERENCES, answers
from cli.written import stage_of
from for_each import for_each
from unweave.audits.attack import TIERS
from unweave.audits.attack_runs import budget
from unweave.audits.attacks import ATTACKS
from unweave.audits.classifier import parquet
from unweave.audits.diffusion.image_attacks import IMAGE_ATTACKS
from unweave.record import record


class TestList:
    def test_every_attack_is_listed_once_with_its_limits(self, run):
        result = run("attacks")
        assert result.code == 0 and result.error == ""
        first, _, limits = result.out.partition("What each cannot show:")
        for text in (first, limits):
            names = re.findall(r"^([a-z-]+)  ", text, re.MULTILINE)
            assert sorted(set(names)) == sorted(names) == sorted([*ATTACKS, *IMAGE_ATTACKS])
        assert all(f"T{tier}" in first for tier in TIERS)

    def test_the_list_in_json_is_the_registry(self, run):
        entries = json.loads(run("attacks", "--json").out)
        assert list(entries) == [*ATTACKS, *IMAGE_ATTACKS]
        for name, attack in IMAGE_ATTACKS.items():
            assert entries[name]["families"] == list(attack.families)
        for name, attack in ATTACKS.items():
            each = entries[name]
            assert each["families"] == ["classifier"]
            assert (each["tier"], each["cost"], each["cannot"]) == (attack.tier, attack.cost, attack.cannot)

    def test_one_attack_is_shown_alone(self, run):
        result = run("attacks", "rmia")
        assert result.out.startswith(f"rmia: {ATTACKS['rmia'].paper}\n") and "klom" not in result.out
        assert "Runs in: unweave audit --attacks." in result.out

    def test_out_keeps_the_list(self, run, here):
        result = run("attacks", "--json", "--out", "kept")
        assert json.loads((here / "kept" / "attacks.json").read_text()) == json.loads(result.out)

    def test_an_unknown_name_is_refused(self, refused):
        refused("unknown attack 'rima' .did you mean 'rmia'", "attacks", "rima")

    def test_an_attack_on_generators_says_for_which(self, run):
        result = run("attacks", "chosen-prefix")
        assert "For: text-to-image." in result.out and "UnlearnDiffAtk" in result.out


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """The answers of a genuine retrain, of the original, and of all retrained models."""
    folder = tmp_path_factory.mktemp("answers")
    (folder / "reference").mkdir()
    for number, each in enumerate([*REFERENCES, *CALIBRATION]):
        parquet.save(each, folder / "reference" / f"seed {number}.parquet")
    parquet.save(answers(50), folder / "good.parquet")
    parquet.save(ORIGINAL, folder / "original.parquet")
    return folder


def test_answers_alone_are_attacked_and_what_needs_a_model_is_named(run, here, files):
    flags = ("--reference", files / "reference", "--original", files / "original.parquet", "--attacks", "all")
    result = run("audit", "--evidence", files / "good.parquet", *flags)
    assert result.code == 0 and result.out.startswith("PASS: ")
    attacks_run = stage_of(here / "unweave-audit")["attacks"]
    assert attacks_run["valid"] and {row["attack"] for row in attacks_run["results"]} == {
        "forget-vs-unseen", "transfer", "rmia", "functional-distance", "streisand",
    }  # fmt: skip
    assert "only their answers are known" in attacks_run["not_run"]["relearning"]
    output = " ".join(result.out.split())
    assert "The controls hold: " in output
    assert "Not run: last-layer-bias, label-inference, representation, compression, zrf" in output
    second = json.loads(run("audit", "--evidence", files / "good.parquet", *flags, "--json").out)
    assert second["out"] == "unweave-audit" and second["attacks"]["controls"] == attacks_run["controls"]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A run of a project of a user."""
    from unweave.cli import main

    folder = tmp_path_factory.mktemp("attacked")
    place = projects.project(folder / "mine", projects.TRAINED)
    method_flags = ["--method", "finetune", "--set", "how.epochs=1", "--quiet"]
    assert main(["forget", place, "--random", "0.3", "--out", str(folder / "run"), *method_flags]) == 0
    return folder / "run"


def test_the_models_of_a_run_are_examined_and_attacks_are_added_to_an_earlier_audit(run, here, made):
    command = ("audit", made, "--out", here / "audit", "--references", 1, "--quiet", "--json")
    assert run(*command).code == 1
    assert "attacks" not in stage_of(here / "audit")
    attack_flags = ("--attacks", "representation,zrf,rmia,functional-distance")
    audit = json.loads(run(*command, *attack_flags).out)
    assert audit["out"] == str(here / "audit") and audit["attacks"]["tier"] == 1
    rows = {(row["attack"], row["figure"]): row for row in audit["attacks"]["results"]}
    assert {attack for attack, _ in rows} == {"representation", "zrf", "functional-distance", "rmia"}
    assert rows["zrf", "zrf"]["retrained"] is not None and rows["zrf", "zrf"]["original"] is not None
    assert rows["functional-distance", "disagreement"]["retrained"] is None  # no other one to compare it with
    (file,) = (here / "audit" / "references").rglob("attacks-*.json")
    assert json.loads(file.read_text()).keys() == {"representation", "zrf"}


def test_an_update_whose_records_have_two_inputs_is_not_inverted_and_the_reason_is_said(run, here, made):
    flags = ("--attacks", "inversion", "--references", 0, "--out", here / "audit", "--quiet", "--json")
    attacks_run = json.loads(run("audit", made, *flags).out)["attacks"]
    why = "it reconstructs inputs that are one tensor of floats, and these are not"
    assert attacks_run["results"] == [] and attacks_run["not_run"]["inversion"] == why


def test_other_attacks_get_a_report_of_their_own_and_share_the_retrained_models(run, here, made, listed):
    command = ("audit", made, "--out", here / "audit", "--quiet", "--json", "--references")
    first = json.loads(run(*command, 1, "--attacks", "rmia").out)
    before = listed(here / "audit")
    other = json.loads(run(*command, 1, "--attacks", "representation,functional-distance").out)
    assert other["out"] == str(here / "audit-2") and other["scores"] == first["scores"]
    assert not (here / "audit-2" / "references").exists()
    after = listed(here / "audit")
    assert before.items() <= after.items()
    (new_file,) = after.keys() - before.keys()
    assert Path(new_file).name.startswith("attacks-")
    assert json.loads(run(*command, 0).out)["out"] == str(here / "audit-3")
    repeat = json.loads(run(*command, 1, "--attacks", "rmia").out)
    assert repeat["out"] == str(here / "audit") and repeat["scores"] == first["scores"]


def test_a_tier_sets_the_number_of_references_and_the_budget_what_fits(run, here, made):
    flags = ("--attacks", "all", "--tier", 0, "--budget", 5, "--out", here / "audit", "--json")
    audit = json.loads(run("audit", made, *flags, "--quiet").out)
    assert audit["attacks"]["tier"] == 0 and audit["attacks"]["budget"] == 5
    assert not (here / "audit" / "references").exists()
    attack_names = {row["attack"] for row in audit["attacks"]["results"]}
    assert attack_names == {"forget-vs-unseen", "transfer", "streisand"}
    reasons = audit["attacks"]["not_run"]
    assert reasons["rmia"] == "its tier is T1, and T0 was asked for"
    assert reasons["relearning"].endswith("gradient evaluations per model, and 4 of the budget are left")
    (stage,) = record.load(here / "audit")["stages"].values()
    assert stage["attacks"] == audit["attacks"]


def test_a_budget_of_time_becomes_gradients_once_and_is_kept(run, here, made, monkeypatch):
    monkeypatch.setattr(budget, "seconds_per_gradient", lambda *_: 1.0)
    flags = ("--attacks", "all", "--tier", 0, "--budget", "1m", "--out", here / "audit", "--json", "--quiet")
    first = json.loads(run("audit", made, *flags).out)
    assert first["attacks"]["budget"] == 30  # a minute for two models, a second for each gradient
    assert "relearning" in first["attacks"]["not_run"] and "representation" not in first["attacks"]["not_run"]
    monkeypatch.setattr(budget, "seconds_per_gradient", lambda *_: 100.0)
    second = json.loads(run("audit", made, *flags).out)
    assert second["out"] == first["out"] and second["attacks"]["budget"] == 30
    other = json.loads(run("audit", made, *flags[:5], "2m", *flags[6:]).out)
    assert other["out"] == str(here / "audit-2") and other["attacks"]["budget"] == 0


@for_each(
    ("flags", "sentence"),
    [
        (("--attacks", "rima"), "unknown attack 'rima' .did you mean 'rmia'"),
        (("--attacks", ","), "attacks must be default, all, or names such as rmia"),
        (("--attacks", "all", "--tier", 5), "a tier must be one of 0, 1, 2, 3, found 5"),
        (("--attacks", "all", "--budget", -1), "a budget must be a time such as 90s, 10m or 1h, or gradient"),
        (
            ("--attacks", "all", "--budget", "0m"),
            "a budget must be a time such as 90s, 10m or 1h, or gradient",
        ),
        (("--tier", 1), "a tier and a budget are of attacks, found none"),
        (("--budget", 1), "a tier and a budget are of attacks, found none"),
    ],
)
def test_bad_input_is_refused_before_anything_is_retrained(refused, made, flags, sentence):
    refused(sentence, "audit", made, *flags, "--quiet")


NEW = '''
"""The share of forget examples that the model names rightly."""

from unweave.audits.attack import Attack
from unweave.audits.intervals import share_interval
from unweave.audits.classifier.logits import is_correct


def attack_figures(model, retrained):
    """The share."""
    right = is_correct(model.outputs.logits["forget"], model.outputs.labels["forget"])
    return {"share": share_interval(right.tolist())}


ATTACK = Attack(
    name="plain",
    paper="ours",
    evidence="logits",
    tier=0,
    fewest=1,
    says="A share.",
    cannot="Anything else.",
    figures=attack_figures,
)
'''


def test_a_new_attack_is_one_file_and_one_line(files, tmp_path):
    package, script = tmp_path / "unweave", tmp_path / "command.py"
    shutil.copytree(Path(unweave.__file__).parent, package)
    room = package / "audits" / "attacks"
    (room / "plain.py").write_text(NEW)
    registry = (room / "__init__.py").read_text()
    registry = registry.replace("    rmia,\n", "    plain,\n    rmia,\n", 1)
    (room / "__init__.py").write_text(registry.replace("_ALL = (\n", "_ALL = (\n    plain.ATTACK,\n", 1))
    flags = ["--reference", str(files / "reference"), "--attacks", "plain", "--json"]
    script.write_text("import sys\nfrom unweave.cli import main\nsys.exit(main(sys.argv[1:]))\n")
    command = ["audit", "--evidence", str(files / "original.parquet"), *flags]
    result = launched.run_script(script, command)
    assert result is not None and result.code == 1, result
    (row,) = json.loads(result.out)["attacks"]["results"]
    assert (row["attack"], row["figure"], row["finding"]) == ("plain", "share", "under-forgetting")
