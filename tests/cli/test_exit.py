"""`sys.exit()` in a user's code is an error like any other: its code 0 would say PASS."""

import re
from pathlib import Path

import pytest
from safetensors import SafetensorError

import projects
from unweave import cli
from unweave.cli.forget_runs import run as forget_run
from unweave.cli.inputs import out

SHORT = ("--random", 0.3, "--method", "finetune", "--set", "how.epochs=1", "--quiet")
EXIT = "import sys\nsys.exit(0)"
LOAD = "def load():\n    import sys\n    sys.exit()"
TRAIN = "def train(dataset, seed):\n    import sys\n    sys.exit(0)"
FORWARD = """
class Ends(Net):
    def forward(self, x, scale):
        raise SystemExit(0)


def load():
    return given(model=Ends())
"""
IN_WORKER = """
import multiprocessing
if multiprocessing.parent_process() is not None:
    raise SystemExit(0)
"""


@pytest.mark.parametrize(
    ("sentence", "change"),
    [
        ("the file of .*line [0-9]+ raised SystemExit: 0", EXIT),
        (r"load\(\) of .*line [0-9]+ raised SystemExit", LOAD),
        ("the model can't be run on 'train': SystemExit: 0", FORWARD),
    ],
)
def test_at_import_in_load_and_in_a_model(refused, tmp_path, sentence, change):
    refused(sentence, "forget", projects.project(tmp_path / "mine", change), *SHORT)


def test_in_a_data_set(run, here, tmp_path):
    late_class = "class Late(Records):\n    def __getitem__(self, i):\n        raise SystemExit\n\n\n"
    place = projects.project(tmp_path / "mine", late_class + projects.loads("given(train=Late(90, 0))"))
    assert run("forget", place, *SHORT).code == 2


@pytest.mark.usefixtures("forked_workers")
@pytest.mark.parametrize(("jobs", "change", "code"), [(1, TRAIN, 3), (2, TRAIN, 3), (2, IN_WORKER, 2)])
def test_in_train_and_in_worker_processes(run, here, tmp_path, jobs, change, code):
    place = projects.project(tmp_path / "mine", change)
    assert run("forget", place, *SHORT).code == 0
    result = run("audit", "forgotten", "--references", 2, "--jobs", jobs, "--quiet")
    assert result.code == code and result.out == "" and "raised SystemExit: 0" in result.error
    assert not (Path("forgotten") / "audit").exists()


def test_the_lock_of_a_stopped_worker_is_nothing_finished(tmp_path):
    def stop(folder: Path) -> None:
        (folder / "references").mkdir()
        (folder / "references" / "0.lock").touch()
        raise RuntimeError

    with pytest.raises(RuntimeError), out.open_folder(tmp_path / "run" / "audit", {}) as folder:
        stop(folder)
    assert list(tmp_path.iterdir()) == []


LATER = "def train(dataset, seed):\n    return 1 / 0 if seed else Net()\n"
COPIES = "def train(dataset, seed):\n    torch.manual_seed(0)\n    return Net()\n"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (LATER, r"train\(\) of .*line [0-9]+ raised ZeroDivisionError"),
        (COPIES, r"does train\(dataset, seed\) use its seed"),
    ],
)
def test_what_is_found_when_something_is_finished_is_a_run_that_failed(run, here, tmp_path, change, sentence):
    place = projects.project(tmp_path / "mine", change)
    assert run("forget", place, *SHORT).code == 0
    result = run("audit", "forgotten", "--references", 2, "--quiet")
    assert result.code == 3 and result.out == "" and re.search(sentence, result.error), result.error
    reference_files = sorted((here / "forgotten" / "audit" / "references").iterdir())
    assert len(reference_files) == 3 * (1 if change == LATER else 2)
    assert not (here / "forgotten" / "audit" / "record.json").exists()


WIDE = "def train(dataset, seed):\n    return Net(classes=5)\n"


def test_a_train_that_makes_another_model_is_refused_before_anything_is_made_of_it(run, here, tmp_path):
    place = projects.project(tmp_path / "mine", WIDE)
    sentence = r"train\(\) of .* tensor 'last.weight' must be \[3, 32\], found \[5, 32\]"
    result = run("forget", place, "--random", 0.3, "--method", "retrain", "--quiet")
    assert result.code == 3 and re.search(sentence, result.error), result.error
    assert list(here.iterdir()) == []
    assert run("forget", place, *SHORT).code == 0
    result = run("audit", "forgotten", "--references", 2, "--quiet")
    assert result.code == 3 and re.search(sentence, result.error), result.error
    assert not (here / "forgotten" / "audit").exists()


def test_a_folder_that_was_empty_is_left_empty(run, here, tmp_path, monkeypatch):
    place = projects.project(tmp_path / "mine")
    (here / "mine").mkdir()

    def refuse(*_: object, **__: object) -> None:
        raise ValueError("it can't be right")

    monkeypatch.setattr(forget_run, "unlearn", refuse)
    result = run("forget", place, *SHORT, "--out", "mine")
    assert result.code == 2 and "it can't be right" in result.error and list((here / "mine").iterdir()) == []


def test_every_code_is_in_the_help(run):
    result = run("--help")
    codes = re.search(r"Exit codes: (.*)", " ".join(result.out.replace("│", " ").split()))[1]
    codes_in_help = {int(code) for code in re.findall(r"(?:^|; )(\d+) ", codes)}
    assert codes_in_help == {cli.DONE, cli.NOT_PASSED, cli.BAD_INPUT, cli.FAILED, cli.INTERRUPTED}


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("No space left")])
def test_a_full_disk_is_a_failure_whoever_writes(monkeypatch, error):
    def full(*_: object, **__: object) -> int:
        raise error

    monkeypatch.setattr(cli, "app", full)
    code, text = cli.run(["forget"])
    assert code == 3 and text is not None and text.startswith("writing failed: ") and "No space left" in text
