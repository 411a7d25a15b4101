"""The scripts of `examples` run from end to end, and show what they say."""

import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"
VERDICT = r"(PASS|FAIL|INCONCLUSIVE): "


def run_script(name: str, folder: Path) -> str:
    """What a script prints that runs in a folder; warnings are errors."""
    command = [sys.executable, "-W", "error", str(EXAMPLES / name)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, f"{name}:\n{done.stdout}{done.stderr}"
    return done.stdout


def test_delete_records(tmp_path: Path):
    said = run_script("delete_records.py", tmp_path)
    assert re.match(VERDICT, said)
    assert re.search(r"^original +FAIL", said, re.MULTILINE)  # its wrong labels show
    for name in ("model.safetensors", "split.json", "record.json", "report.html"):
        assert (tmp_path / "deleted" / name).stat().st_size


def test_compare_methods(tmp_path: Path):
    rows = dict(re.findall(rf"^(\S+) +{VERDICT}", run_script("compare_methods.py", tmp_path), re.MULTILINE))
    assert list(rows) == ["soften", "mix", "lur:recover"] and rows["soften"] == "FAIL"


def test_erase_class(tmp_path: Path):
    rows = re.findall(r"^ +(\d) +(\d+)% +(\d+)%$", run_script("erase_class.py", tmp_path), re.MULTILINE)
    before, after = ([int(row[i]) for row in rows] for i in (1, 2))
    assert before[3] >= 75 and after[3] <= 25
    assert sum(after[:3] + after[4:]) / 9 >= 75
