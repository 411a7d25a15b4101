"""Records that can't share a table are refused by name, before anything is printed."""

import copy
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from records import put, synthetic
from unweave.record import record

RECIPE = {
    "data": {"name": "digits", "folder": "here"},
    "train": {"lr": 0.2, "epochs": 5},
    "seeds": [0, 1],
    "methods": {"lur": {"alpha": 0.1}},
}


@pytest.fixture
def one() -> dict:
    """A record of one stage."""
    stage = synthetic()["stages"]["class"]
    return synthetic() | {"stages": {"tiny": stage | {"recipe": RECIPE}}}


@pytest.fixture
def compare_with(run, here, one) -> Callable[[dict], tuple]:
    """Writes the record and another, and calls the table of both."""

    def call(other: dict, *flags: str):
        record.write(one, here / "one")
        record.write(other, here / "other")
        return run("bench", "table", "one", "other", *flags)

    return call


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("environment", "code"), "f" * 64, "made by code 0.1.0 (000000000000) and 0.1.0 (ffffffffffff)"),
        (("environment", "packages", "unweave"), "0.2.0", "made by code 0.1.0 (000000000000) and 0.2.0"),
        (
            ("stages", "tiny", "data", "digest"),
            "cd" * 32,
            "stage 'tiny' has data abababababab and cdcdcdcdcdcd",
        ),
        (("stages", "tiny", "recipe", "train", "lr"), 0.1, "stage 'tiny' has train.lr = 0.2 and 0.1"),
        (("stages", "tiny", "recipe", "train", "batch"), 9, "stage 'tiny' has train.batch = unset and 9"),
    ],
)
@pytest.mark.parametrize("flags", [(), ("--json",), ("--format", "html", "--out", "page")])
def test_other_data_code_or_training_is_refused(compare_with, one, here, path, value, said, flags):
    result = compare_with(put(copy.deepcopy(one), *path, value=value), *flags)
    assert result.code == 2 and result.out == "" and not (here / "page").exists()
    assert result.error.startswith(f"unweave: one and other can't share a table: {said}")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("stages", "tiny", "recipe", "seeds"), [0]),
        (("stages", "tiny", "recipe", "methods"), {}),
        (("stages", "tiny", "recipe", "data", "folder"), "there"),
        (("environment", "date"), "2026-02-03"),
    ],
)
def test_other_seeds_settings_folders_and_days_may_share_one(compare_with, one, path, value):
    result = compare_with(put(copy.deepcopy(one), *path, value=value))
    titles = re.findall("^.*: tiny$", result.out, re.MULTILINE)
    assert result.code == 0 and titles == ["one: tiny", "other: tiny"]


def test_stages_of_other_names_may_have_other_data(compare_with, one):
    other = copy.deepcopy(one)
    other["stages"]["second"] = other["stages"].pop("tiny")
    other["stages"]["second"]["data"]["digest"] = "cd" * 32
    result = compare_with(other)
    assert result.code == 0 and "\nsecond\n" in result.out


def test_one_record_of_another_schema_is_named(refused, one, here, tmp_path):
    record.write(one, tmp_path / "one")
    path = Path(record.write(one, tmp_path / "other"))
    path.write_text(path.read_text().replace("unweave.record/2", "unweave.record/9"))
    refused("other.*expected a record of schema", "bench", "table", tmp_path / "one", tmp_path / "other")


def test_runs_of_other_requests_are_named_with_what_shows_them_together(compare_with, one):
    one["stages"] = {"audit": {**one["stages"]["tiny"], "recipe": {}}}
    result = compare_with(put(copy.deepcopy(one), "stages", "audit", "data", "digest", value="cd" * 32))
    assert result.code == 2 and "show each alone, or several on one page with unweave report" in result.error
