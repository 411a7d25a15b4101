"""The settings for denoisers: of all methods that are for them; a class goes, and the others stay."""

from dataclasses import replace
from functools import cache

import pytest
import torch

import every_family
from for_each import for_each
from presets import soon

pytest.importorskip("diffusers")

from unweave.bench.ranges import default_settings, nest_paths
from unweave.families.diffusion import DiffusionFamily
from unweave.families.diffusion_settings import PRESETS
from unweave.methods import METHODS, methods_for
from unweave.methods.configure import configure
from unweave.methods.pipeline import Pipeline
from unweave.methods.recover import Recover
from unweave.problem import Problem
from unweave.space import Tunable
from unweave.targets import Mislabel
from unweave.targets.away import Away
from unweave.tasks.diffusion import Diffusion
from unweave.tasks.diffusion.sample import sample
from unweave.tasks.diffusion.sampler import Sampler

GONE, EACH = 3, 48

FORGETTING = ("lur", "lur-exact", "lur-match", "joint", "salun", "munba", "pcgrad", "erasediff")
DAMAGING = ("sa", "esd", "scissorhands")
"""Without a retain loss, or with one that a toy of one level can't satisfy in as many steps."""
RELATED = ("lur-exact", "lur-match", "joint", "pcgrad", "munba")
"""Those that differ from another in mode, target or rule; `test_formats.py` pins the first steps of all."""
ON_LAYERS = ("scissorhands", "msg", "ct", "sfron", "sa", "esd", "erasediff")
"""Those that choose weights by their layers, or draw images."""


def test_they_are_of_the_methods_that_are_for_denoisers():
    assert PRESETS.keys() == methods_for(Diffusion.family).keys()
    for name, method in PRESETS.items():
        assert method.about.serves(Diffusion.family)
        assert type(method) is type(METHODS[name]), name


def test_lur_leads_away_from_a_class_and_relabels_it_where_there_is_no_null_condition():
    with_null, without_null = DiffusionFamily(), DiffusionFamily(null=None, sampler=Sampler(guidance=1))
    for name in ("lur", "lur-exact", "lur-lagged", "joint"):
        assert type(with_null.method_named(name).forget) is Away  # pyright: ignore[reportAttributeAccessIssue]
        assert type(without_null.method_named(name).forget) is Mislabel  # pyright: ignore[reportAttributeAccessIssue]
    of = every_family.problem("unet", whole_class=True)
    assert isinstance(of.task, Diffusion)
    blind = replace(of, task=replace(of.task, null=None, drop=0.0))
    with pytest.raises(ValueError, match="has none"):
        soon(with_null.method_named("lur-lagged"), steps=1)(blind)
    soon(without_null.method_named("lur-lagged"), steps=1)(blind)


@for_each("name", [name for name in PRESETS if name != "retrain"])
def test_a_search_begins_with_them_and_tries_rates_that_suit(name: str):
    method, family = PRESETS[name], DiffusionFamily()
    space = family.space(name, method, 400)
    assert bool(space) == isinstance(method, Tunable)
    settings = default_settings(method, space)
    # the budget of a recipe decides about steps
    assert settings.keys() | {"how.steps", "forget.proxy.how.steps"} >= space.keys()
    assert configure(method, nest_paths(settings), name) == method


@for_each("name", ["lur", "lur-exact", *ON_LAYERS, "original"])
def test_the_first_steps_go_as_they_are_set(name: str):
    of = every_family.problem("unet", whole_class=True)
    before = {n: p.detach().clone() for n, p in of.params.items()}
    soon(PRESETS[name], steps=2)(of)
    assert all(bool(p.isfinite().all()) for p in of.params.values())
    assert any(not torch.equal(p, before[n]) for n, p in of.params.items()) == (name != "original")


def recognised_shares(of: Problem) -> list[float]:
    """Per class, the share of the images under it that are nearest to its pattern."""
    patterns = torch.randn(every_family.CLASSES, 1, 4, 4, generator=torch.Generator().manual_seed(100))
    conditions = torch.arange(every_family.CLASSES).repeat_interleave(EACH)
    how = Sampler(steps=10, guidance=2.0)
    images = sample(of.model, of.task, conditions, shape=(1, 4, 4), how=how, rounded=False)
    nearest = (images[:, None] - patterns).square().flatten(2).sum(2).argmin(1)
    return (nearest == conditions).view(-1, EACH).double().mean(1).tolist()


@cache
def shares_before() -> list[float]:
    """The shares of the original, which is the same for every method."""
    return recognised_shares(every_family.problem("unet", whole_class=True))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name in RELATED else name
        for name in (*FORGETTING, *DAMAGING)
    ],
)
def test_a_class_is_drawn_no_more_and_the_others_are(name: str):
    of, before = every_family.problem("unet", whole_class=True), shares_before()
    steps, lr = (80, 6e-3) if name in RELATED else (50, 1e-2)
    method = soon(PRESETS[name], steps=steps, lr=lr)
    if name.startswith(("lur", "joint")):
        method = Pipeline(method, Recover(until=None, how=replace(method.how, steps=10)))
    method(of)
    after = recognised_shares(of)
    shares = [float(torch.tensor(each[:GONE]).mean()) for each in (before, after)]
    assert min(before) > 0.7
    assert after[GONE] < 0.45
    assert shares[1] > shares[0] - (0.4 if name in DAMAGING else 0.15)
