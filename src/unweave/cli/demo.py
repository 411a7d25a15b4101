"""`unweave demo`: trains, forgets and compares with retraining on real data, in minutes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from unweave.audits.verdict import SEEDS
from unweave.bench.recipe import Recipe
from unweave.bench.recipe import load as load_recipe
from unweave.cli import bench, show
from unweave.cli.options import DEFAULTS, CommonFlags, parse_names
from unweave.cli.plan import Plan

QUICK = 2
"""The number of seeds of a quick run of classifiers."""

CLASSIFIERS = "lur:recover,lur-lagged:recover,joint:recover,short-retrain,scissorhands,salun:recover,retrain"
"""The methods of a demo of classifiers; each recipe runs those that it has settings of."""

DIGITS = ("digits-trace@0.1", "digits-trace@0.2", "digits-trace@0.3", "digits-class@0.3")
"""The recipes of a demo of classifiers, at their budgets."""

IMAGES = 50
"""The number of images of each class."""

QUICK_STEPS = 1500
"""The steps of a quick training of a generator: half of the recipe's."""


@dataclass(frozen=True)
class Demonstration:
    """The defaults of a demo.

    Args:
        recipes: One recipe per stage.
        methods: Method names separated by commas; all if None.
        seeds: The number of seeds; all of the recipes if None.
    """

    recipes: tuple[Recipe, ...]
    methods: str | None = None
    seeds: int | None = None


def digits(quick: bool) -> Demonstration:
    """Classifiers that forget mislabelled examples at several budgets, and one digit at one."""
    return Demonstration(tuple(map(load_recipe, DIGITS)), CLASSIFIERS, seeds=QUICK if quick else None)


def diffusion(quick: bool) -> Demonstration:
    """A generator that forgets one digit, with few images; a quick run has no attacks."""
    few = {"images": IMAGES, **({"attacks": 0} if quick else {})}
    recipe = load_recipe("digit-images-class", {"generation": few})
    if quick:
        hurried = recipe.with_short_training(QUICK_STEPS)
        return Demonstration((hurried,), "lur:recover,salun", seeds=1)
    return Demonstration((recipe,), "lur:recover,salun,sa,joint:recover", seeds=1)


def runs_any(recipe: Recipe, methods: str | None) -> bool:
    """Whether a recipe runs any of the methods: at a budget it needs settings of one."""
    names = parse_names(methods) or recipe.methods
    return not recipe.tuning.budgets or bool(recipe.configured().intersection(names))


DEMONSTRATIONS: Mapping[str, Callable[[bool], Demonstration]] = {"digits": digits, "diffusion": diffusion}


def demo(
    what: Literal["digits", "diffusion"] = "digits",
    /,
    *,
    quick: bool = False,
    methods: str | None = None,
    seeds: int | None = None,
    jobs: int | None = None,
    flags: CommonFlags = DEFAULTS,
) -> int:
    """Train, forget and compare with retraining on real data, in minutes.

    With digits there are two problems: the model forgets a tenth of a training set with wrong labels, which
    it has memorised, at several budgets; and all images of one digit. With diffusion there is one: a
    generator forgets one digit, and the report shows the images of each model. The demo writes the cells,
    record.json and report.html.

    Args:
        what: Classifiers of digits, or a generator of digits; scikit-learn's digits need no download.
        quick: Only two seeds, or two methods and a shorter training of the generator; gives no verdict.
        methods: Method names separated by commas, such as lur:recover,salun; a selection by default.
        seeds: The number of seeds; a verdict needs ten. One by default for the generator.
        jobs: The number of worker processes; by default one per core.
        flags: The flags of every verb.
    """
    demonstration = DEMONSTRATIONS[what](quick)
    count, recipes = seeds if seeds is not None else demonstration.seeds, list(demonstration.recipes)
    if count is not None and count < SEEDS:
        # without a verdict there is no use for calibration models
        recipes = [replace(recipe, calibration_seeds=()) for recipe in recipes]
    method_names = demonstration.methods if methods is None else methods
    recipes = [recipe for recipe in recipes if runs_any(recipe, method_names)]
    plan = Plan(methods=method_names, seeds=count, jobs=jobs)
    folder = bench.run_recipes(recipes, "unweave-demo", plan, flags)
    if count is not None and count < SEEDS and not flags.json:
        show.print_lines(f"no verdict: {count} {'seed' if count == 1 else 'seeds'}, {SEEDS} needed", "")
    bench.print_summary(folder, flags)
    return 0
