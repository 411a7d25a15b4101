"""The key `loader` of a project: its data is read ahead by workers, and unlearning ends in the same bits."""

import multiprocessing
from pathlib import Path
from tempfile import mkdtemp

import pytest
from safetensors.torch import load_file

import projects
from for_each import for_each
from unweave.cli.project.user_code import from_file
from unweave.data.user_dataset import UserDataset

SEEDED = "def load():\n    torch.manual_seed(0)\n    return given({})\n"
SHORT = ("--random", 0.3, "--method", "lur", "--set", "how.steps=3", "--set", "how.batch=21", "--quiet")

# Python 3.12 and later warn when a process with threads starts another one, as a DataLoader does
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def test_workers_read_a_project_and_the_bits_stay(run, here, tmp_path):
    places = {
        name: projects.project(tmp_path / name, SEEDED.format(keys))
        for name, keys in (("here", ""), ("ahead", 'loader={"workers": 2, "prefetch": 1}'))
    }
    project = from_file(tmp_path / "ahead" / "project.py")
    for data in (project.train, project.test):
        assert isinstance(data, UserDataset) and (data.workers, data.prefetch) == (2, 1)
    for name, place in places.items():
        result = run("forget", place, *SHORT, "--out", here / name)
        assert result.code == 0, result.error
    ours, theirs = (load_file(here / name / "model.safetensors") for name in ("ahead", "here"))
    assert all(ours[name].equal(theirs[name]) for name in theirs)


@for_each(
    ("loader", "sentence"),
    [
        ("2", "'loader' must be a table such as {'workers': 2, 'prefetch': 4}, found 2"),
        ("{'workers': 'two'}", "'loader' must be a table"),
        ("{'worker': 2}", "worker"),
        ("{'workers': -1}", r"workers must be in \[0, inf\), found -1"),
        ("{'prefetch': 4}", "'loader' needs workers, .* found {'prefetch': 4}: add 'workers'"),
        ("{'workers': 0, 'prefetch': 4}", "'loader' needs workers"),
        ("{'workers': 1, 'prefetch': 0}", r"prefetch must be in \[1, inf\), found 0"),
    ],
)
def test_what_is_no_loader_is_refused(tmp_path, loader, sentence):
    place = Path(mkdtemp(dir=tmp_path))  # byte code is of a file's second and size, which several cases share
    projects.project(place, SEEDED.format(f"loader={loader}"))
    with pytest.raises(ValueError, match=sentence):
        from_file(place / "project.py")


def test_workers_are_refused_where_no_process_can_fork(tmp_path, monkeypatch):
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: ["spawn"])
    projects.project(tmp_path / "mine", SEEDED.format("loader={'workers': 1}"))
    with pytest.raises(ValueError, match=r"cannot fork here, .* set 'workers' to 0, found 1$"):
        from_file(tmp_path / "mine" / "project.py")
    projects.project(tmp_path / "other", SEEDED.format("loader={'workers': 0}"))
    assert from_file(tmp_path / "other" / "project.py")
