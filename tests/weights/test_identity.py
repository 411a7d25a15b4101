"""Models and functions are told from others of the same name."""

import torch
from torch import nn

from unweave.weights.identity import digest_function, digest_model, plain_repr


def net(activation: nn.Module, dropout: float = 0.0, frozen: str = "") -> nn.Module:
    model = nn.Sequential(nn.Linear(3, 2), activation, nn.Dropout(dropout))
    for name, p in model.named_parameters():
        p.requires_grad_(name != frozen)
    return model


def closing_over(value: object, deeper: object = 0):
    def inner() -> object:
        return deeper

    return lambda problem: (value, inner, problem)


def test_models_differ_by_a_module_its_settings_or_what_is_trainable() -> None:
    models = (net(nn.ReLU()), net(nn.Tanh()), net(nn.ReLU(), 0.5), net(nn.ReLU(), frozen="0.bias"))
    assert len({digest_model(each) for each in models}) == 4
    other = net(nn.ReLU())
    nn.init.zeros_(other[0].weight)
    assert digest_model(other) == digest_model(net(nn.ReLU()))


def test_functions_differ_by_their_code_and_by_what_they_close_over() -> None:
    functions = (
        closing_over(0.1),
        closing_over(0.2),
        closing_over(0.1, 1),
        lambda problem: torch.add(problem, 1),
        lambda problem: torch.sub(problem, 1),
        lambda problem: torch.add(problem, 2),
        lambda problem, size=1: torch.add(problem, 1),
        lambda problem: [torch.add(each, 1) for each in problem],
        lambda problem: [torch.add(each, 2) for each in problem],
    )
    assert len(set(map(digest_function, functions))) == len(functions)
    assert digest_function(closing_over(0.1)) == digest_function(closing_over(0.1))


def test_a_function_that_closes_over_itself_has_a_digest() -> None:
    def again(problem: object) -> object:
        return again(problem)

    assert digest_function(again) == digest_function(again)


class Silent:
    """An object whose `repr` is its address."""

    def __init__(self, size: float) -> None:
        self.size = size


def test_objects_without_a_repr_differ_by_their_attributes() -> None:
    assert plain_repr(Silent(0.1)) == plain_repr(Silent(0.1)) != plain_repr(Silent(0.2))
    assert plain_repr(object()) == plain_repr(object()) and plain_repr(0.1) == "0.1"
