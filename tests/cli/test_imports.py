"""What `project.py` imports from its own folder is part of what a run depends on."""

import sys
from hashlib import sha256
from pathlib import Path

import pytest

import projects
from unweave.cli.inputs import run_folder
from unweave.cli.project import load

TRAINING = """
import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = torch.nn.Linear(8, 32), torch.nn.Linear(32, 3)

    def forward(self, x, scale):
        return self.last(self.first(x * scale))


def train(dataset, seed):
    torch.manual_seed(seed)
    return Net()
"""


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Imports a module of a user again, as a new process does."""

    def forgets() -> None:
        for name in ("beside", "below", "below.deeper", "other"):
            sys.modules.pop(name, None)
        run_folder.open_run.cache_clear()

    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    forgets()
    yield forgets
    forgets()


def write_project(folder: Path, **modules: str) -> str:
    """A project that imports some modules beside it."""
    imports = "\n".join(f"import {name.replace('__', '.')}" for name in modules)
    for name, text in modules.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return projects.project(folder, imports)


def test_a_change_beside_it_or_below_shows(tmp_path, fresh):
    place = write_project(tmp_path / "mine", beside="A = 1", below__deeper="A = 1")
    versions = [load(place).facts]
    for name in ("beside.py", "below/deeper.py"):
        (tmp_path / "mine" / name).write_text("A = 22")
        fresh()
        versions.append(load(place).facts)
        fresh()
        assert load(place).facts == versions[-1]
    assert len({facts["sha256"] for facts in versions}) == 3


def test_alone_it_is_known_by_its_own_digest(project):
    expected = sha256(Path(project).read_bytes()).hexdigest()
    assert load(project).facts == {"project": str(Path(project).resolve()), "sha256": expected}


def test_what_was_not_loaded_or_was_installed_does_not_count(tmp_path, fresh, monkeypatch):
    place = write_project(tmp_path / "mine")
    facts = load(place).facts
    installed = tmp_path / "mine" / "env" / "site-packages"
    monkeypatch.syspath_prepend(installed)
    write_project(installed, other="A = 1")
    write_project(tmp_path / "mine", beside="A = 1")
    projects.project(tmp_path / "mine")
    __import__("other")
    assert load(place).facts == facts


def test_models_retrained_by_an_earlier_module_are_not_used(run, here, tmp_path, fresh):
    folder = tmp_path / "mine"
    place = write_project(folder, beside=TRAINING)
    (folder / "project.py").write_text(f"{projects.PROJECT}\nfrom beside import train\n")
    method_flags = ("--random", 0.3, "--method", "finetune", "--set", "how.epochs=1", "--quiet")
    assert run("forget", place, *method_flags).code == 0
    audit = ("audit", "forgotten", "--references", 1, "--quiet")
    fresh()
    assert f"{Path('forgotten', 'audit')}/" in run(*audit).out
    (folder / "beside.py").write_text(TRAINING.replace("(seed)", "(seed + 1)"))
    fresh()
    assert f"{Path('forgotten', 'audit-2')}/" in run(*audit).out
