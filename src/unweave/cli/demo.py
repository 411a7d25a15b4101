"""`unweave demo`: trains, forgets and compares with retraining on real data, in minutes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from unweave.audits.verdict import SEEDS
from unweave.bench.recipe import Recipe
from unweave.bench.recipe import load as load_recipe
from unweave.bench.study import REFERENCES
from unweave.cli.bench import print_summary
from unweave.cli.bench_runs.recipes import run_recipes
from unweave.cli.inputs.executor import Executor
from unweave.cli.inputs.extra import require_diffusion
from unweave.cli.inputs.plan import Plan
from unweave.cli.options import DEFAULTS, CommonFlags, parse_names
from unweave.cli.terminal import show

QUICK = 2
"""The number of seeds of a quick run of classifiers."""

CLASSIFIERS = "lur:recover,lur-lagged:recover,joint:recover,short-retrain,scissorhands,salun:recover,retrain"
"""The methods of a demo of classifiers; each recipe runs those that it has settings of."""

DIGITS = ("digits-trace@0.1", "digits-trace@0.3", "digits-class@0.3")
"""The recipes of a demo of classifiers, at their budgets."""

PROBE = 12
"""The number of steps between two measurements of the conflict of gradients: each costs about five steps."""

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
        untuned: The recipe for methods that none of the others has settings of; None if they run anything.
    """

    recipes: tuple[Recipe, ...]
    methods: str | None = None
    seeds: int | None = None
    untuned: Recipe | None = None

    def recipes_for(self, methods: str | None) -> list[Recipe]:
        """The recipes that run any of the methods: at a budget a recipe needs settings of one."""
        names = set(parse_names(methods) or ())
        settings = [
            recipe.configured_methods() if recipe.tuning.budgets else names for recipe in self.recipes
        ]
        recipes = [
            recipe
            for recipe, own_methods in zip(self.recipes, settings, strict=True)
            if not names or names & own_methods
        ]
        other_names = names - set(REFERENCES).union(*settings)
        return [*recipes, self.untuned] if self.untuned and other_names else recipes


def digits(quick: bool) -> Demonstration:
    """Classifiers that forget mislabelled examples at two budgets, and one digit at one."""
    return Demonstration(
        tuple(replace(load_recipe(name), probe=PROBE) for name in DIGITS),
        CLASSIFIERS,
        seeds=QUICK if quick else None,
        untuned=load_recipe("digits-class"),
    )


def diffusion(quick: bool) -> Demonstration:
    """A generator that forgets one digit, with few images; a quick run has no attacks."""
    generation = {"images": IMAGES, **({"attacks": 0} if quick else {})}
    recipe = load_recipe("digit-images-class", {"generation": generation})
    if quick:
        short_recipe = recipe.with_short_training(QUICK_STEPS)
        return Demonstration((short_recipe,), "lur-lagged,salun", seeds=1)
    return Demonstration((recipe,), "lur-lagged,salun,sa,joint", seeds=1)


DEMONSTRATIONS: Mapping[str, Callable[[bool], Demonstration]] = {"digits": digits, "diffusion": diffusion}

What = Literal["digits", "diffusion", "text-to-image"]


def demo(
    what: What = "digits",
    /,
    *,
    quick: bool = False,
    methods: str | None = None,
    seeds: int | None = None,
    jobs: int | None = None,
    flags: CommonFlags = DEFAULTS,
) -> int:
    """Train, forget and compare with retraining on real data, in minutes.

    With digits, a classifier forgets a tenth of its training set, whose wrong labels it has memorised, at
    two budgets; another one forgets all images of one digit. With diffusion, a generator forgets one
    digit, and the report shows the images of each model. With text-to-image, a model that draws digits from
    prompts forgets an object, and a copy of it forgets a colour. The demo writes the cells, record.json and
    report.html.

    Args:
        what: Classifiers of digits, a generator of digits, or a model that draws digits from prompts;
            scikit-learn's digits need no download.
        quick: Only two seeds, or a shorter training of the generator and fewer methods or concepts; gives no
            verdict.
        methods: Method names separated by commas, such as lur:recover,salun; a selection by default.
        seeds: The number of seeds; a verdict needs ten. One by default for generators, and always for
            text-to-image.
        jobs: The number of worker processes; by default one per core.
        flags: The flags of every verb.
    """
    if what == "text-to-image":
        if seeds not in (None, 1):
            raise ValueError(f"demo text-to-image has one seed, found --seeds {seeds}: leave it out")
        folder, count = run_concepts(quick, methods, jobs, flags), 1
    else:
        folder, count = run_demonstration(DEMONSTRATIONS[what](quick), methods, seeds, jobs, flags)
    if count is not None and count < SEEDS and not flags.json:
        show.print_lines(f"no verdict: {count} {'seed' if count == 1 else 'seeds'}, {SEEDS} needed", "")
    print_summary(folder, flags)
    return 0


def run_demonstration(
    demonstration: Demonstration,
    methods: str | None,
    seeds: int | None,
    jobs: int | None,
    flags: CommonFlags,
) -> tuple[Path, int | None]:
    """Runs the recipes of a demo; returns the folder and the number of seeds, None for all."""
    count = seeds if seeds is not None else demonstration.seeds
    method_names = demonstration.methods if methods is None else methods
    recipes = demonstration.recipes_for(method_names)
    if count is not None and count < SEEDS:
        # without a verdict there is no use for calibration models
        recipes = [replace(recipe, calibration_seeds=()) for recipe in recipes]
    plan = Plan(methods=method_names, seeds=count, executor=Executor(jobs))
    return run_recipes(recipes, "unweave-demo", plan, flags), count


def run_concepts(quick: bool, methods: str | None, jobs: int | None, flags: CommonFlags) -> Path:
    """Runs the demo of text-to-image models; returns the folder.

    Raises:
        ValueError: If the extra is not installed.
    """
    with require_diffusion():
        from unweave.cli import demo_concepts
        from unweave.cli.bench_runs.concepts import run_concept_bench
    comparison = demo_concepts.digits(quick)
    return run_concept_bench(comparison, Path("unweave-demo"), methods, Executor(jobs), flags)
