"""`report` and `bench table` of a run show its latest audit, wherever that was written."""

import json
import os
import shutil
from pathlib import Path

import pytest

from cli.written import row_of


@pytest.fixture
def audited(run, here, forgotten) -> Path:
    """A run with an audit of two retrained models, and a later one of one of them."""
    for references in (2, 1):
        assert run("audit", forgotten, "--references", references, "--quiet").code == 1
    return forgotten


def table_reason(run, place: Path) -> str:
    """The reason that the table of a run gives."""
    (stage,) = json.loads(run("bench", "table", place, "--json").out).values()
    (row,) = (row for name, row in stage["methods"].items() if name != "original")
    return row["reason"]


def set_date(folder: Path, seconds: int) -> None:
    """Changes when a folder's record was written."""
    os.utime(folder / "record.json", (seconds, seconds))


def test_the_newest_record_counts(run, audited):
    assert row_of(audited / "audit-2")["reason"] != row_of(audited / "audit")["reason"]
    for newest_name in ("audit-2", "audit"):
        for name in ("audit", "audit-2"):
            set_date(audited / name, 2000 if name == newest_name else 1000)
        assert table_reason(run, audited) == row_of(audited / newest_name)["reason"]
        report = json.loads(run("report", audited, "--json").out)["report"]
        assert report == str(audited / newest_name / "report.html")


def test_unfinished_ones_and_other_names_do_not(run, audited):
    shutil.copytree(audited / "audit", audited / "audit-notes")
    set_date(audited / "audit-notes", 4_000_000_000)
    (audited / "audit-3").mkdir()
    assert table_reason(run, audited) == row_of(audited / "audit-2")["reason"]
