"""A sharded model on disk: a damaged file is refused, and a crash leaves a whole model."""

import re
import shutil
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from torch import nn

from unweave.weights import sharded_files
from unweave.weights.sharded_files import load_sharded, save_sharded


def net(value: float) -> nn.Module:
    """A model whose weights are all one number."""
    model = nn.Linear(40, 40)
    for p in model.parameters():
        nn.init.constant_(p, value)
    return model


def save(folder: Path, value: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that there is one process
        save_sharded(folder, net(value), {})


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-400])


DAMAGE = {"flipped": (flip, "{'bytes': "), "cut": (cut, "{'bytes': "), "gone": (Path.unlink, "no such file")}


@pytest.mark.parametrize("name", ["__0_0.distcp", ".metadata"])
@pytest.mark.parametrize(("damage", "actual"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_refused(tmp_path, damage: Callable[[Path], None], actual: str, name: str):
    save(tmp_path, 1.0)
    damage(tmp_path / "sharded" / name)
    model = net(2.0)
    pattern = f"{re.escape(name)} is damaged: expected {{'bytes': .*, found {actual}.*save the model again$"
    with pytest.raises(ValueError, match=pattern):
        load_sharded(model, tmp_path)
    assert all(torch.equal(p, torch.full_like(p, 2.0)) for p in model.parameters())


def test_a_model_without_digests_is_refused(tmp_path):
    save(tmp_path, 1.0)
    (tmp_path / "sharded" / "model.json").write_text("{}")
    with pytest.raises(ValueError, match="must have the digests of the files, found none: save it again"):
        load_sharded(net(2.0), tmp_path)


def test_a_file_on_another_disk_is_refused(tmp_path, monkeypatch):
    write = sharded_files.write_pieces

    def elsewhere(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
        write(folder, tensors)
        (folder / "__0_0.distcp").unlink()

    monkeypatch.setattr(sharded_files, "write_pieces", elsewhere)
    with pytest.raises(ValueError, match="expected __0_0.distcp in .*: all processes need one disk"):
        save(tmp_path, 1.0)


class Killed(BaseException):
    """The end of a process."""


@pytest.mark.parametrize("moment", range(4))
def test_a_save_killed_at_any_moment_leaves_a_whole_model(tmp_path, monkeypatch, moment: int):
    save(tmp_path, 1.0)
    calls = iter([*[False] * moment, True])

    def mortal(function: Callable[..., object]) -> Callable[..., object]:
        def call(path: Path, *more: object) -> object:
            if path.is_dir() and next(calls, False):
                if function is rmtree:
                    (path / "model.json").unlink(missing_ok=True)
                raise Killed
            return function(path, *more)

        return call

    def killed(*arguments: object) -> None:
        raise Killed

    rmtree = shutil.rmtree
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", mortal(rmtree))
        patch.setattr(Path, "rename", mortal(Path.rename))
        with suppress(Killed):
            save(tmp_path, 2.0)
    with monkeypatch.context() as patch:
        patch.setattr(sharded_files, "write_pieces", killed)
        with pytest.raises(Killed):
            save(tmp_path, 3.0)
    model = net(0.0)
    load_sharded(model, tmp_path)
    assert {float(p.detach().mean()) for p in model.parameters()} in ({1.0}, {2.0})
