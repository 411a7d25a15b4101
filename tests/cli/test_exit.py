"""`sys.exit()` in a user's code is an error like any other: its code 0 would say PASS."""

from pathlib import Path

import pytest

import projects

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
    late = "class Late(Records):\n    def __getitem__(self, i):\n        raise SystemExit\n\n\n"
    place = projects.project(tmp_path / "mine", late + projects.loads("given(train=Late(90, 0))"))
    assert run("forget", place, *SHORT).code == 2


@pytest.mark.parametrize(("jobs", "change"), [(1, TRAIN), (2, TRAIN), (2, IN_WORKER)])
def test_in_train_and_in_worker_processes(run, here, tmp_path, jobs, change):
    place = projects.project(tmp_path / "mine", change)
    assert run("forget", place, *SHORT).code == 0
    told = run("audit", "forgotten", "--references", 2, "--jobs", jobs, "--quiet")
    assert told.code == 2 and told.out == "" and "raised SystemExit: 0" in told.error
    assert not (Path("forgotten") / "audit" / "record.json").exists()
