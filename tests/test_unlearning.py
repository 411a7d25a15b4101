"""Unlearning works on a copy, and refuses what can't be right before and after."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset

import unweave
from unweave.data.user_dataset import dataset_of
from unweave.descent.descend import Descent
from unweave.descent.train import train_model
from unweave.errors import Failed
from unweave.methods.simple import FineTune, Original, Shrink
from unweave.problem import Problem
from unweave.record import checkpoint, record
from unweave.result import Result
from unweave.split import Split
from unweave.targets import Ideal, Surrogate
from unweave.tasks.classifier import Classifier
from unweave.unlearning import refuse_no_request

METHOD = FineTune(how=Descent(lr=0.05, steps=3, batch=16))


class Dictionaries(Dataset):
    """A user's data set: dicts with string ids."""

    def __init__(self, inputs: torch.Tensor, labels: torch.Tensor) -> None:
        self.inputs, self.labels = inputs, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> dict:
        return {"x": self.inputs[i], "label": int(self.labels[i]), "id": f"person-{i}"}


def data(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(n, 6, generator=generator)
    return inputs, inputs[:, :3].argmax(1)


def build() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))


@pytest.fixture
def split() -> Split:
    return Split(TensorDataset(*data(60, 0)), list(range(10)), TensorDataset(*data(30, 1)))


@pytest.fixture
def model(split) -> nn.Module:
    return train_model(Descent(lr=0.1, steps=60, batch=32), build, split, "mixed", 0).model


def state(model: nn.Module) -> list[torch.Tensor]:
    return [value.detach().clone() for value in model.state_dict().values()]


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_the_model_itself_stays_as_it_was(split, model) -> None:
    before = state(model)
    model.train()
    result = unweave.unlearn(model, split, METHOD)
    assert same(state(model), before) and model.training
    assert result.original is model and not same(state(result.model), before)
    assert not result.model.training
    assert all(p.requires_grad and p.grad is None for p in result.model.parameters())


def test_the_same_seed_gives_the_same_bits(split, model) -> None:
    first, second, other = (unweave.unlearn(model, split, METHOD, seed=seed) for seed in (4, 4, 5))
    assert same(state(first.model), state(second.model))
    assert not same(state(first.model), state(other.model))


def test_what_it_cost_is_counted(split, model) -> None:
    result = unweave.unlearn(model, split, METHOD)
    assert (result.cost.gradients, result.name) == (3, "FineTune") and result.cost.seconds > 0
    assert list(result.curves) == ["nll(retain)"] and len(result.curves["nll(retain)"]) == 3


def test_a_pipeline_is_named_by_its_stages(split, model) -> None:
    pipeline = unweave.Pipeline(METHOD, unweave.Recover(how=METHOD.how))
    assert unweave.unlearn(model, split, pipeline).name == "finetune:recover"


def test_dicts_with_string_ids_are_forgotten_by_name(model) -> None:
    split = Split(Dictionaries(*data(60, 0)), ["person-3", "person-7"], Dictionaries(*data(30, 1)))
    result = unweave.unlearn(model, split, unweave.LUR(how=Descent(lr=0.05, steps=3, batch=16)))
    assert result.split.forget.tolist() == [3, 7]


def test_any_function_is_a_method(split, model) -> None:
    def halve(problem: Problem) -> None:
        with torch.no_grad():
            for p in problem.params.values():
                p.mul_(0.5)

    result = unweave.unlearn(model, split, halve)
    assert result.name == "halve"
    torch.testing.assert_close(result.model[0].weight, model[0].weight / 2)


def test_a_fresh_model_comes_from_the_users_function(split, model) -> None:
    models: list[nn.Module] = []

    def mine() -> nn.Module:
        models.append(build())
        return models[-1]

    unweave.unlearn(model, split, unweave.METHODS["short-retrain"], build=mine)
    assert len(models) == 1


def no_weights(model: nn.Module) -> nn.Module:
    return model.requires_grad_(False)


def one_nan(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        model[3].bias[1] = float("nan")
    return model


@pytest.mark.parametrize(
    ("spoil", "message"),
    [(no_weights, "no trainable weights"), (one_nan, "weights must be finite, .* '3.bias'")],
)
def test_a_model_that_can_not_be_unlearned_is_refused(
    split, model, spoil: Callable[[nn.Module], nn.Module], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        unweave.unlearn(spoil(model), split, METHOD)


def test_training_data_as_test_data_is_refused(split, model) -> None:
    repeated_split = Split(TensorDataset(*data(60, 0)), list(range(10)), TensorDataset(*data(60, 0)))
    with pytest.raises(ValueError, match="found the training data: give other data"):
        unweave.unlearn(model, repeated_split, METHOD)


def test_what_is_no_model_or_no_split_is_refused(split, model) -> None:
    for value, type_name in (
        (model.state_dict(), "OrderedDict"),
        (nn.Linear, "the class Linear"),
        (None, "None"),
    ):
        with pytest.raises(ValueError, match=f"the model must be an nn.Module, found {type_name}"):
            refuse_no_request(value, split)
    with pytest.raises(ValueError, match="must be a Split, found TensorDataset: make Split"):
        refuse_no_request(model, TensorDataset(*data(6, 0)))


@dataclass(frozen=True)
class Spoil:
    """Sets one weight, or the whole head, to a value."""

    value: float
    whole: bool = False

    @torch.no_grad()
    def __call__(self, problem: Problem) -> None:
        _, head = problem.head
        assert isinstance(head, nn.Linear)
        if self.whole:
            head.weight.zero_()
        head.bias[2] = self.value


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (Original(), "nothing changed"),
        (Spoil(float("nan")), "'3.bias' is no longer finite"),
        (Spoil(5.0, whole=True), "the model collapsed: it answers class 2"),
        (Shrink(how=Descent(lr=1e38, steps=3)), "no longer finite|became"),
    ],
)
def test_a_run_without_a_usable_model_fails(split, model, method, message: str) -> None:
    with pytest.raises(Failed, match=message):
        unweave.unlearn(model, split, method)


