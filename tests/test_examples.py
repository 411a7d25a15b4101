"""The scripts of `examples` run from end to end, and show what they say."""

import re
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
VERDICT = r"(PASS|FAIL|INCONCLUSIVE): "


@pytest.fixture
def run_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[[str], str]]:
    """Runs a script in an empty folder, as `python` does; returns what it prints."""
    known = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(EXAMPLES)

    def run(name: str) -> str:
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    yield run
    for path in EXAMPLES.glob("*.py"):
        if path.stem not in known:
            sys.modules.pop(path.stem, None)


def test_delete_records(run_script, tmp_path: Path):
    printed = run_script("delete_records.py")
    assert re.match(VERDICT, printed)
    assert re.search(r"^original +FAIL", printed, re.MULTILINE)  # its wrong labels show
    for name in ("model.safetensors", "split.json", "record.json", "report.html"):
        assert (tmp_path / "deleted" / name).stat().st_size


def test_compare_methods(run_script):
    rows = dict(re.findall(rf"^(\S+) +{VERDICT}", run_script("compare_methods.py"), re.MULTILINE))
    assert list(rows) == ["soften", "mix", "lur:recover"] and rows["soften"] == "FAIL"


def test_erase_class(run_script):
    rows = re.findall(r"^ +(\d) +(\d+)% +(\d+)%$", run_script("erase_class.py"), re.MULTILINE)
    before, after = ([int(row[i]) for row in rows] for i in (1, 2))
    assert before[3] >= 75 and after[3] <= 25
    assert sum(after[:3] + after[4:]) / 9 >= 75
