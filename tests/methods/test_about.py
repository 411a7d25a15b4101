"""Which families of models a method is for, and who is refused."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

import every_family
from test_methods import shorten_method
from unweave import methods
from unweave.methods import METHODS, method_named, methods_for
from unweave.methods.about import About, refuse_family
from unweave.methods.ct import ConvolutionTranspose
from unweave.methods.msg import MaskedSmallGradients
from unweave.methods.simple import FineTune
from unweave.problem import Problem
from unweave.tasks import family_of
from unweave.unlearning import unlearn


@dataclass(frozen=True)
class ForDenoisers:
    about: ClassVar[About] = About("ours", "none", "0", families=("diffusion",))

    def __call__(self, problem: Problem) -> None:
        raise AssertionError("it ran")


def test_tasks_name_their_family_and_those_of_a_user_need_not():
    assert [family_of(every_family.task(f)) for f in ("batchnorm", "denoiser", "language")] == [
        "classifier",
        "diffusion",
        "NextToken",
    ]


RELEASED = {"lr": 0.001, "batch": 64, "weight_decay": 5e-4, "momentum": 0.9}
"""Of `msg` and `ct`, in Deep Unlearn's code: ORIGINAL_* in munl/unlearning/kgltop2.py and kgltop5.py."""


@pytest.mark.parametrize("name", ["msg", "ct"])
def test_settings_that_are_not_those_of_the_release_are_told_with_both_figures(name: str):
    method = method_named(name)
    assert isinstance(method, MaskedSmallGradients | ConvolutionTranspose)
    for field, published in RELEASED.items():
        ours = getattr(method.how, field)
        deviation = f"`{field}={ours}` (released: `{field}={published}`)"
        assert (deviation in method.about.deviations) == (ours != published), deviation


def test_a_method_serves_all_families_unless_it_says_which():
    general, one = About("", "", ""), ForDenoisers().about
    assert all(general.serves(family) for family in ("classifier", "diffusion", "NextToken"))
    assert [one.serves(family) for family in ("classifier", "diffusion", "NextToken")] == [False, True, False]


@pytest.mark.parametrize("family", ["layernorm", "language"])
def test_unlearn_refuses_a_method_for_another_family_and_names_both(family: str):
    task, model = every_family.task(family), every_family.original(family)
    with pytest.raises(ValueError, match=f"for models of the family diffusion, found {family_of(task)}"):
        unlearn(model, every_family.split(family), ForDenoisers(), task=task)


def test_unlearn_runs_what_is_for_all_on_the_task_of_a_user():
    data, model = every_family.split("language"), every_family.original("language")
    result = unlearn(model, data, shorten_method(FineTune()), task=every_family.task("language"))
    assert not torch.equal(result.model.state_dict()["up.weight"], model.state_dict()["up.weight"])


def test_a_function_that_says_nothing_is_for_all():
    refuse_family(lambda problem: None, every_family.task("language"))


def test_the_registry_is_asked_by_family(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(methods, "METHODS", {**METHODS, "mine": ForDenoisers()})
    assert "mine" in methods_for("diffusion") and "mine" not in methods_for("classifier")
    assert methods_for("classifier").keys() >= {"lur", "salun", "retrain"}
    assert method_named("mine", "diffusion") == method_named("mine") == ForDenoisers()
    with pytest.raises(ValueError, match="'mine' is for models of the family diffusion, .* about classifier"):
        method_named("mine", "classifier")