def exchange(problem: Problem) -> None:
    problem.model = build()


def widen(problem: Problem) -> None:
    assert isinstance(problem.model, nn.Sequential)
    problem.model[3] = nn.Linear(16, 5)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (exchange, "must edit problem.model in place, found another object there, of Sequential: copy"),
        (widen, r"must keep the shapes of the weights: tensor '3.weight' must be \[3, 16\], found \[5, 16\]"),
    ],
)
def test_a_method_that_makes_another_model_is_refused_before_that_is_run(
    split, model, method, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Classifier, "refuse_collapsed", lambda *_: pytest.fail("it was run"))
    with pytest.raises(ValueError, match=message):
        unweave.unlearn(model, split, method)


@pytest.mark.parametrize("n", [1, 2])
def test_a_model_without_a_logit_for_each_label_is_refused_before_anything_runs(split, n: int) -> None:
    message = r"one number per example, of shape \[2, 1\]: .* \[0, z\]" if n == 1 else r"in 0\.\.1, .*found 2"
    with pytest.raises(ValueError, match=message):
        unweave.unlearn(nn.Linear(6, n), split, lambda problem: pytest.fail("it was run"))


@dataclass(frozen=True)
class Never:
    """A stage that must not run."""

    def __call__(self, problem: Problem) -> None:
        pytest.fail("it was run")


@pytest.mark.parametrize(
    ("method", "label"),
    [
        (unweave.LUR(forget=Surrogate()), "method.forget = 'surrogate'"),
        (unweave.Pipeline(Never(), unweave.LUR(forget=Ideal())), "method.lur.forget = 'ideal'"),
        (unweave.LoRA(unweave.LUR(forget=Ideal()), rank=1), "method.forget = 'ideal'"),
    ],
)
def test_a_target_for_another_family_is_refused_before_anything_runs(
    split, model, method, label: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Classifier, "refuse_unfit", lambda *_: pytest.fail("it was run"))
    message = f"^{label} is for models of the family diffusion or text-to-image, and this is about classifier"
    with pytest.raises(ValueError, match=message):
        unweave.unlearn(model, split, method)


def test_one_label_left_is_no_collapse(model) -> None:
    inputs, labels = data(60, 0)
    split = Split(TensorDataset(inputs, labels), (labels > 0).nonzero()[:, 0], TensorDataset(*data(30, 1)))
    unweave.unlearn(model, split, Spoil(-50.0))


def test_a_saved_result_is_read_back_and_is_no_original(split, model, tmp_path) -> None:
    result = unweave.unlearn(model, split, METHOD, seed=2)
    result.save(tmp_path / "out")
    other = build()
    sidecar = checkpoint.load(tmp_path / "out", other)
    assert same(state(other), state(result.model))
    assert sidecar["recipe"] == repr(METHOD) and sidecar["seed"] == 2
    with pytest.raises(ValueError, match="must have been trained on split"):
        checkpoint.load(tmp_path / "out", build(), split.digest("mixed"))
    saved_record = record.load(tmp_path / "out")
    (row,) = saved_record["stages"]["audit"]["methods"].values()
    assert row["repr"] == repr(METHOD) and row["verdict"] == "INCONCLUSIVE" and "not audited" in row["reason"]
    assert Split.load(tmp_path / "out" / "split.json", split.train, split.held_out).digest() == split.digest()


class WithFormat(nn.Linear):
    """A model with a format of its own."""

    def save_pretrained(self, save_directory: str) -> None:
        Path(save_directory).mkdir()
        (Path(save_directory) / "config.json").write_text("{}")


def test_a_model_with_a_format_of_its_own_is_written_in_it_too(split, tmp_path) -> None:
    torch.manual_seed(0)
    unweave.unlearn(WithFormat(6, 3), split, METHOD).save(tmp_path)
    assert (tmp_path / "pretrained" / "config.json").exists() and (tmp_path / checkpoint.WEIGHTS).exists()


def test_a_part_is_the_users_own_items_or_tuples(split) -> None:
    mine = Dictionaries(*data(60, 0))
    theirs = Split(mine, [0], Dictionaries(*data(30, 1)))
    items = dataset_of(*theirs.part("retain"))
    assert len(items) == 59 and items[0]["id"] == "person-1"
    recipe = unweave.Split(TensorDataset(*data(60, 0)), [0], TensorDataset(*data(30, 1)))
    assert len(dataset_of(*recipe.part("forget"))) == 1


def test_a_part_of_a_resident_set_is_tuples() -> None:
    from unweave.data.in_memory import Resident

    inputs, labels = data(60, 0)
    items = dataset_of(Resident(inputs, labels), torch.tensor([5, 2]))
    x, y = items[1]
    assert len(items) == 2 and torch.equal(x, inputs[2]) and y == int(labels[2])


def test_a_result_is_a_value(split, model) -> None:
    result = unweave.unlearn(model, split, METHOD)
    assert isinstance(result, Result)
    with pytest.raises(AttributeError):
        result.seed = 3  # type: ignore[misc]  # the point of the test
    assert copy.copy(result).method == METHOD


def test_a_class_is_no_method(split) -> None:
    with pytest.raises(ValueError, match="the method must be an object, found the class FineTune: call it"):
        unweave.unlearn(build(), split, method=FineTune)  # pyright: ignore[reportArgumentType]
