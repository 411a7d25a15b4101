"""The study of class erasure: what it searches is the same for all methods, and within the budget."""

from pathlib import Path
from types import ModuleType

import pytest
import torch

pytest.importorskip("diffusers")

from pages import ROOT
from unweave.bench.ranges import default_settings, nest_paths
from unweave.bench.recipe import Recipe, load
from unweave.bench.stage import Stage
from unweave.methods.configure import configure, refuse_unknown_settings


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import erase_methods

    return erase_methods


@pytest.fixture
def recipe(script: ModuleType) -> Recipe:
    return script.starting_recipe(load("digit-images-class"))


def test_every_search_has_one_range_of_rates_and_starts_alike(script: ModuleType, recipe: Recipe):
    starts: dict[str, set[object]] = {"forget": set(), "retain": set(), "how.lr": set()}
    for name in script.METHODS[:-2]:
        method, space = recipe.method(name), script.space_of(recipe, name)
        refuse_unknown_settings(method, space, name)
        assert space["how.lr"] == script.RATES
        for path, value in default_settings(method, space).items():
            starts.get(path, set()).add(value)
    assert starts == {"forget": {"away"}, "retain": {"both"}, "how.lr": {1e-3}}


@pytest.mark.parametrize("name", ["lur", "lur-lagged", "joint", "salun", "sa", "esd", "erasediff"])
def test_no_setting_of_a_search_costs_more_than_the_budget(
    script: ModuleType, recipe: Recipe, tmp_path: Path, name: str
):
    stage = Stage(recipe, tmp_path)
    model, most = recipe.build(10), script.space_of(recipe, name)["how.steps"].high
    torch.nn.init.normal_(next(model.parameters()))
    spent = []
    for steps in (1, 2):
        problem = stage.problem(model, 0, {})
        configure(recipe.method(name), nest_paths({"how.steps": steps}))(problem)
        spent.append(problem.cost.gradients)
    price = spent[1] - spent[0]
    assert 0.8 * script.budget_of(recipe) < spent[0] + (most - 1) * price <= script.budget_of(recipe) == 300
