"""Recipes: what is written is what runs, and what is wrong is named."""

import json
import tomllib
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

import pytest
import torch

from bench.tiny import tiny
from for_each import for_each
from unweave.bench.recipe import load, parse, recipe_names
from unweave.bench.setup import Data
from unweave.bench.split_data import make_split
from unweave.descent.descend import Descent
from unweave.methods import METHODS, methods_for
from unweave.methods.configure import configure
from unweave.methods.lur import LUR
from unweave.methods.pipeline import Pipeline
from unweave.methods.recover import Recover
from unweave.methods.simple import FineTune, FromScratch
from unweave.tables import read
from unweave.targets import Level, Match
from unweave.targets.estimators.proxy import Proxy

POWER = Path(__file__).parents[2] / "records" / "power.json"
BASE = {"name": "x", "data": {"name": "digits"}, "model": {"name": "mlp"}, "train": {"epochs": 3}}


@for_each("name", recipe_names())
def test_a_recipe_is_rebuilt_from_its_table_in_json(name: str) -> None:
    recipe = load(name)
    assert parse(json.loads(json.dumps(recipe.table()))) == recipe


def test_the_recipes_of_the_benchmarks_are_there() -> None:
    names = {"digits-trace", "digits-clean", "digits-class", "fashion-mnist-random10", "fashion-mnist-class"}
    assert names | {"cifar10-resnet18-random10", "cifar10-resnet18-class"} <= set(recipe_names())


@for_each("name", recipe_names())
def test_every_number_of_a_recipe_is_followed_by_its_source(name: str) -> None:
    has_source = False
    for line in files("unweave").joinpath("recipes", f"{name}.toml").read_text().splitlines():
        setting, _, comment = line.partition("#")
        if setting.startswith("["):
            has_source = bool(comment)  # the source of a whole table stands in its first line
        settings = tomllib.loads(setting) if "=" in setting else {}
        values = [value for key, value in settings.items() if "seeds" not in key]
        numbers = [value for value in values if not isinstance(value, str | bool)]
        assert has_source or comment.strip() or "name" in settings or not numbers, line


@pytest.mark.skipif(not POWER.exists(), reason="the records are in the clone only")
def test_the_recorded_power_is_that_of_the_recipes_that_ship() -> None:
    rows = {row["stage"]: row for row in json.loads(POWER.read_text())["rows"] if not row["change"]}
    assert {"digits-clean", "digits-trace", "digits-class"} <= set(rows)
    for name, row in rows.items():
        table = json.loads(json.dumps(load(name).table()))
        recorded_table = {**row["recipe"], "data": {**table["data"], **row["recipe"]["data"]}}
        assert recorded_table == {key: table[key] for key in recorded_table}
        share = {kind: each["share"] for kind, each in row["verdicts"].items()}
        assert share["original"]["FAIL"] == 1
        assert share["retrained"]["PASS"] >= 0.95 or not name.startswith("digits")
        assert "hidden" not in share or share["hidden"]["FAIL"] == 1


def test_retrain_is_the_recipes_training_and_short_retrain_a_part_of_it() -> None:
    recipe = parse({**BASE, "tuning": {"budget": 0.4}})
    assert recipe.methods["retrain"] == FromScratch(recipe.train)
    assert recipe.methods["short-retrain"] == FromScratch(replace(recipe.train, epochs=0.4 * 3))
    assert set(recipe.methods) == set(methods_for("classifier"))


def test_a_recipe_of_several_budgets_is_one_at_each() -> None:
    recipe = parse(
        {**BASE, "tuning": {"budgets": [0.1, 0.4]}, "methods": {"short-retrain": {"how": {"lr": 0.3}}}}
    )
    assert recipe.tuning.largest_budget == 0.4
    for budget in (0.1, 0.4):
        one = recipe.with_budget(budget)
        assert one.tuning.largest_budget == budget and one.methods["retrain"] == recipe.methods["retrain"]
        assert one.methods["short-retrain"].how == replace(recipe.train, epochs=budget * 3, lr=0.3)
        assert parse(json.loads(json.dumps(one.table()))) == one
    assert parse(json.loads(json.dumps(recipe.table()))) == recipe


