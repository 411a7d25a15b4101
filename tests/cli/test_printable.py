"""What somebody else's files say reaches a terminal as text: nothing in them moves its cursor or colours."""

import json
import re
from pathlib import Path

import pytest

from records import synthetic
from unweave.cli.terminal import show
from unweave.record.digest import seal

HOSTILE = "\x1b[2J\x1b]0;owned\x07\x9b31mPASS\r\u202egnp\ud800"
SHOWN = r"\x1b[2J\x1b]0;owned\x07\x9b31mPASS\r\u202egnp\ud800"
CONTROL = re.compile("[^\n\t -~\xa0-\u2027\u202f-\u2065\u206a-\ud7ff]")


@pytest.fixture
def theirs(tmp_path) -> Path:
    """The record of somebody else, with such characters wherever a text stands."""
    content = synthetic()
    trace = content["stages"]["trace"]
    row = trace["methods"]["lur"] | {
        "reason": f"{trace['methods']['lur']['verdict']}: {HOSTILE}",
        "repr": HOSTILE,
    }
    stage = trace | {"methods": {**trace["methods"], f"method {HOSTILE}": row}}
    content = content | {"stages": {f"stage {HOSTILE}": stage, **content["stages"]}}
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "record.json").write_text(json.dumps(seal(content)))
    return tmp_path / "theirs"


@pytest.mark.parametrize("form", ["text", "markdown", "latex"])
def test_tables_of_a_record_hold_no_control_characters(run, theirs, form):
    result = run("bench", "table", theirs, "--format", form)
    assert result.code == 0 and not CONTROL.search(result.out + result.error)
    text = re.sub(r"\\textbackslash(\{\})? ?", r"\\", result.out) if form == "latex" else result.out
    assert "x1b" in text and "owned" in text


def test_the_page_and_the_card_of_a_record_hold_none(run, here, theirs):
    result = run("report", theirs, "--out", "page")
    assert result.code == 0 and not CONTROL.search(result.out)
    for name in ("report.html", "model-card.md"):
        text = (here / "page" / name).read_text()
        assert not CONTROL.search(text) and "owned" in text


def test_json_keeps_what_the_record_says(run, theirs):
    result = run("bench", "table", theirs, "--json")
    assert not CONTROL.search(result.out) and f"stage {HOSTILE}" in json.loads(result.out)


def test_a_terminal_gets_none_either(monkeypatch, capsys, theirs):
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    show.print_stages(json.loads((theirs / "record.json").read_text()))
    assert not CONTROL.search(re.sub("\x1b\\[[0-9;]*m", "", capsys.readouterr().out))


def test_lines_tables_and_errors_hold_none(run, capsys):
    show.print_lines(f"a {HOSTILE}", "two\nlines")
    show.print_table(("Method", HOSTILE), [(HOSTILE, "1"), ("b", HOSTILE)])
    output = capsys.readouterr().out
    assert not CONTROL.search(output) and SHOWN in output and "two\nlines" in output
    result = run("report", f"no\x1b[31m{HOSTILE[:3]}")
    assert result.code == 2 and not CONTROL.search(result.error) and r"\x1b" in result.error
