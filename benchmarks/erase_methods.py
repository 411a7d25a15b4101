"""The methods of the study of class erasure, and what a search of each chooses from.

All get the gradients of the recipe's budget, batches of 64 retain and 32 forget images and one range of
learning rates; as far as a method has them, also the same forget losses, retain losses and weights. Every
search starts at the same learning rate, forget loss, retain loss and weight; what a method is defined by is
fixed.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from unweave.bench.recipe import Recipe, shorten_training
from unweave.descent.descend import Descent
from unweave.methods import Method
from unweave.methods.configure import configure
from unweave.methods.lur import LUR
from unweave.methods.simple import FromScratch
from unweave.space import Choice, Log, Range, Whole

SEARCHED = ("lur", "lur-lagged", "joint", "salun", "sa", "esd", "scissorhands", "erasediff")
"""The methods whose settings are searched."""

DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "lur-lagged": {},
    "lur-lagged:recover": {},
    "lur:recover": {"lur": {"forget": "mislabel", "retain": "nll", "weight": 0.33}},
}
"""The default of `forget`, the same with a recovery, and the former default."""

HIGHER_RATE: Mapping[str, Mapping[str, Any]] = {"lur-lagged": {"how": {"lr": 4e-4}}}
"""The default at a rate that was chosen by hand, of three, on digit 3 of the tuning seed."""

ABLATIONS: Mapping[str, Mapping[str, Any]] = {
    "without-lookahead": {"mode": "joint"},
    "mislabel": {"forget": "mislabel"},
    "training-loss-alone": {"retain": "nll"},
}
"""What is changed of "lur-lagged", one at a time, beside its learning rate."""

METHODS = (*SEARCHED, "short-retrain")
"""All methods of the study: a training from scratch has no search."""

PRICES = {"salun": 2}
"""The gradients of a step of methods whose own space assumes another feed."""

MASK = 5
"""About the gradients of a mask over the forget set of digits; on Fashion-MNIST it takes 24."""

RATES = Log(1e-4, 4e-3)
"""The learning rates of all methods; models are trained at 2e-3."""

COMMON: Mapping[str, Range] = {
    "forget": Choice(("away", "ideal", "mislabel")),
    "retain": Choice(("both", "nll")),
}
"""What is searched of every method that has it."""

START: Mapping[str, Any] = {"forget": "away", "retain": "both", "weight": 0.5, "retain_weight": 2.0}
"""Where searches start, as far as a method has it: by hand, on the objects of text-to-image models."""

DESCENT = {"lr": 1e-3, "batch": 64, "forget_batch": 32, "max_norm": 1.0, "schedule": "cosine"}


def budget_of(recipe: Recipe) -> int:
    """The gradient evaluations of a run."""
    return shorten_training(recipe.train, recipe.tuning.largest_budget).steps or 0


def starting_recipe(recipe: Recipe) -> Recipe:
    """The recipe with the settings at which searches start."""
    short = FromScratch(shorten_training(recipe.train, recipe.tuning.largest_budget))
    starts = {name: start_of(recipe.family.method_named(name)) for name in SEARCHED}
    return replace(recipe, headline="lur", methods={**recipe.methods, **starts, "short-retrain": short})


def with_defaults(recipe: Recipe, changes: Mapping[str, Mapping[str, Any]]) -> Recipe:
    """The recipe on its first seed with the defaults of `forget`, but for some changes by method."""
    methods = {name: configure(recipe.family.method_named(name), each) for name, each in changes.items()}
    return replace(recipe, headline=next(iter(methods)), methods=methods, seeds=recipe.seeds[:1])


def without_lookahead(recipe: Recipe) -> Recipe:
    """The recipe with "lur-lagged" and the same settings without its lookahead, as "joint"."""
    lagged = recipe.method("lur-lagged")
    joint = configure(lagged, {"mode": "joint"})
    return replace(recipe, headline="lur-lagged", methods={"lur-lagged": lagged, "joint": joint})


def ablations(recipe: Recipe) -> Recipe:
    """The recipe with "lur-lagged", and the same settings with one thing changed at a time."""
    lagged = recipe.method("lur-lagged")
    assert isinstance(lagged, LUR)
    rows = {name: configure(lagged, change) for name, change in ABLATIONS.items()}
    rows["quarter-rate"] = configure(lagged, {"how": {"lr": lagged.how.lr / 4}})
    methods = {"original": recipe.method("original"), "lur-lagged": lagged, **rows}
    return replace(recipe, headline="lur-lagged", methods=methods)


def start_of(method: Method) -> Method:
    """A method with the settings at which its search starts."""
    fields = {name: each for name, each in START.items() if hasattr(method, name)}
    how = {"how": DESCENT} if isinstance(getattr(method, "how", None), Descent) else {}
    return configure(method, {**fields, **how})


def space_of(recipe: Recipe, name: str) -> dict[str, Range]:
    """What a search of a method chooses from; nothing for a training from scratch."""
    method, budget = recipe.method(name), budget_of(recipe)
    if isinstance(method, FromScratch):
        return {}
    space = {**recipe.family.space(name, method, budget), "how.lr": RATES}
    if name in PRICES:
        max_steps = (budget - MASK) // PRICES[name]
        space["how.steps"] = Whole(max_steps // 3, max_steps)
    return space | {path: each for path, each in COMMON.items() if hasattr(method, path)}
