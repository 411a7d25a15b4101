"""`unweave demo`: train, forget and compare with retraining on real data, in minutes."""

from dataclasses import replace
from typing import Literal

from unweave.audit.verdict import SEEDS
from unweave.cli import bench, show
from unweave.cli.options import DEFAULTS, Shared
from unweave.run.recipe import load as load_recipe

RECIPES = {"digits": ("digits-trace", "digits-class")}
QUICK = 2


def demo(
    what: Literal["digits"] = "digits",
    /,
    *,
    quick: bool = False,
    methods: str | None = None,
    seeds: int | None = None,
    jobs: int | None = None,
    shared: Shared = DEFAULTS,
) -> int:
    """Train, forget and compare with retraining on real data, in minutes.

    Two stages: a tenth of the records of a training set with wrong labels, which the model has memorised; and
    all images of one digit. Written are the cells, record.json and report.html.

    Args:
        what: The data: scikit-learn's digits, which need no download.
        quick: Only two seeds, and therefore no verdict.
        methods: Names with commas between, such as lur,salun; all if none are given.
        seeds: How many seeds; a verdict needs ten.
        jobs: Worker processes; as many as there are cores.
        shared: Of every verb.
    """
    count = QUICK if quick and seeds is None else seeds
    recipes = [load_recipe(name) for name in RECIPES[what]]
    if count is not None and count < SEEDS:
        # retrains that only fix the margins of a verdict are of no use where there is none
        recipes = [replace(recipe, calibration_seeds=()) for recipe in recipes]
    plan = bench.Plan(methods=methods, seeds=count, jobs=jobs)
    folder, made = bench.run(recipes, "unweave-demo", plan, shared)
    if count is not None and count < SEEDS and not shared.json:
        show.say(f"no verdict: {count} {'seed' if count == 1 else 'seeds'}, {SEEDS} needed", "")
    bench.told(folder, made, shared)
    return 0