BATCH = """
[methods.finetune]
how.batch = 32
[methods.salun]
fraction = 0.3
"""
"""What a recipe itself sets of methods."""

SETTINGS = """
[methods.finetune]
how.lr = 0.3
how.steps = 7
[methods."lur:recover"]
lur.how.steps = 3
"""
"""What a search wrote."""


@pytest.fixture
def mine(tmp_path) -> Path:
    """A folder with a recipe of one's own, and its settings within a budget of 0.1."""
    text = files("unweave").joinpath("recipes", "digits-class.toml").read_text()
    (tmp_path / "mine.toml").write_text(text + BATCH)
    (tmp_path / "mine@0.1.toml").write_text(SETTINGS)
    return tmp_path


@pytest.mark.parametrize("budget", [0.03, 0.5, 1.0])
def test_settings_of_a_budget_make_the_recipe_beside_them_one_at_that_budget(mine, budget: float) -> None:
    (mine / f"mine@{budget}.toml").write_text(SETTINGS)
    parent, recipe = load(mine / "mine.toml"), load(mine / f"mine@{budget}.toml")
    assert recipe.tuning == replace(parent.tuning, budget=budget, budgets=(budget,))
    budget_recipe = parent.with_budget(budget)
    assert replace(recipe, methods={}, tuning=budget_recipe.tuning) == replace(budget_recipe, methods={})
    assert recipe.methods["short-retrain"] == budget_recipe.methods["short-retrain"]
    assert recipe.methods["scrub"] == budget_recipe.methods["scrub"]
    assert recipe.method("lur:recover").stages[0].how.steps == 3 and recipe.name == "mine"


def test_a_setting_of_the_recipe_stays_where_the_search_left_it(mine) -> None:
    how = load(mine / "mine@0.1.toml").methods["finetune"].how
    assert (how.lr, how.steps, how.epochs, how.batch) == (0.3, 7, None, 32)
    assert load(mine / "mine@0.1.toml").configured_methods() == {"finetune", "lur:recover"}, (
        "of 0.6 is SalUn's"
    )


@for_each(
    ("name", "text", "message"),
    [
        ("mine@1.5", SETTINGS, r"a budget must be a fraction of retraining in \(0, 1\], found 1.5"),
        ("mine@0", SETTINGS, "found 0.0"),
        ("mine@nan", SETTINGS, "found nan"),
        ("other@0.1", SETTINGS, "expected a recipe at .*other.toml, found no such file"),
        ("mine@0.2", "[methods.salum]", "unknown method 'salum'.*'salun'"),
        ("mine@0.2", "[methods.salun]\nfractoin = 1", "unknown key 'fractoin' in methods.salun"),
        ("mine@0.2", "methods = 3", "methods must be a table, found 3"),
        ("mine@0.2", "[methods]\nsalun = 3", "methods.salun must be a table, found 3"),
        ("mine@0.2", "[train]\nlr = 1", "unknown key 'train' in .*settings of 'mine' at a budget"),
    ],
)
def test_what_is_wrong_with_settings_of_a_budget_is_named(mine, name: str, text: str, message: str) -> None:
    (mine / f"{name}.toml").write_text(text)
    with pytest.raises(ValueError, match=message):
        load(mine / f"{name}.toml")


def test_a_name_that_ends_in_no_number_is_any_recipe(mine) -> None:
    (mine / "mine.toml").rename(mine / "mine@home.toml")
    assert load(mine / "mine@home.toml").name == "mine@home"


def test_the_settings_that_ship_are_of_methods_at_budgets_of_their_recipe() -> None:
    budgets = [("digits-trace", 0.1), ("digits-trace", 0.2), ("digits-trace", 0.3), ("digits-class", 0.3)]
    for name, budget in [*budgets, ("digits-trace", 0.45)]:
        recipe = load(f"{name}@{budget}")
        assert recipe.name == name and recipe.tuning.largest_budget == budget
        assert {
            "lur:recover",
            "joint:recover",
            "salun:recover",
            "short-retrain",
        } <= recipe.configured_methods()
    with pytest.raises(ValueError, match="unknown recipe 'digits-trace@0.15'"):
        load("digits-trace@0.15")


