"""A model that forgot is never written over one that unweave did not write."""

import json

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import unweave
from cli.written import bits, row_of
from unweave.descent.descend import Descent
from unweave.methods.simple import FineTune


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
        before = listed(tmp_path)
        with pytest.raises(
            ValueError, match=r"a model.safetensors that unweave did not write: choose another"
        ):
            result.save(tmp_path)
        assert listed(tmp_path) == before


def test_a_record_of_somebody_else_stays(result, tmp_path, listed):
    for text in ("{", "[]", '{"schema": "mine"}', '{"schema": 1}'):
        (tmp_path / "record.json").write_text(text)
        before = listed(tmp_path)
        with pytest.raises(
            ValueError, match=r"a record.json that unweave did not write: choose another folder"
        ):
            result.save(tmp_path)
        assert listed(tmp_path) == before


def test_a_model_of_ours_is_replaced(result, tmp_path):
    result.save(tmp_path)
    before = bits(tmp_path)
    (tmp_path / "notes.txt").write_text("of a user")
    result.save(tmp_path)
    assert bits(tmp_path) == before and row_of(tmp_path)["verdict"] == "INCONCLUSIVE"


def test_a_record_of_an_earlier_version_is_ours(result, tmp_path):
    result.save(tmp_path)
    (tmp_path / "record.json").write_text(json.dumps({"schema": "unweave.record/0"}))
    result.save(tmp_path)
    assert row_of(tmp_path)["verdict"] == "INCONCLUSIVE"
