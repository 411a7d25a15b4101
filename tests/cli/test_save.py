"""A model that forgot is never written over one that unweave did not write."""

import json
import os
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import unweave
from cli.written import bits, row_of
from unweave.descent.descend import Descent
from unweave.methods.simple import FineTune
from unweave.result import remove_whole
from unweave.weights.sharded_files import save_sharded


@pytest.fixture(scope="module")
def result():
    """A model that forgot a few of its points."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(90, 6, generator=generator), torch.arange(90) % 3
    torch.manual_seed(0)
    split = unweave.Split(TensorDataset(x[:60], y[:60]), range(6), TensorDataset(x[60:], y[60:]))
    return unweave.unlearn(nn.Linear(6, 3), split, FineTune(how=Descent(lr=0.05, steps=3, batch=16)))


def test_a_model_of_somebody_else_stays(result, tmp_path, listed):
    (tmp_path / "model.safetensors").write_bytes(b"mine")
    for sidecar in (None, "{", "[]", '{"model": "mine"}'):
        if sidecar is not None:
            (tmp_path / "model.json").write_text(sidecar)
        files = listed(tmp_path)
        with pytest.raises(
            ValueError, match=r"a model.safetensors that unweave did not write: choose another"
        ):
            result.save(tmp_path)
        assert listed(tmp_path) == files


def test_a_record_of_somebody_else_stays(result, tmp_path, listed):
    for text in ("{", "[]", '{"schema": "mine"}', '{"schema": 1}'):
        (tmp_path / "record.json").write_text(text)
        files = listed(tmp_path)
        with pytest.raises(
            ValueError, match=r"a record.json that unweave did not write: choose another folder"
        ):
            result.save(tmp_path)
        assert listed(tmp_path) == files


def test_a_model_of_ours_is_replaced(result, tmp_path):
    result.save(tmp_path)
    weights = bits(tmp_path)
    (tmp_path / "notes.txt").write_text("of a user")
    result.save(tmp_path)
    assert bits(tmp_path) == weights and row_of(tmp_path)["verdict"] == "INCONCLUSIVE"


def test_a_record_of_an_earlier_version_is_ours(result, tmp_path):
    result.save(tmp_path)
    (tmp_path / "record.json").write_text(json.dumps({"schema": "unweave.record/0"}))
    result.save(tmp_path)
    assert row_of(tmp_path)["verdict"] == "INCONCLUSIVE"


@pytest.mark.parametrize("last", ["pretrained", "model.safetensors", "model.json"])
def test_a_model_whose_removal_was_cut_off_is_still_ours(result, tmp_path, monkeypatch, last: str):
    def cut_off(path: Path, ignore_errors: bool = False, missing_ok: bool = False) -> None:
        if path.name == last:
            raise KeyboardInterrupt
        remove(path) if path.is_dir() else os.remove(path)

    def own_form(model: nn.Module, folder: Path) -> None:
        folder.mkdir()
        (folder / "weights").touch()

    remove = shutil.rmtree
    result.save(tmp_path, write=own_form)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", cut_off)
        patch.setattr(Path, "unlink", cut_off)
        with pytest.raises(KeyboardInterrupt):
            remove_whole(tmp_path)
    result.save(tmp_path)
    assert row_of(tmp_path)["verdict"] == "INCONCLUSIVE"


def test_a_sharded_model_that_can_not_be_removed_is_an_error(result, tmp_path, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that there is one process
        save_sharded(tmp_path, result.model, {})

    def refuse(path: object, ignore_errors: bool = False, **more: object) -> None:
        if not ignore_errors:
            raise PermissionError

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", refuse)
        with pytest.raises(PermissionError):
            result.save(tmp_path)
    assert not (tmp_path / "sharded").exists()  # part of it would be taken for somebody else's
    result.save(tmp_path)
    assert not [each for each in tmp_path.iterdir() if "sharded" in each.name]
