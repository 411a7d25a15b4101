"""Commands called in this process, and the folders that they work in."""

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pytest
from matplotlib.figure import Figure

import projects
from unweave.cli import main
from unweave.cli.checks import rounds

ROUNDS = rounds.ROUNDS


@dataclass(frozen=True)
class Told:
    """What a command said."""

    code: int
    out: str
    error: str


@pytest.fixture
def run(capsys) -> Callable[..., Told]:
    """Calls the command line."""

    def called(*arguments: object) -> Told:
        capsys.readouterr()
        code = main([str(each) for each in arguments])
        output = capsys.readouterr()
        return Told(code, output.out, output.err)

    return called


@pytest.fixture(autouse=True)
def single_round(monkeypatch) -> None:
    """Measures costs once; tests of the rounds have all of them (`rounds_of_users`)."""
    monkeypatch.setattr(rounds, "ROUNDS", 1)


@pytest.fixture(autouse=True, scope="module")
def undrawn_figures() -> Iterator[None]:
    """Leaves the figures of reports empty, which took a fifth of the time; test_report.py draws them."""

    def save(figure: Figure, file: StringIO, **_: object) -> None:
        file.write('<svg viewBox="0 0 1 1"><defs></defs></svg>')

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", save)
        yield


@pytest.fixture
def rounds_of_users(single_round, monkeypatch) -> None:
    """Measures costs as often as for users."""
    monkeypatch.setattr(rounds, "ROUNDS", ROUNDS)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty working folder, where a default --out would appear."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def refused(run, here) -> Callable[..., None]:
    """Calls a command that must be refused: a sentence that matches, in one line, code 2, and no trace."""

    def check(sentence: str, *arguments: object) -> None:
        files = tree(here.parent)
        result = run(*arguments)
        assert result.code == 2, result
        assert re.search(sentence, result.error), result.error
        errors = [line for line in result.error.splitlines() if line.startswith("unweave: ")]
        assert result.error.splitlines()[-1:] == errors and result.out == ""
        assert tree(here.parent) == files

    return check


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file below a folder with its size and time, and every folder."""
    paths = [path for path in sorted(folder.rglob("*")) if "__pycache__" not in path.parts]
    return {str(path): known(path) for path in paths}


def known(path: Path) -> tuple[int, int]:
    """The size and the time of a file; nothing of a folder."""
    return (path.stat().st_size, path.stat().st_mtime_ns) if path.is_file() else (0, 0)


@pytest.fixture
def listed() -> Callable[[Path], dict[str, tuple[int, int]]]:
    """Lists every file below a folder with its size and time."""
    return tree


@pytest.fixture
def project(tmp_path) -> str:
    """A user's project."""
    return projects.project(tmp_path / "mine")


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> tuple[str, Path]:
    """A recipe, and what forget wrote with it; the original lies in its folder models."""
    folder = tmp_path_factory.mktemp("trained")
    recipe, place = projects.recipe(folder), folder / "run"
    flags = ["--method", "finetune", "--set", "how.epochs=1", "--quiet"]
    assert main(["forget", recipe, "--out", str(place), *flags]) == 0
    return recipe, place


@pytest.fixture
def folder(trained, tmp_path) -> Path:
    """A copy of that original's folder, with its recipe."""
    recipe, place = trained
    (model,) = (place / "models").iterdir()
    model_copy = Path(shutil.copytree(model, tmp_path / "model"))
    shutil.copy(recipe, model_copy / "recipe.toml")
    return model_copy


@pytest.fixture
def forgotten(trained, tmp_path) -> Path:
    """A copy of what forget wrote."""
    return Path(shutil.copytree(trained[1], tmp_path / "run"))


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A folder with a text-to-image pipeline and its images; tests copy it (`given`)."""
    from stable_diffusion import write_images, write_pipeline  # here: it needs diffusers

    place = tmp_path_factory.mktemp("model")
    write_images(place / "images", each=3)
    return write_pipeline(place / "sd").parent


@pytest.fixture
def given(source: Path, here: Path) -> Path:
    """A folder with a pipeline and its images, beside the working folder."""
    return Path(shutil.copytree(source, here.parent / "given"))
