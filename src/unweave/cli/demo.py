"""`unweave demo`: train, forget and compare with retraining on real data, in minutes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from unweave.audits.verdict import SEEDS
from unweave.bench.recipe import Recipe
from unweave.bench.recipe import load as load_recipe
from unweave.cli import bench, show
from unweave.cli.options import DEFAULTS, Shared
from unweave.cli.plan import Plan

QUICK = 2
"""Seeds of a quick run of classifiers."""

CLASSIFIERS = (
    "lur:recover,lur,lur-exact:recover,joint:recover,lur-match:recover,short-retrain,finetune,ascent,neggrad+,"
    "salun,scissorhands,salun:recover,retrain"
)
"""What a demo of classifiers runs: `unweave bench` runs all."""

IMAGES = 50
"""Of each class that a generator draws."""

QUICK_STEPS = 1500
"""Of a quick training of a generator: half of the recipe's."""


@dataclass(frozen=True)
class Demonstration:
    """What a demo runs where nothing else is asked for.

    Args:
        recipes: One per stage.
        methods: Names with commas between; all if None.
        seeds: How many; all of the recipes if None.
    """

    recipes: tuple[Recipe, ...]
    methods: str | None = None
    seeds: int | None = None


def digits(quick: bool) -> Demonstration:
    """Classifiers: records with wrong labels, and one digit; the methods that tell the story, not all."""
    recipes = (load_recipe("digits-trace"), load_recipe("digits-class"))
    return Demonstration(recipes, CLASSIFIERS, seeds=QUICK if quick else None)


def diffusion(quick: bool) -> Demonstration:
    """A generator that is to make one digit no more, with few images; in a hurry, without attacks on it."""
    recipe = load_recipe("digit-images-class")
    assert recipe.generation is not None
    few = replace(recipe.generation, images=IMAGES)
    if quick:
        hurried = replace(recipe, generation=replace(few, attacks=0)).with_short_training(QUICK_STEPS)
        return Demonstration((hurried,), "lur:recover,salun", seeds=1)
    return Demonstration((replace(recipe, generation=few),), "lur:recover,salun,sa,joint:recover", seeds=1)


SHOWN: Mapping[str, Callable[[bool], Demonstration]] = {"digits": digits, "diffusion": diffusion}


def demo(
    what: Literal["digits", "diffusion"] = "digits",
    /,
    *,
    quick: bool = False,
    methods: str | None = None,
    seeds: int | None = None,
    jobs: int | None = None,
    shared: Shared = DEFAULTS,
) -> int:
    """Train, forget and compare with retraining on real data, in minutes.

    With digits there are two stages: a tenth of the records of a training set with wrong labels, which the
    model has memorised; and all images of one digit. With diffusion there is one: a generator of digits
    forgets one of them, and the report shows what each model draws. Written are the cells, record.json and
    report.html.

    Args:
        what: Classifiers of digits, or a generator of them; scikit-learn's, which need no download.
        quick: Only two seeds, or of the generator two methods and a shorter training; therefore no verdict.
        methods: Names with commas between, such as lur:recover,salun; a selection if none are given.
        seeds: How many seeds; a verdict needs ten. One of the generator if not given.
        jobs: Worker processes; as many as there are cores.
        shared: Of every verb.
    """
    shown = SHOWN[what](quick)
    count, recipes = seeds if seeds is not None else shown.seeds, list(shown.recipes)
    if count is not None and count < SEEDS:
        # retrains that only fix the margins of a verdict are of no use where there is none
        recipes = [replace(recipe, calibration_seeds=()) for recipe in recipes]
    chosen = shown.methods if methods is None else methods
    plan = Plan(methods=chosen, seeds=count, jobs=jobs)
    folder = bench.run_recipes(recipes, "unweave-demo", plan, shared)
    if count is not None and count < SEEDS and not shared.json:
        show.print_lines(f"no verdict: {count} {'seed' if count == 1 else 'seeds'}, {SEEDS} needed", "")
    bench.print_summary(folder, shared)
    return 0
