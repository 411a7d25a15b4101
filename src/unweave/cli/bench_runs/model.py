"""A run on a model of a user's own, which is the original for every seed."""

from dataclasses import replace
from pathlib import Path

from unweave.audits.verdict import SEEDS
from unweave.bench.bench import compare, select_methods
from unweave.cli.bench_runs.folder import claim_folder
from unweave.cli.inputs import out
from unweave.cli.inputs.plan import Plan, extends
from unweave.cli.inputs.request import Request, positions
from unweave.cli.options import CommonFlags, parse_names
from unweave.cli.project.place import Place, load_project
from unweave.cli.project.stage import UserModelStage, stage_of


def run_model(place: Place, request: Request, plan: Plan, flags: CommonFlags) -> Path:
    """Runs methods on a given original and writes them into a folder; returns the folder."""
    device, names = flags.device or "cpu", parse_names(plan.methods)
    plan.executor.refuse_unfit(device)
    stage = load_stage(place, request, plan, flags)
    recipe = stage.recipe
    methods = tuple(name for name in select_methods(recipe, names) if name != "retrain")
    facts = {
        "verb": "bench",
        "given": {**stage.facts(), "split": stage.split().digest()},
        "seeds": [list(recipe.seeds)],
        "methods": list(methods),
        **plan.facts(),
        "against": recipe.tuning.against if plan.searches else None,
        "budgets": [list(recipe.tuning.budgets)],
        "device": device,
    }
    project = load_project(place, device)
    for name in names or ():  # of all methods, those that can't run fail one by one
        project.refuse_undrawable_method(recipe.method(name), name)
    preferred_folder = flags.out or Path("unweave-bench")
    out.refuse_within(preferred_folder, project.source, place.data)
    folder = out.choose_folder(preferred_folder, facts, goes_on=extends)
    stage = replace(stage, folder=folder, storage=plan.storage)
    what = f"{', '.join(methods)} on {place.model}"
    with (
        plan.executor.crew(device, 1) as crew,
        claim_folder(what, folder, facts, quiet=flags.quiet) as listener,
    ):
        for seed in (None, *recipe.tuning.seeds) if plan.tune else (None,):
            stage.exam(seed)  # raises before any training if there are too few images
        compare(
            [stage.with_retraining_cost(plan.tuned) if plan.searches else stage],
            folder,
            methods=methods,
            crew=crew,
            tune=plan.tune or 0,
            tuned=plan.tuned,
            attacks=plan.choose_attacks,
            listener=listener,
        )
    return folder


def load_stage(place: Place, request: Request, plan: Plan, flags: CommonFlags) -> UserModelStage:
    """The stage of a given original and its request, with the seeds and the tuning of a plan; no folder yet.

    Raises:
        ValueError: If it can't be run as planned.
    """
    device = flags.device or "cpu"
    forget = positions(request, load_project(place, device), flags.seed or 0)
    stage = stage_of(place, tuple(forget.tolist()), Path(), device)
    recipe = plan.apply_to(stage.recipe, flags.seed)
    plan.refuse_other_families([recipe])
    if len(recipe.seeds) < SEEDS:  # without a verdict no margins are needed
        recipe = replace(recipe, calibration_seeds=())
    stage = replace(stage, recipe=recipe)
    if plan.searches:
        stage.refuse_unsearchable()
    return stage
