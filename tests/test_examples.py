"""The scripts of `examples` run from end to end, and show what they say; quick tests run them shortened."""

import re
import runpy
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pages import shorten_training

EXAMPLES = Path(__file__).parents[1] / "examples"
VERDICT = r"(PASS|FAIL|INCONCLUSIVE): "
DELETED = ("model.safetensors", "split.json", "record.json", "report.html")

Run = Callable[..., str]


@pytest.fixture
def run_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Run]:
    """Runs a script in an empty folder, as `python` does; returns what it prints."""
    modules, examples = set(sys.modules), tmp_path / "examples"
    shutil.copytree(EXAMPLES, examples)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.syspath_prepend(examples)

    def run(name: str, *, short: bool = False) -> str:
        for path in examples.glob("*.py") if short else ():
            path.write_text(shorten_training(path.read_text(), audited=False))
        runpy.run_path(str(examples / name), run_name="__main__")
        return capsys.readouterr().out

    yield run
    for path in EXAMPLES.glob("*.py"):
        if path.stem not in modules:
            sys.modules.pop(path.stem, None)


def verdicts(output: str) -> dict[str, str]:
    """The verdict of each method in the table of a comparison."""
    return dict(re.findall(rf"^(\S+) +{VERDICT}", output, re.MULTILINE))


def shares(output: str) -> list[tuple[int, int]]:
    """Per digit, the percent of recognised images before and after."""
    rows = re.findall(r"^ +(\d) +(\d+)% +(\d+)%$", output, re.MULTILINE)
    assert [int(digit) for digit, _, _ in rows] == list(range(10))
    return [(int(before), int(after)) for _, before, after in rows]


def test_shortened_scripts_run_and_print_their_tables(run_script: Run):
    assert re.match(VERDICT, run_script("delete_records.py", short=True))
    assert all((Path("deleted") / name).stat().st_size for name in DELETED)
    assert list(verdicts(run_script("compare_methods.py"))) == ["soften", "mix", "lur:recover"]
    assert shares(run_script("erase_class.py"))


@pytest.mark.slow
def test_delete_records(run_script: Run):
    output = run_script("delete_records.py")
    assert re.match(VERDICT, output)
    assert re.search(r"^original +FAIL", output, re.MULTILINE)  # its wrong labels show
    assert all((Path("deleted") / name).stat().st_size for name in DELETED)


@pytest.mark.slow
def test_compare_methods(run_script: Run):
    results = verdicts(run_script("compare_methods.py"))
    assert list(results) == ["soften", "mix", "lur:recover"] and results["soften"] == "FAIL"


@pytest.mark.slow
def test_erase_class(run_script: Run):
    before, after = zip(*shares(run_script("erase_class.py")), strict=True)
    assert before[3] >= 75 and after[3] <= 25
    assert sum(after[:3] + after[4:]) / 9 >= 75