def test_methods_compute_in_the_precision_of_the_training() -> None:
    bf16 = {"train": {"epochs": 3, "precision": "bf16"}}
    recipe = parse({**BASE, **bf16})
    lur = recipe.methods["lur-match"]
    assert isinstance(lur, LUR)
    assert isinstance(lur.forget, Level)
    assert lur.how.precision == "bf16"
    matched = parse({**BASE, **bf16, "methods": {"lur": {"forget": "match"}}}).methods["lur"]
    assert isinstance(matched, LUR) and isinstance(matched.forget, Match)
    assert matched.how.precision == matched.forget.proxy.how.precision == "bf16"
    assert [each.how.precision for each in recipe.method("lur:recover").stages] == ["bf16", "bf16"]
    assert tiny().methods["original"] == METHODS["original"]


@for_each(
    ("change", "message"),
    [
        ({"data": {"nam": "digits"}}, "unknown key 'nam' in data .did you mean 'name'"),
        ({"data": {"name": "digit"}}, "data.name must be .* found 'digit' .did you mean 'digits'"),
        ({"data": {"name": "digits", "fraction": 1.5}}, r"fraction must be in \(0, 1\), found 1.5"),
        ({"data": {"name": "digits", "noise": 1.0}}, r"noise must be a fraction in \[0, 1\), found 1.0"),
        ({"data": {"name": "digits", "limit": 1}}, "limit must be at least 2 .* found 1"),
        ({"data": {"name": "digits", "forget": "ids"}}, "forget = 'ids' with 0 ids"),
        ({"data": {"name": "digits", "limit": "many"}}, "data.limit: .*valid integer, found 'many'"),
        ({"data": {"name": "digits", "seed": True}}, "data.seed: .*valid integer, found True"),
        ({"data": {}}, "data.name is missing"),
        (
            {"train": {"epochs": 1, "compile": "all"}},
            "compile must be a valid boolean or 'step', found 'all'",
        ),
        ({"model": 3}, "model must be a table, found 3"),
        ({"trian": {}}, "unknown key 'trian' in the recipe .did you mean 'train'"),
        ({"train": {"lr": 1.0}}, "a descent needs either steps or epochs"),
        ({"train": {"lr": -1.0, "epochs": 2}}, r"train: lr must be in \(0, inf\), found -1.0"),
        ({"seeds": []}, "at least one seed"),
        ({"save_every": 0}, "save_every must be at least 1 step, found 0"),
        (
            {"save_every": 5, "train": {"epochs": 1, "optimizer": "adamw8bit"}},
            "save_every saves no state of train.optimizer=adamw8bit: leave one",
        ),
        ({"seeds": [1, 1]}, "each seed has one use, found 1 in seeds and in seeds"),
        ({"seeds": [1000]}, "found 1000 in seeds and in tuning.seeds"),
        ({"tuning": {"budget": 2}}, r"budget must be a fraction of retraining in \(0, 1\], found 2"),
        ({"tuning": {"budgets": [0.1, 0]}}, r"budget must be a fraction of retraining in \(0, 1\], found 0"),
        ({"tuning": {"budgets": [0.1, 0.3, 0.1]}}, "budgets must differ, found 0.1, 0.3, 0.1"),
        ({"tuning": {"budgets": [0.1, "x"]}}, "tuning.budgets.1: .*valid number, found 'x'"),
        ({"tuning": {"budgets": 0.1}}, "tuning.budgets: .*valid array, found 0.1"),
        ({"tuning": {"budget": 0.5, "budgets": [0.1]}}, "budget must be one of budgets, 0.1, found 0.5"),
        (
            {"methods": {"short-retrain": {"how": {"steps": 9}}}},
            "must be as long as tuning.budget of .*, found 9 steps: leave",
        ),
        ({"tuning": {"trials": 0}}, "at least one trial"),
        ({"headline": "lurr"}, "unknown method 'lurr' .did you mean 'lur'"),
        ({"methods": {"salum": {}}}, "unknown method 'salum' .did you mean 'salun'"),
        ({"methods": {"lur": {"alfa": 1}}}, "unknown key 'alfa' in methods.lur .did you mean 'alpha'"),
        ({"methods": {"finetune": {"lr": 1}}}, r"'lr' in methods.finetune \(did you mean 'how.lr'\?\)"),
        ({"methods": {"lur": {"lr": 1}}}, "'lr' .* .did you mean 'how.lr' or 'forget.proxy.how.lr'"),
        (
            {"methods": {"lur": {"forget": {"kind": "match", "proxy": {"lr": 1}}}}},
            "'lr' in methods.lur.forget.proxy .did you mean 'how.lr'",
        ),
        ({"methods": {"lur": {"forget": "clampd"}}}, "forget.* 'clampd'.*did you mean 'clamped'"),
        ({"methods": {"lur": {"forget": {"kind": "clampd"}}}}, "forget.kind .*did you mean 'clamped'"),
        (
            {"methods": {"lur": {"forget": {"kind": "clamped", "kap": 1}}}},
            "'kap' in methods.lur.forget .did you mean 'cap'",
        ),
        ({"methods": {"lur": {"forget": "surrogate"}}}, "lur.forget = 'surrogate' is for .* diffusion"),
        ({"methods": {"lur:recover": {"alpha": 1}}}, "'alpha' in .* .did you mean 'lur.alpha'"),
        ({"methods": {"lur:recover": {"lur": {"alfa": 1}}}}, "'alfa' in methods.lur:recover.lur .did"),
        ({"methods": {"lur:recovr": {}}}, "unknown method 'recovr' .did you mean 'recover'"),
        ({"epochs": 1}, "'epochs' in the recipe .did you mean 'train.epochs'"),
        (
            {"methods": {"lur": {"how": {"lrr": 1}}}},
            "unknown key 'lrr' in methods.lur.how .did you mean 'lr'",
        ),
        (
            {"methods": {"lur": {"forget": {"kind": "match", "proxy": {"how": {"stps": 1}}}}}},
            "unknown key 'stps' in methods.lur.forget.proxy.how",
        ),
        ({"methods": {"lur": {"mode": "nest"}}}, "methods.lur.mode must be .* .did you mean 'nested'"),
        ({"methods": {"lur": {"how": {"lr": -1}}}}, r"methods.lur.how: lr must be in \(0, inf\), found -1"),
        ({"methods": {"lur": {"how": 3}}}, "methods.lur.how must be a table, found 3"),
        ({"methods": {"lur": 3}}, "methods.lur must be a table, found 3"),
        ({"methods": 3}, "methods must be a table, found 3"),
        ({"methods": {"retrain": {"how": {"lr": 3.0}}}}, r"change \[train\] instead"),
    ],
)
def test_what_is_wrong_is_named(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse({**BASE, **change})


def test_a_missing_part_is_named() -> None:
    with pytest.raises(ValueError, match="^train is missing"):
        parse({key: value for key, value in BASE.items() if key != "train"})


@pytest.mark.parametrize(
    ("folder", "name", "runs"),
    [
        ("text-to-image", "garments", "unweave bench .* --concept red"),
        ("concepts", "sd-nudity", "unweave forget FOLDER --recipe "),
    ],
)
def test_a_recipe_of_another_kind_says_what_runs_it(folder: str, name: str, runs: str, tmp_path: Path):
    path = tmp_path / "mine.toml"
    path.write_text(files("unweave").joinpath("recipes", folder, f"{name}.toml").read_text())
    for place in (name, str(path)):
        with pytest.raises(ValueError, match=f"the recipe {place!r} .*: run {runs}"):
            load(place)


def test_recipes_that_are_not_there_or_not_toml(tmp_path) -> None:
    for content in (b"name = ", b"\xff"):
        (tmp_path / "bad.toml").write_bytes(content)
        with pytest.raises(ValueError, match="bad.toml is not TOML"):
            load(tmp_path / "bad.toml")
    with pytest.raises(ValueError, match="no such file"):
        load(tmp_path / "none.toml")
    with pytest.raises(ValueError, match="unknown recipe 'digits-trac' .did you mean 'digits-trace'"):
        load("digits-trac")


def test_a_recipe_of_ones_own_is_named_for_its_file(tmp_path) -> None:
    text = files("unweave").joinpath("recipes", "digits-class.toml").read_text()
    (tmp_path / "mine.toml").write_text(text)
    assert load(tmp_path / "mine.toml") == replace(load("digits-class"), name="mine")


def test_steps_displace_default_epochs_and_the_other_way_round() -> None:
    assert configure(FineTune(how=Descent(lr=0.3, epochs=2)), {"how": {"steps": 7}}).how == Descent(
        0.3, steps=7
    )
    match = Match(Proxy(how=Descent(epochs=3)))
    lur = configure(LUR(forget=match), {"how": {"epochs": 2}, "forget": {"proxy": {"how": {"steps": 4}}}})
    assert (lur.how.steps, lur.how.epochs) == (None, 2)
    assert lur.forget == Match(Proxy(how=Descent(steps=4)))


def test_settings_of_a_pipeline_change_the_stage_that_their_path_begins_with() -> None:
    pipeline = parse({**BASE, "methods": {"lur:recover": {"recover": {"how": {"lr": 0.25}}}}})
    method = pipeline.methods["lur:recover"]
    assert method == Pipeline(LUR(), Recover(how=replace(Recover().how, lr=0.25)))


def test_what_is_not_overridden_stays() -> None:
    method = configure(LUR(alpha=0.07), {"how": {"lr": 0.25}, "weight": 2})
    assert method == replace(LUR(alpha=0.07), weight=2.0, how=replace(LUR().how, lr=0.25))
    assert configure(LUR(), {}) == LUR()


def test_no_limit_on_the_norm_can_be_written_in_toml() -> None:
    method = configure(LUR(), tomllib.loads("how.max_norm = inf"))
    assert method.how.max_norm == float("inf")


def test_forgetting_at_random_takes_the_fraction_and_noise_moves_its_share() -> None:
    data = Data("digits", noise=0.2, fraction=0.1)
    split, clean = make_split(data), make_split(replace(data, noise=0.0))
    assert len(split.forget) == round(0.1 * 1437) and len(split.retain) == 1437 - 144
    assert int((split.train.labels != clean.train.labels).sum()) == round(0.2 * 1437)
    assert torch.equal(split.forget, clean.forget)


def test_forgetting_a_class_takes_all_of_it_and_ids_are_taken_as_they_are() -> None:
    split = make_split(Data("digits", forget="class", label=3))
    assert split.forgotten_classes == (3,)
    assert len(split.forget) == int((split.train.labels == 3).sum()) > 100
    assert make_split(Data("digits", forget="ids", ids=(5, 2))).forget.tolist() == [2, 5]
    with pytest.raises(
        ValueError, match="label must be one of the training data's, 0..9, found 11: set it in .data. of"
    ):
        make_split(Data("digits", forget="class", label=11))


def test_cutting_short_marks_a_recipe_as_partial() -> None:
    recipe = load("cifar10-resnet18-random10").with_short_training(200, limit=2000)
    assert recipe.partial and recipe.data.limit == 2000
    assert (recipe.train.steps, recipe.train.epochs) == (200, None)


@for_each("name", ["", "..", "../elsewhere", "/elsewhere", "a\\b"])
def test_a_name_that_leads_out_of_the_folder_of_a_run_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="name must be a valid file name"):
        tiny(name=name)


@dataclass(frozen=True)
class Several:
    """A field that holds any number of dataclasses."""

    data: tuple[Data, ...] = ()


def test_dataclasses_in_a_tuple_are_read_one_by_one() -> None:
    several = read(Several, {"data": [{"name": "digits"}, {"name": "cifar10", "seed": 3}]}, "several")
    assert several == Several((Data("digits"), Data("cifar10", seed=3)))
    with pytest.raises(ValueError, match="several.data.0.name must be"):
        read(Several, {"data": [{"name": "digit"}]}, "several")
