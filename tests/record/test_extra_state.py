"""What a module keeps beside tensors (`get_extra_state`) goes through unlearning, saving and an audit."""

import copy

import pytest
import torch
from torch import nn

import unweave
from trainer import make_split
from unweave.audits.references import Retrain
from unweave.descent.descend import Descent
from unweave.methods.pipeline import Pipeline
from unweave.methods.scrub import SCRUB
from unweave.methods.simple import FineTune
from unweave.record import checkpoint


class Scaled(nn.Module):
    """A layer whose factor is no tensor."""

    def __init__(self, extra: object) -> None:
        super().__init__()
        self.layer, self.extra = nn.Linear(4, 2), extra

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        factor = self.extra["factor"] if isinstance(self.extra, dict) else 1.0
        return self.layer(x) * factor

    def get_extra_state(self) -> object:
        return self.extra

    def set_extra_state(self, state: object) -> None:
        self.extra = state


class Plain(nn.Module):
    """The same layer without a factor."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)


def build(extra: object, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 4), nn.ReLU(), Scaled(extra))


EXTRA = {"factor": 2.0, "names": ["a", "b"]}


@pytest.fixture
def split() -> unweave.Split:
    return make_split()


HOW = Descent(lr=0.1, steps=3)


@pytest.mark.parametrize("method", [FineTune(how=HOW), Pipeline(SCRUB(rewind=True), FineTune(how=HOW))])
def test_unlearning_carries_any_extra_state(split, method) -> None:
    extra = {"factor": 2.0, "kinds": {int, str}}
    result = unweave.unlearn(build(extra), split, method)
    assert result.model.state_dict()["2._extra_state"] == extra


def test_saved_states_resume_with_it(split, tmp_path) -> None:
    model = build(EXTRA)
    first = unweave.unlearn(model, split, FineTune(how=HOW), state_folder=tmp_path, save_every=1)
    second = unweave.unlearn(model, split, FineTune(how=HOW), state_folder=tmp_path, save_every=1)
    assert checkpoint.contents(first.model.state_dict()) == checkpoint.contents(second.model.state_dict())
    with pytest.raises(ValueError, match="another run"):
        unweave.unlearn(build({"factor": 3.0}), split, FineTune(how=HOW), state_folder=tmp_path, save_every=1)


def test_a_saved_model_has_it_when_it_is_loaded(split, tmp_path) -> None:
    result = unweave.unlearn(build(EXTRA), split, FineTune(how=HOW))
    result.save(tmp_path)
    other = build({"factor": 5.0}, seed=1)
    checkpoint.load(tmp_path, other)
    assert other.state_dict()["2._extra_state"] == EXTRA
    assert checkpoint.contents(other.state_dict()) == checkpoint.contents(result.model.state_dict())
    with pytest.raises(ValueError, match="another architecture.*extra"):
        checkpoint.load(tmp_path, nn.Sequential(nn.Linear(4, 4), nn.ReLU(), Plain()))


def test_stored_references_keep_their_own(split, tmp_path) -> None:
    result = unweave.unlearn(build(EXTRA), split, FineTune(how=HOW))

    def train(dataset, seed: int) -> nn.Module:
        return build({"factor": float(seed)}, seed)

    def audit(folder):
        reference = Retrain(train, range(1, 3), [7, 8], folder=folder, code="one")
        audit_result = unweave.audit(result, reference, attacks="compression")
        return [row["retrained"] for row in audit_result.record["stages"]["audit"]["attacks"]["results"]]

    assert audit(tmp_path) == audit(None)


def test_the_digest_tells_it_apart() -> None:
    one, two = (build({"factor": factor}).state_dict() for factor in (1.0, 2.0))
    assert checkpoint.contents(one) != checkpoint.contents(two)


@pytest.mark.parametrize("extra", [{int}, (1, 2), {1: "one"}, float("nan"), float("inf"), torch.nn.Linear])
def test_what_json_cannot_hold_is_refused_by_name_before_anything_is_written(extra, tmp_path) -> None:
    state = build(extra).state_dict()
    for use in (checkpoint.contents, lambda each: checkpoint.save(tmp_path / "new", each, {})):
        with pytest.raises(ValueError, match=r"'2\._extra_state' must be a tensor or JSON values, found"):
            use(copy.copy(state))
    assert not (tmp_path / "new").exists()
